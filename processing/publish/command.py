"""Publishes a built folder: contents first, then one commit that names them all, then the version's tag.

Readers see the old release until the commit and the new one after it, never a mix. The commit also writes the
list of what this module put into the repository, with checksums: what differs from it was changed by people,
and stays (see `changes`).

    verify -> compare with the Hub -> gate -> upload -> commit -> tag

Each step asks first whether it is done. Running the same command again is therefore how to go on after any
failure, and does nothing when all is there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from tqdm import tqdm

from ImageNet3D import shown
from processing.built import MANIFEST, Manifest, read_files, read_manifest
from processing.publish.changes import Changes, Published, compare
from processing.publish.publication import Content, Publication, read_publication
from processing.publish.repository import (
    MAIN,
    PULL_REQUESTS,
    ConflictError,
    PublishError,
    Refs,
    Repository,
)
from processing.runtime.paths import PlaceError, place
from processing.runtime.strict import DamagedError, Field

# Files that are sent together; the progress bar moves on with each batch.
BATCH = 8


@dataclass(frozen=True)
class PublishReport:
    """What was done, or with `dry_run` would be.

    Attributes:
        repo, revision: where.
        version: of the release.
        changes: to the revision.
        gates: whether the repository was open to everybody and is gated first.
        commit: its sha; of the existing one if nothing changed, None after a dry run.
        tag: the tag that names the release; None unless main was published.
        page: to look at.
    """

    repo: str
    revision: str
    version: str
    changes: Changes
    gates: bool = False
    commit: str | None = None
    tag: str | None = None
    page: str = ""

    def __str__(self) -> str:
        parts = [f"ImageNet3D {self.version} to {self.repo} at {self.revision}", str(self.changes)]
        if self.commit is None:
            size = sum(self.changes.to_send.values())
            parts.append(self.changes.paths())
            parts += ["The repository is open to everybody; it would be gated first."] * self.gates
            parts += [_conflict(self.repo, self.changes)] * bool(self.changes.conflicts)
            parts.append(f"Dry run: nothing was sent. At most {size:,} bytes would be.")
        else:
            done = "Published with one commit" if self.changes else "Nothing to do: all is there"
            tag = f", tagged {self.tag}" if self.tag else ""
            parts.append(f"{done}: {self.commit[:8]}{tag}\n{self.page}")
        return "\n\n".join(part for part in parts if part)


def publish(
    out: str | Path,
    repo: str,
    *,
    revision: str | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
    benchmark: bool = False,
    token: str | None = None,
    gated: Literal["auto", "manual"] = "auto",
    workers: int | None = None,
    endpoint: str | None = None,
) -> PublishReport:
    """Publish a built folder to a dataset repository.

    A repository that is open to everybody is gated before the first byte, whatever the revision: all of them
    are as open as main.

    Args:
        out: the built folder.
        repo: the repository, such as "ccvl/ImageNet3D"; made if it does not exist. The card and Croissant are
            written for it.
        revision: main by default. A branch, made if it does not exist; "refs/pr/7", an open pull request; or
            "refs/pr", which opens a new one. Only main is tagged.
        dry_run: only say what would change.
        overwrite: replace also what others changed on the Hub since the last publishing.
        benchmark: send `dataset_card/eval.yaml` too, which makes the dataset a benchmark of the Hub.
        token: of the Hub; by default HF_TOKEN or the one of `hf auth login`.
        gated: who grants access to a repository that was open: the Hub to all who ask, or the owners. One
            that is gated already stays as it is.
        workers: processes that verify; as many as there are cores by default.
        endpoint: of the Hub; HF_ENDPOINT by default.

    Raises:
        PlaceError: for a folder of an object store.
        ValueError: for a revision without a name.
        PublishError: if the folder is not whole, others changed what the release changes too, or for anything
            that the Hub refuses.
        OSError: if a file of the folder cannot be read.
    """
    folder, target = place(out), MAIN if revision is None else revision
    if not isinstance(folder, Path):
        raise PlaceError(
            f"{out}: publish sends a folder of this machine; copy it here first (docs/stores.md)"
        )
    if not target.strip():
        raise ValueError("the revision has no name; leave it out for main")
    read_manifest(folder)  # no need to ask the Hub for what was never built
    repository = Repository(repo, token=token, endpoint=endpoint)
    if not dry_run:
        repository.check_token()
    info = repository.info()
    release = read_publication(folder, _verified(folder, workers), repo, benchmark)
    if info is None:
        if dry_run:
            return PublishReport(repo, target, release.version, compare(release, Published()), gates=True)
        _create(repository, target)
    is_open = info is None or not info.gated
    plan = _plan(repository, release, target, overwrite)
    if dry_run:
        return PublishReport(repo, target, release.version, plan.changes, is_open)
    if plan.changes.conflicts:
        raise PublishError(_conflict(repo, plan.changes))
    if is_open:
        repository.gate(gated)  # before there is more to see
    commit, page = _carry_out(repository, release, plan)
    tag = release.tag if target == MAIN else None
    if tag and not plan.is_tagged:
        repository.tag(tag, commit)
    return PublishReport(repo, target, release.version, plan.changes, is_open, commit, tag, page)


def _conflict(repo: str, changes: Changes) -> str:
    """What to say where others and the release change the same files."""
    paths = ", ".join(shown(path) for path in changes.conflicts)
    return (
        f"{repo}: {paths}: changed on the Hub by others, not by an earlier publishing, and this release has "
        "something else there; take their changes over into the build, or replace them with --overwrite"
    )


def _verified(folder: Path, workers: int | None) -> Manifest:
    """The manifest of a folder that is as it was built: nothing else is published."""
    from processing.verify.checks import problems_table
    from processing.verify.command import verify

    problems = verify(folder, workers=workers)
    if not all(problem.is_note for problem in problems):
        raise PublishError(f"{problems_table(problems)}\n\n{folder}: not published")
    return read_manifest(folder)


def _create(repository: Repository, target: str) -> None:
    """Make the repository; it is gated before anything is in it."""
    if _is_pull_request(target):
        raise PublishError(
            f"{repository.repo_id}: does not exist, or this token may not see it; check the name"
        )
    repository.create()


def _is_pull_request(target: str) -> bool:
    return target == PULL_REQUESTS or target.startswith(f"{PULL_REQUESTS}/")


def _read(repository: Repository, revision: str) -> Published:
    """The files of a revision, and what its manifest says of them.

    Raises:
        PublishError: if the manifest is damaged.
    """
    read = repository.read(revision)
    if MANIFEST not in read.files:
        return Published(repository, read)
    try:
        listed = Field.parse(f"{MANIFEST} at {revision}", repository.fetch(MANIFEST, read.sha))["files"]
        return Published(repository, read, read_files(listed))
    except DamagedError as error:
        raise PublishError(
            f"{repository.repo_id}: {error}, so what an earlier release wrote is not known; restore that "
            "file from the repository's history"
        ) from error


@dataclass(frozen=True)
class _Plan:
    """What is to be done.

    Attributes:
        target: the revision to publish at.
        start: the revision that the commit is to follow.
        parent: its commit.
        changes: to it.
        is_tagged: whether the release has its tag.
    """

    target: str
    start: str
    parent: str
    changes: Changes
    is_tagged: bool


def _plan(repository: Repository, release: Publication, target: str, overwrite: bool) -> _Plan:
    """Compare the release with the repository, and refuse what would not end well before anything is sent."""
    refs = repository.refs()
    start = _starting_point(repository, target, refs)
    published = _read(repository, start)
    changes = compare(release, published, overwrite)
    _check_strangers(repository, release, changes)
    is_tagged = release.tag in refs.tags
    if target == MAIN and is_tagged:
        _check_tag(repository, release)
    return _Plan(target, start, published.revision.sha, changes, is_tagged)


def _starting_point(repository: Repository, target: str, refs: Refs) -> str:
    """The revision that the commit is to follow: the target itself, or main where that is yet to be made."""
    if target in refs.branches or (_is_pull_request(target) and target != PULL_REQUESTS):
        return target
    if target in refs.tags:
        raise PublishError(
            f"{repository.repo_id}: {target} is a tag, and tags do not move; name a branch, or none for main"
        )
    return MAIN


def _check_strangers(repository: Repository, release: Publication, changes: Changes) -> None:
    """Refuse where files that stay would make the release unloadable or give it rows of their own."""
    script = f"{repository.repo_id.rpartition('/')[2]}.py"
    shard_folders = {PurePosixPath(p).parent for p in release.contents if p.endswith(".parquet")}
    for path in changes.strangers:
        if path == script:
            why = "with which `datasets` 4 and newer refuse to load the repository"
        elif path.endswith(".parquet") and PurePosixPath(path).parent in shard_folders:
            why = "whose rows would be loaded with the release's"
        else:
            continue
        raise PublishError(
            f"{repository.repo_id}: holds {shown(path)}, {why}, and which no earlier release wrote; "
            "remove it there"
        )


def _check_tag(repository: Repository, release: Publication) -> None:
    """Refuse to publish under a version that other files have: users who pinned it rely on them."""
    if compare(release.tagged(), _read(repository, release.tag)):
        raise PublishError(
            f"{repository.repo_id}: the tag {release.tag} names other files, and tags do not move; raise "
            "__version__ in ImageNet3D.py, build again and publish that"
        )


def _carry_out(repository: Repository, release: Publication, plan: _Plan) -> tuple[str, str]:
    """Make the commit where there is one to make; the sha of what is there then, and its address."""
    if plan.start != plan.target != PULL_REQUESTS:
        repository.create_branch(plan.target)
    if not plan.changes:
        return plan.parent, repository.page(plan.start)
    additions = _upload(repository, release, plan)
    removals = [CommitOperationDelete(path) for path in plan.changes.removed]
    message = f"ImageNet3D {release.version}"
    conflict = None
    try:
        commit, page = repository.commit(
            [*additions, *removals], message, parent=plan.parent, revision=plan.target
        )
    except ConflictError as error:
        conflict = error
    if plan.target == PULL_REQUESTS:  # its number is not known, so neither is where to look
        if conflict is not None:
            raise conflict
        return commit, page
    # No conflict is our own commit, made by an attempt whose answer was lost.
    found = _read(repository, plan.target)
    if lacking := compare(release, found):
        raise conflict or PublishError(_lacking(repository, lacking, commit))
    return (commit, page) if conflict is None else (found.revision.sha, repository.page(plan.target))


def _upload(repository: Repository, release: Publication, plan: _Plan) -> list[CommitOperationAdd]:
    """Send the contents that the Hub lacks; what the commit is to add."""
    to_send = plan.changes.to_send
    additions = [_addition(path, release.contents[path]) for path in to_send]
    with _one_bar(sum(to_send.values())) as bar:
        for start in range(0, len(additions), BATCH):
            batch = additions[start : start + BATCH]
            repository.upload(batch, plan.target)
            _check_unchanged(batch, release)
            bar.update(sum(addition.upload_info.size for addition in batch))
    return additions


def _lacking(repository: Repository, lacking: Changes, commit: str) -> str:
    """What to say of a commit that does not hold what it should."""
    path = next(iter({**lacking.to_send, **lacking.removed, **lacking.conflicts}))
    return (
        f"{repository.repo_id}: {path} is not in commit {commit[:8]} as it was sent; see whether the "
        "repository has a .gitignore or somebody changed it since, then run the same command again"
    )


def _addition(path: str, content: Content) -> CommitOperationAdd:
    source = content.source if isinstance(content.source, bytes) else str(content.source)
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=source)


def _check_unchanged(additions: list[CommitOperationAdd], release: Publication) -> None:
    """Commit only bytes that were verified: the checksums are of what was read for sending."""
    for addition in additions:
        if addition.upload_info.sha256.hex() != release.contents[addition.path_in_repo].sha256:
            raise PublishError(f"{addition.path_in_repo}: changed while it was sent; build again and publish")


@contextmanager
def _one_bar(total: int) -> Iterator[tqdm]:
    """One progress bar of bytes, instead of the library's two or more for each batch."""
    silent = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with tqdm(total=total, desc="upload", unit="B", unit_scale=True, disable=None) as bar:
            yield bar
    finally:
        if not silent:
            enable_progress_bars()
