"""A dataset repository of the Hugging Face Hub: passing troubles are retried, all others explained.

Every request goes through `HfApi`. What fails ends in a `PublishError` that says what is wrong with which
repository and what to do; the library's own exception stays its cause.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo, RepoFile

from ImageNet3D import shown_error

MAIN = "main"
PULL_REQUESTS = "refs/pr"  # refs/pr/7 is a pull request; the name alone asks for a new one

# Seconds before each new attempt, after the library's own five quick ones.
PAUSES = (2, 10, 30)

# Troubles that waiting does not mend, although their classes say that a connection failed.
_FINAL = (LocalTokenNotFoundError, OfflineModeIsEnabled, PermissionError)

_LOG_IN = (
    "make a token with write access at https://huggingface.co/settings/tokens, then run `hf auth login` "
    "or set HF_TOKEN"
)
_GO_ON = "run the same command again to go on: what has arrived is not sent again"
_OFFLINE = "HF_HUB_OFFLINE is set, so nothing can be sent; unset it and run the same command again"
_NO_RIGHTS = (
    "this token may not do this; ask an owner of the repository for the right to write, and use a token "
    "whose own permissions include it"
)
_QUOTA = "the account's storage on the Hub is used up; make or buy room there, then " + _GO_ON

# HTTP status -> what it means here and what to do.
_MEANINGS: Mapping[int, str] = {
    401: "the Hub does not accept this token; " + _LOG_IN,
    402: _QUOTA,
    403: _NO_RIGHTS,
    404: "not found; check the name, and whether this token may see it",
    408: "the Hub took too long to answer; " + _GO_ON,
    409: "it is in the way of something that exists or is being made; " + _GO_ON,
    413: "a file or the commit is too large for the Hub; build with a smaller --shard-size",
    429: "too many requests for now; wait some minutes and " + _GO_ON,
    507: _QUOTA,
}

Answer = TypeVar("Answer")


class PublishError(RuntimeError):
    """The dataset cannot be published; the message says why and what to do."""


class ConflictError(PublishError):
    """The revision is no longer at the commit that the new one was to follow."""


@dataclass(frozen=True)
class CommitFiles:
    """The files of a repository at one commit.

    Attributes:
        sha: of the commit.
        files: path -> what the Hub says of the file.
    """

    sha: str
    files: Mapping[str, RepoFile]


@dataclass(frozen=True)
class Refs:
    """Names of branches and tags."""

    branches: frozenset[str]
    tags: frozenset[str]


class Repository:
    """One dataset repository, as one token sees it."""

    def __init__(self, repo_id: str, *, token: str | None = None, endpoint: str | None = None):
        self.repo_id = repo_id
        self._api = HfApi(endpoint=endpoint, token=token, library_name="imagenet3d")
        self._reached = False  # whether the Hub has answered yet

    def page(self, revision: str) -> str:
        """The address of a revision for people."""
        return f"{self._api.endpoint}/datasets/{self.repo_id}/tree/{revision}"

    def check_token(self) -> None:
        """Refuse to begin without a token that the Hub knows."""
        self._patiently(self._api.whoami)

    def info(self) -> DatasetInfo | None:
        """What the Hub tells of the repository; None if it does not exist or this token may not see it."""
        try:
            return self._ask("repo_info")
        except PublishError as error:
            if isinstance(error.__cause__, RepositoryNotFoundError):
                return None
            raise

    def refs(self) -> Refs:
        """The branches and tags there are."""
        refs = self._ask("list_repo_refs")
        return Refs(
            frozenset(branch.name for branch in refs.branches), frozenset(tag.name for tag in refs.tags)
        )

    def read(self, revision: str) -> CommitFiles:
        """The files at a revision."""
        sha = self._ask("repo_info", revision=revision).sha
        tree = partial(self._api.list_repo_tree, self.repo_id, recursive=True, revision=sha)
        entries = self._patiently(lambda: list(tree(repo_type="dataset")))
        return CommitFiles(sha, {entry.path: entry for entry in entries if isinstance(entry, RepoFile)})

    def fetch(self, path: str, sha: str) -> bytes:
        """The content of a small file at a commit."""
        with TemporaryDirectory() as folder:
            location = self._ask("hf_hub_download", path, revision=sha, local_dir=folder)
            return Path(location).read_bytes()

    def create(self) -> None:
        """Make the repository."""
        self._ask("create_repo", exist_ok=True)

    def gate(self, gated: Literal["auto", "manual"]) -> None:
        """Let visitors ask for access before they see files: the card's YAML holds only the form for it.

        Raises:
            PublishError: if this token may not; nothing should be sent then.
        """
        try:
            self._ask("update_repo_settings", gated=gated)
        except PublishError as error:
            if _status(error.__cause__) != 403:
                raise
            raise PublishError(
                f"{self.repo_id}: is open to everybody, and only an owner can gate it; ask one to do so in "
                "its settings, then run the same command again"
            ) from error.__cause__

    def create_branch(self, name: str) -> None:
        """Make a branch that begins at main."""
        self._ask("create_branch", branch=name, exist_ok=True)

    def upload(self, additions: Sequence[CommitOperationAdd], revision: str) -> None:
        """Send the contents that the Hub does not have yet; no revision shows them before a commit does."""
        self._ask("preupload_lfs_files", additions, **_target(revision))

    def commit(
        self,
        operations: Iterable[CommitOperationAdd | CommitOperationDelete],
        message: str,
        *,
        parent: str,
        revision: str,
    ) -> tuple[str, str]:
        """Make one commit, and a pull request with it if `revision` asks for a new one.

        Returns:
            The commit's sha, and the address to look at.

        Raises:
            ConflictError: if the revision is not at `parent`. An earlier attempt whose answer was lost may be
                the reason, so see whether the commit is there.
        """
        options = {"commit_message": message, "parent_commit": parent, **_target(revision)}
        try:
            # Twice asked for, a pull request would be there twice.
            pauses = () if revision == PULL_REQUESTS else PAUSES
            made = self._ask("create_commit", operations, pauses=pauses, **options)
        except PublishError as error:
            if _status(error.__cause__) == 412:
                raise ConflictError(
                    f"{self.repo_id}: somebody made a commit to {revision} meanwhile, so nothing was "
                    "changed; run the same command again: it compares anew and sends only what is missing"
                ) from error.__cause__
            if revision == PULL_REQUESTS:
                raise PublishError(f"{error}; first see whether the pull request has been made") from error
            raise
        return made.oid, made.pr_url or self.page(revision)

    def tag(self, name: str, sha: str) -> None:
        """Give a commit a name that stays."""
        self._ask("create_tag", tag=name, revision=sha, exist_ok=True)

    def _ask(self, method: str, *arguments: Any, pauses: Sequence[int] = PAUSES, **options: Any) -> Any:
        """Call a method of `HfApi` on this repository."""
        call = partial(getattr(self._api, method), self.repo_id, *arguments, repo_type="dataset", **options)
        return self._patiently(call, pauses)

    def _patiently(self, call: Callable[[], Answer], pauses: Sequence[int] = PAUSES) -> Answer:
        """Call, and again after each pause if the trouble may pass; not where the Hub has never answered."""
        for pause in (*pauses, None):
            try:
                answer = call()
            except (OSError, HTTPError, RuntimeError, ValueError) as error:
                cause = _cause(error)
                if isinstance(cause, OSError) and cause.filename is not None:
                    raise cause from error  # a file on this machine
                self._reached = self._reached or _status(cause) is not None
                if not self._reached and _may_pass(cause):
                    raise PublishError(
                        f"{self.repo_id}: {_unreachable(cause, self._api.endpoint)}"
                    ) from cause
                if pause is None or not _may_pass(cause):
                    raise PublishError(f"{self.repo_id}: {_explanation(cause)}") from cause
            else:
                self._reached = True
                return answer
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")


def _target(revision: str) -> dict[str, Any]:
    """How the methods of `HfApi` are told where a commit goes."""
    return {"create_pr": True} if revision == PULL_REQUESTS else {"revision": revision}


def _cause(error: BaseException) -> BaseException:
    """What went wrong in an upload: the library wraps it to name the file."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException | None) -> int | None:
    """The HTTP status by which the Hub refused; None where it did not answer."""
    # Not only HfHubHTTPError: huggingface_hub before 1.0 tells of a bad token with an error of requests.
    response = getattr(error, "response", None)
    return None if response is None else response.status_code


def _may_pass(error: BaseException) -> bool:
    """Whether a new attempt is worth a wait: the connection, or a Hub in trouble."""
    if (status := _status(error)) is not None:
        return status in (408, 429) or status >= 500
    return isinstance(error, (OSError, HTTPError)) and not isinstance(error, _FINAL)


def _unreachable(error: BaseException, endpoint: str) -> str:
    return (
        f"{endpoint} cannot be reached ({type(error).__name__}: {shown_error(error)}); see whether this "
        "machine is online, and run the same command again"
    )


def _explanation(error: BaseException) -> str:
    """What is wrong and what to do, in the words of the Hub where it gave any."""
    if isinstance(error, LocalTokenNotFoundError):
        return "there is no token; " + _LOG_IN
    if isinstance(error, OfflineModeIsEnabled):
        return _OFFLINE
    if isinstance(error, PermissionError):  # of Xet storage
        return f"{_NO_RIGHTS} ({error})"
    if isinstance(error, RevisionNotFoundError):
        return f"no such branch or pull request; a pull request is {PULL_REQUESTS}/NUMBER"
    status = _status(error)
    if status is None:
        if _may_pass(error):
            return f"the connection to the Hub was lost ({type(error).__name__}: {error}); {_GO_ON}"
        return str(error)
    said = getattr(error, "server_message", None) or str(error).strip().splitlines()[0]
    if status == 403 and any(word in said.lower() for word in ("storage", "quota")):
        meaning = _QUOTA
    else:
        meaning = _MEANINGS.get(
            status, "the Hub is in trouble; " + _GO_ON if status >= 500 else "the Hub refused it"
        )
    return f"{meaning} ({status}: {said})"
