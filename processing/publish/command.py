"""Publishes a built folder: contents first, then one commit that names them all, then the version's tag.

Readers see the old release until the commit and the new one after it, never a mix. The commit also writes
`imagenet3d_manifest.json`, the list of what this module put into the repository: only paths that the list of
the release before names are ever removed, so the raw release and whatever people added stay.

    verify -> compare with the Hub -> gate -> upload -> commit -> tag

Each step asks first whether it is done. Running the same command again is therefore how to go on after any
failure, and does nothing when all is there.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)
from tabulate import tabulate
from tqdm import tqdm

from ImageNet3D import RAW_ARCHIVE
from processing.built import MANIFEST, read_manifest
from processing.publish.repository import (
    MAIN,
    PULL_REQUESTS,
    ConflictError,
    PublishError,
    Refs,
    Repository,
    Revision,
)
from processing.runtime.store import PlaceError, place

# Never removed, whatever a manifest says: the raw release, and what the Hub keeps for itself.
KEPT = frozenset({RAW_ARCHIVE, ".gitattributes"})

# Files that are sent together; the progress bar moves on with each batch.
BATCH = 8


@dataclass(frozen=True)
class Content:
    """What a path of the repository is to hold: a file on this machine, or bytes."""

    source: Path | bytes
    size: int
    sha256: str

    def is_in(self, file: RepoFile) -> bool:
        """Whether the Hub's file has this content; what git keeps is known by its git id alone."""
        if file.size != self.size:
            return False
        if file.lfs is not None:
            return file.lfs.sha256 == self.sha256
        data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
        return file.blob_id == blob.hexdigest()


@dataclass(frozen=True)
class Release:
    """All that is to be published, by path, and its version."""

    version: str
    contents: Mapping[str, Content]

    @property
    def tag(self) -> str:
        """The name of the version in the repository."""
        return f"v{self.version}"


@dataclass
class Changes:
    """What a release changes in a revision: paths, with the bytes of the contents."""

    added: dict[str, int] = field(default_factory=dict)
    replaced: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)
    unchanged: dict[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.added or self.replaced or self.removed)

    @property
    def to_send(self) -> dict[str, int]:
        """Paths whose content the repository does not have there, with their bytes."""
        return {**self.added, **self.replaced}

    def __str__(self) -> str:
        kinds = ("added", "replaced", "removed", "unchanged")
        sizes = [(kind, getattr(self, kind).values()) for kind in kinds]
        counts = [(kind, len(of_kind), f"{sum(of_kind):,}") for kind, of_kind in sizes]
        return tabulate(counts, headers=("", "files", "bytes"), disable_numparse=True, stralign="right")

    def paths(self) -> str:
        """What changes, a path a line."""
        marked = (("+", self.added), ("~", self.replaced), ("-", self.removed))
        return "\n".join(f"{mark} {path}" for mark, paths in marked for path in paths)


@dataclass(frozen=True)
class PublishReport:
    """What was done, or with `dry_run` would be.

    Attributes:
        repo, revision: where.
        version: of the release.
        changes: to the revision.
        commit: its sha; of the existing one if nothing changed, None after a dry run.
        tag: the tag that names the release; None unless main was published.
        page: to look at.
    """

    repo: str
    revision: str
    version: str
    changes: Changes
    commit: str | None = None
    tag: str | None = None
    page: str = ""

    def __str__(self) -> str:
        parts = [f"ImageNet3D {self.version} to {self.repo} at {self.revision}", str(self.changes)]
        if self.commit is None:
            size = sum(self.changes.to_send.values())
            parts += [self.changes.paths(), f"Dry run: nothing was sent. At most {size:,} bytes would be."]
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
    token: str | None = None,
    gated: Literal["auto", "manual"] = "auto",
    workers: int | None = None,
    endpoint: str | None = None,
) -> PublishReport:
    """Publish a built folder to a dataset repository.

    Args:
        out: the built folder.
        repo: the repository, such as "ccvl/ImageNet3D"; made if it does not exist.
        revision: main by default. A branch, made if it does not exist; "refs/pr/7", an open pull request; or
            "refs/pr", which opens a new one. Only main is tagged and gated.
        dry_run: only say what would change.
        token: of the Hub; by default HF_TOKEN or the one of `hf auth login`.
        gated: who grants access to a repository that was open: the Hub to all who ask, or the owners. One
            that is gated already stays as it is.
        workers: processes that verify; as many as there are cores by default.
        endpoint: of the Hub; HF_ENDPOINT by default.

    Raises:
        PlaceError: for a folder of an object store.
        PublishError: if the folder is not whole, or for anything that the Hub refuses.
        OSError: if a file of the folder cannot be read.
    """
    folder, target = place(out), revision or MAIN
    if not isinstance(folder, Path):
        raise PlaceError(
            f"{out}: publish sends a folder of this machine; copy it here first (docs/stores.md)"
        )
    _verify(folder, workers)
    release = read_release(folder)
    repository = Repository(repo, token=token, endpoint=endpoint)
    if not dry_run:
        repository.check_token()
    info = repository.info()
    if info is None:
        if dry_run:
            return PublishReport(repo, target, release.version, _compare(release, _EMPTY))
        _create(repository, target, gated)
    plan = _plan(repository, release, target)
    if dry_run:
        return PublishReport(repo, target, release.version, plan.changes)
    if target == MAIN and info is not None and not info.gated:
        repository.gate(gated)  # before there is more to see
    commit, page = _carry_out(repository, release, plan)
    tag = release.tag if target == MAIN else None
    if tag and not plan.is_tagged:
        repository.tag(tag, commit)
    return PublishReport(repo, target, release.version, plan.changes, commit, tag, page)


def _verify(folder: Path, workers: int | None) -> None:
    """Publish nothing that is not as it was built."""
    from processing.verify.checks import problems_table
    from processing.verify.command import verify

    if problems := verify(folder, workers=workers):
        raise PublishError(f"{problems_table(problems)}\n\n{folder}: not published")


def read_release(folder: Path) -> Release:
    """What a built folder's manifest lists, and the manifest itself.

    Raises:
        PublishError: if it has categories whose label ids may still move.
    """
    manifest = read_manifest(folder)
    if unknown := manifest.findings.get("category_unknown"):
        raise PublishError(
            f"{folder}: {unknown} categories are unknown to the code that built it, so their label ids may "
            "still move; append them to ImageNet3D.LATER_CATEGORIES, build again and publish"
        )
    contents = {
        path: Content(folder / path, entry.size, entry.sha256) for path, entry in manifest.files.items()
    }
    data = (folder / MANIFEST).read_bytes()
    contents[MANIFEST] = Content(data, len(data), hashlib.sha256(data).hexdigest())
    return Release(manifest.version, dict(sorted(contents.items())))


def _create(repository: Repository, target: str, gated: Literal["auto", "manual"]) -> None:
    """Make the repository, gated before there is anything to see."""
    if _is_pull_request(target):
        raise PublishError(
            f"{repository.repo_id}: does not exist, or this token may not see it; check the name"
        )
    repository.create()
    repository.gate(gated)


def _is_pull_request(target: str) -> bool:
    return target == PULL_REQUESTS or target.startswith(f"{PULL_REQUESTS}/")


@dataclass(frozen=True)
class _Base:
    """A revision of the repository, and the paths that its own manifest says were written here."""

    revision: Revision
    written: frozenset[str]


_EMPTY = _Base(Revision("", {}), frozenset())


def _read(repository: Repository, revision: str) -> _Base:
    read = repository.read(revision)
    if MANIFEST not in read.files:
        return _Base(read, frozenset())
    try:
        written = json.loads(repository.fetch(MANIFEST, read.sha))["files"].keys()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PublishError(
            f"{repository.repo_id}: {MANIFEST} at {revision} cannot be read ({error}), so what an earlier "
            "release wrote is not known; restore that file from the repository's history"
        ) from error
    return _Base(read, frozenset(written))


def _compare(release: Release, base: _Base) -> Changes:
    """What the release changes in a revision."""
    files = base.revision.files
    changes = Changes()
    for path, content in release.contents.items():
        if path not in files:
            changes.added[path] = content.size
        elif content.is_in(files[path]):
            changes.unchanged[path] = content.size
        else:
            changes.replaced[path] = content.size
    gone = base.written - release.contents.keys() - KEPT
    changes.removed = {path: files[path].size for path in sorted(gone) if path in files}
    return changes


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


def _plan(repository: Repository, release: Release, target: str) -> _Plan:
    """Compare the release with the repository, and refuse what would not end well before anything is sent."""
    refs = repository.refs()
    start = _starting_point(repository, target, refs)
    base = _read(repository, start)
    changes = _compare(release, base)
    _check_strangers(repository, release, base.revision.files.keys() - changes.removed.keys())
    is_tagged = release.tag in refs.tags
    if target == MAIN and is_tagged:
        _check_tag(repository, release)
    return _Plan(target, start, base.revision.sha, changes, is_tagged)


def _starting_point(repository: Repository, target: str, refs: Refs) -> str:
    """The revision that the commit is to follow: the target itself, or main where that is yet to be made."""
    if target in refs.branches or (_is_pull_request(target) and target != PULL_REQUESTS):
        return target
    if target in refs.tags:
        raise PublishError(
            f"{repository.repo_id}: {target} is a tag, and tags do not move; name a branch, or none for main"
        )
    return MAIN


def _check_strangers(repository: Repository, release: Release, staying: set[str]) -> None:
    """Refuse where files that stay would make the release unloadable or give it rows of their own."""
    script = f"{repository.repo_id.rpartition('/')[2]}.py"
    shard_folders = {PurePosixPath(p).parent for p in release.contents if p.endswith(".parquet")}
    for path in sorted(staying - release.contents.keys()):
        if path == script:
            why = "with which `datasets` 4 and newer refuse to load the repository"
        elif path.endswith(".parquet") and PurePosixPath(path).parent in shard_folders:
            why = "whose rows would be loaded with the release's"
        else:
            continue
        raise PublishError(
            f"{repository.repo_id}: holds {path}, {why}, and which no earlier release wrote; remove it there"
        )


def _check_tag(repository: Repository, release: Release) -> None:
    """Refuse to publish under a version that other files have: users who pinned it rely on them."""
    if _compare(release, _read(repository, release.tag)):
        raise PublishError(
            f"{repository.repo_id}: the tag {release.tag} names other files, and tags do not move; raise "
            "__version__ in ImageNet3D.py, build again and publish that"
        )


def _carry_out(repository: Repository, release: Release, plan: _Plan) -> tuple[str, str]:
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
    if lacking := _compare(release, found):
        raise conflict or PublishError(_lacking(repository, lacking, commit))
    return (commit, page) if conflict is None else (found.revision.sha, repository.page(plan.target))


def _upload(repository: Repository, release: Release, plan: _Plan) -> list[CommitOperationAdd]:
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
    path = next(iter({**lacking.to_send, **lacking.removed}))
    return (
        f"{repository.repo_id}: {path} is not in commit {commit[:8]} as it was sent; see whether the "
        "repository has a .gitignore or somebody changed it since, then run the same command again"
    )


def _addition(path: str, content: Content) -> CommitOperationAdd:
    source = content.source if isinstance(content.source, bytes) else str(content.source)
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=source)


def _check_unchanged(additions: list[CommitOperationAdd], release: Release) -> None:
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
