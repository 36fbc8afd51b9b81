"""A command at work in a folder: its key, its markers, its lock, and which files are its own.

Markers (`done`) are of the command alone, which goes on by them. What is removed is only what the lists of
earlier runs name, in `run.json` and the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import filelock

from processing.built import (
    BOOKKEEPING,
    FINISHED_BY,
    MANIFEST,
    MAX_BOOKKEEPING_BYTES,
    RUN,
    is_hidden,
    read_manifest,
)
from processing.ledger import ShardResult, WrittenFile
from processing.runtime.paths import Place
from processing.runtime.store import FileState, attempt, digest, files_below, read_file, state_of, write_whole
from processing.runtime.strict import DamagedError, Field, is_plain_path


class BuildError(RuntimeError):
    """A build cannot start or go on; the message says why and what to do."""


class ReplacedError(RuntimeError):
    """Another command has begun in the folder; a worker that the first one lost must not write there."""


@dataclass(frozen=True)
class Run:
    """A command at work in a folder: what its workers must know. It can be sent to them.

    Attributes:
        folder: that is filled.
        key: of what is written there: input, options and code.
        hidden: the name of the folder with the command's own files.
    """

    folder: Place
    key: str
    hidden: str = BOOKKEEPING

    @property
    def file(self) -> Place:
        """Names the command that is at work, and what it may write."""
        return self.folder / self.hidden / "run.json"

    def marker(self, name: str) -> Place:
        """Where the marker of a finished task stands."""
        return self.folder / self.hidden / "done" / f"{name}.json"

    def begin(self, files: Iterable[str] = ()) -> None:
        """Say that this command has the folder.

        Args:
            files: that it may write; what another build may then remove.
        """
        # `run` tells the file from an earlier one, or one on another disk.
        data = {"key": self.key, "run": attempt(), "files": sorted(files)}
        write_whole(self.file, json.dumps(data, indent=1).encode())

    def check(self, name: str) -> None:
        """Raise ReplacedError if another command has begun in the folder since.

        Args:
            name: of the task, for the message.
        """
        if (found := read_run(self.folder, self.hidden)) is None or found.key != self.key:
            raise ReplacedError(
                f"{self.folder}: {name} is of a command that another one has replaced; "
                "run one command at a time in a folder"
            )

    def finish(self, result: ShardResult, write: Callable[[Place, bytes], None] = write_whole) -> None:
        """Write the marker of a task.

        Args:
            write: how; one that does not wait for the disk where the task's files did not, either.
        """
        marker = {"key": self.key, **result.to_dict()}
        write(self.marker(result.name), json.dumps(marker, indent=1).encode())

    def finished(self, name: str, folders: Iterable[str] = ()) -> ShardResult | None:
        """The result of a task that is done, if its files still are what was written; else None.

        Args:
            folders: inside the folder, that its files are in; a store is asked for all of them at once.
        """
        marker = self.marker(name)
        try:
            data = Field.parse(str(marker), read_file(marker, MAX_BOOKKEEPING_BYTES))
            if data["key"].value != self.key:
                return None
            result = ShardResult.from_field(data)
        except (FileNotFoundError, DamagedError):
            return None
        states = states_below(self.folder, folders) if not isinstance(self.folder, Path) else {}
        files = result.files.values()
        whole = result.name == name and all(is_whole(self.folder, f, states.get(f.path)) for f in files)
        return result if whole else None


def states_below(folder: Place, folders: Iterable[str]) -> dict[str, FileState]:
    """Path inside a folder -> state, of the files in some folders of it."""
    return {
        f"{inside}/{path}": state
        for inside in folders
        for path, state in files_below(folder / inside).items()
    }


@dataclass(frozen=True)
class Begun:
    """What `run.json` tells: the key, none while a build clears what another one left, and its files."""

    key: str
    files: tuple[str, ...]


def read_run(folder: Place, hidden: str = BOOKKEEPING) -> Begun | None:
    """The command that has a folder, or had it last; None where none has.

    Raises:
        DamagedError: if the file is not as it was written.
    """
    path = folder / hidden / "run.json"
    try:
        data = Field.parse(str(path), read_file(path, MAX_BOOKKEEPING_BYTES))
    except FileNotFoundError:
        return None
    files = tuple(file.text() for file in data["files"].elements())
    if not all(map(is_plain_path, files)):
        data["files"].refuse("a list of paths inside the folder")
    return Begun(data["key"].text(), files)


def is_whole(folder: Place, file: WrittenFile, state: FileState | None = None) -> bool:
    """Whether a file's bytes are those that were written; a store tells by its tag, without reading them.

    Args:
        state: of the file, where it is known already.
    """
    if file.tag and (state or state_of(folder / file.path)) == FileState(file.size, file.tag):
        return True
    return digest(folder / file.path) == (file.size, file.sha256)


def written_by_builds(folder: Place) -> set[str]:
    """The files, by the lists of earlier runs, that a build may replace or remove.

    Raises:
        DamagedError: if a list is not as it was written.
    """
    owned = {*FINISHED_BY}
    if (begun := read_run(folder)) is not None:
        owned.update(begun.files)
    with suppress(FileNotFoundError):
        owned.update(read_manifest(folder).files)
    return owned


def strangers(folder: Place, found: Collection[str]) -> list[str]:
    """The files, of those found in the folder, that no build made; hidden ones are nobody's business."""
    begun = RUN in found or MANIFEST in found
    owned = written_by_builds(folder) if begun else ()
    return [path for path in found if path not in owned and not is_hidden(path)]


@contextmanager
def locked(folder: Place, hidden: str = BOOKKEEPING) -> Iterator[None]:
    """Hold a folder for one command; the lock goes with the process, however it ends.

    A store has no such locks: see `build.command._check_undisturbed`.

    Raises:
        BuildError: if another process holds it.
    """
    if not isinstance(folder, Path):
        yield
        return
    (folder / hidden).mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / hidden / "lock", blocking=False):
            yield
    except filelock.Timeout:
        raise BuildError(
            f"{folder}: another command is at work in it; wait for it, or name another folder"
        ) from None
