"""The files of a folder of crops, whose they are, and how they are written.

    <split>/images/<category>/<name>.JPEG            split `train` or `val`
    <split>/annotations/<category>/<name>.npz
    <split>/lists/<category>/mesh01.txt
    .crop/run.json done/*.json                        the command at work, what is finished with checksums
    .crop/names/*.json                                the files that this command wrote, or was about to write

A name is in `.crop/names` before a file has it. So what was written is known, however the command ended, and
nothing else is ever removed or replaced: files of others stay, and are refused where a crop would need their
name.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from processing.ledger import WrittenFile
from processing.run import BuildError, Run, states_below
from processing.runtime.paths import Place, StorePath
from processing.runtime.store import (
    UNFINISHED,
    attempt,
    files_below,
    half_written,
    names_in,
    read_file,
    remove,
    write_all,
    write_whole,
)
from processing.runtime.strict import Field, is_plain_path

HIDDEN = ".crop"
LIST_NAME = "mesh01.txt"
MAX_NAME_BYTES = 255  # of a file, on all common file systems
_BATCH = 64  # files that are written, on a store side by side, after their names
_MAX_BYTES = 2**28  # of a list of names


def written_by_crops(folder: Place) -> set[str]:
    """The files, there or not, that lists of this command name; none of anyone else's is among them.

    Raises:
        DamagedError: if a list is not as it was written.
    """
    names = folder / HIDDEN / "names"
    return {path for name in names_in(names) if name.endswith(".json") for path in _read(names / name)}


def _read(path: Place) -> list[str]:
    try:
        data = Field.parse(str(path), read_file(path, _MAX_BYTES))
    except FileNotFoundError:
        return []
    names = [element.text() for element in data.elements()]
    if not all(map(is_plain_path, names)):
        data.refuse("a list of paths inside the folder")
    return names


def clear(work: Run) -> None:
    """Remove all crops, the markers first, so that nothing half-removed is taken for finished."""
    folder = work.folder
    work.file.unlink(missing_ok=True)  # no worker of an earlier command writes more
    done = [f"{HIDDEN}/done/{name}" for name in names_in(folder / HIDDEN / "done")]
    remove(folder, [*done, *half_written(folder)])
    remove(folder, sorted(written_by_crops(folder).intersection(files_below(folder))))
    remove(folder, [f"{HIDDEN}/names/{name}" for name in names_in(folder / HIDDEN / "names")])


class CategoryFiles:
    """Writes the files of a category of a split.

    Args:
        name: of the task.
        folders: inside the folder, that the files are in.

    Attributes:
        written: path -> file.
    """

    def __init__(self, work: Run, name: str, folders: Iterable[str]) -> None:
        self._work, self._name = work, name
        self._folders = tuple(folders)
        self._list = work.folder / HIDDEN / "names" / f"{name}.json"
        there = {f"{folder}/{file}" for folder in self._folders for file in names_in(work.folder / folder)}
        own = _read(self._list)  # after that: another worker may be at the same task, and names files first
        self._earlier, self._strangers = there.intersection(own), there.difference(own)
        self._waiting: dict[str, bytes] = {}
        self.written: dict[str, WrittenFile] = {}

    def write(self, path: str, data: bytes) -> None:
        """Write a file, now or with others.

        Raises:
            BuildError: if a file of someone else's has its name.
            ReplacedError: if another command has begun in the folder.
        """
        if path in self._strangers:
            raise BuildError(
                f"{self._work.folder / path}: is in the way of a crop, and no crop made it; move it elsewhere"
            )
        self._waiting[path] = data
        if len(self._waiting) == _BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what waits, after its names."""
        if not self._waiting:
            return
        self._work.check(self._name)
        for path, data in self._waiting.items():
            self.written[path] = WrittenFile(path, len(data), hashlib.sha256(data).hexdigest())
        names = json.dumps(sorted({*self.written, *_read(self._list)})).encode()
        write_at_once(self._list, names)
        if isinstance(self._work.folder, StorePath):
            write_all(self._work.folder, self._waiting)
        else:
            for path, data in self._waiting.items():
                write_at_once(self._work.folder / path, data)
        self._waiting = {}

    def finish(self) -> None:
        """Write what waits, and remove what an earlier attempt wrote and this one did not."""
        self.flush()
        if left := self._earlier.difference(self.written):
            remove(self._work.folder, sorted(left))
        if isinstance(self._work.folder, StorePath):  # by their tags it is known that they are whole
            for path, state in states_below(self._work.folder, self._folders).items():
                if path in self.written:
                    self.written[path] = replace(self.written[path], tag=state.tag)


def write_at_once(path: Place, data: bytes) -> None:
    """Write a file whole under its name; on a disk it may be lost, or be empty, when the power fails soon.

    So a marker may outlive its crops, or they it: it has their checksums, which are compared with the files
    before it is believed.
    """
    if isinstance(path, StorePath):
        write_whole(path, data)
        return
    aside = path.with_name(f".{attempt()}{UNFINISHED}")
    try:
        _new(aside, data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        _new(aside, data)
    try:
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _new(path: Path, data: bytes) -> None:
    with open(path, "xb", buffering=0) as file:  # noqa: PTH123 - as fast as it gets
        file.write(data)
