"""Files of a place, on this machine or on a store: written whole, listed, read and removed.

A file is written to a temporary one of this machine, and hashed there. On a disk that is beside its place: it
is flushed and renamed, and has its name only when it is whole. To a store it is sent then; S3 and Google give
it its name with the last request, other file systems may show the part that has arrived. So nothing there is
taken for finished by its name alone: markers and manifest, written after it, hold sizes and checksums.
"""

import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from processing.runtime.paths import Place, StoreError, StorePath, has_names_only, named_errors

UNFINISHED = ".unfinished"  # the ending of a hidden file that a killed process may leave behind
_HALF_WRITTEN = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(UNFINISHED)}")


# --------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------


def attempt() -> str:
    """A word for temporary names: two machines may be at the same file, and have the same process ids."""
    return uuid.uuid4().hex


_PUSHED_AT_ONCE = 8 * 2**20  # bytes


class NewFile:
    """A file that is being written and has no name yet; what is written after the end goes nowhere.

    Attributes:
        size, sha256: of what has been written.
    """

    closed = False  # for pyarrow

    def __init__(self, path: Place) -> None:
        self._path = path
        if isinstance(path, Path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not after the file's own name, which may be as long as a name can be.
            self._aside = path.with_name(f".{attempt()}{UNFINISHED}")
            self._stream: BinaryIO = self._aside.open("wb")
        else:
            handle, name = tempfile.mkstemp(UNFINISHED, "imagenet3d-")
            self._aside, self._stream = Path(name), os.fdopen(handle, "wb")
        self._pushed = self.size = 0
        self._digest = hashlib.sha256()
        self._done = False

    @property
    def sha256(self) -> str:
        """Hexadecimal."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> None:
        """Write bytes, and have the disk work meanwhile, so that `commit` need not wait for all of it."""
        if self._done:
            return
        self._stream.write(data)
        self._digest.update(data)
        self.size += len(data)
        if self.size - self._pushed >= _PUSHED_AT_ONCE and hasattr(os, "posix_fadvise"):
            self._stream.flush()
            # Linux begins to write what it is told to forget.
            os.posix_fadvise(self._stream.fileno(), self._pushed, 0, os.POSIX_FADV_DONTNEED)
            self._pushed = self.size

    def flush(self) -> None:
        """Nothing, and the same for `close`: `commit` or `discard` do it."""

    close = flush

    def commit(self) -> "FileState":
        """Give the file its name; it is whole, and on the disk or the store, when this returns."""
        if isinstance(self._path, Path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            _give_name(self._aside, self._path)
        else:
            self._stream.close()
            with named_errors(self._path, missing_too=True):
                _make_folder(self._path)
                self._path.fs.put_file(str(self._aside), self._path.location)
            self._aside.unlink()
        self._done = True
        if (state := state_of(self._path)) is None or state.size != self.size:
            raise StoreError(f"{self._path}: changed as it was written; is another command at work there?")
        return state

    def discard(self) -> None:
        """Throw away what was written; nothing happens after `commit`."""
        if not self._done:
            self._done = True
            try:
                self._stream.close()
            finally:
                self._aside.unlink(missing_ok=True)


def _give_name(temporary: Path, final: Path) -> None:
    """Rename a file that is on the disk, and return when its name is on the disk too."""
    temporary.replace(final)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _make_folder(path: StorePath) -> None:
    """The folder of a file, where folders are more than names: elsewhere this asks for nothing."""
    if not has_names_only(path):
        path.fs.makedirs(path.fs._parent(path.location), exist_ok=True)


def write_whole(path: Place, data: bytes) -> None:
    """Write a small file; on a disk, S3 and Google its name never stands for half of it."""
    if isinstance(path, StorePath):
        with named_errors(path, missing_too=True):
            _make_folder(path)
            path.fs.pipe_file(path.location, data)
        return
    file = NewFile(path)
    try:
        file.write(data)
        file.commit()
    finally:
        file.discard()


def write_all(folder: StorePath, files: Mapping[str, bytes]) -> None:
    """Write files of a store's folder, side by side where the file system can, each as `write_whole` does."""
    with named_errors(folder, missing_too=True):
        for name in {name.rpartition("/")[0]: name for name in files}.values():
            _make_folder(folder / name)
        folder.fs.pipe({(folder / name).location: data for name, data in files.items()})


# --------------------------------------------------------------------------------------------------------
# Listing, reading, removing
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileState:
    """What tells of a file without reading it.

    Attributes:
        size: bytes.
        tag: what the store gives to this content and no other (S3's ETag, Google's MD5); "" without one.
    """

    size: int
    tag: str = ""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "FileState":
        """From what an fsspec file system says of a file."""
        return cls(info["size"], str(info.get("ETag") or info.get("md5Hash") or "").strip('"'))


def files_below(folder: Place) -> dict[str, FileState]:
    """The files of a folder and of the folders in it, by path inside it; none where there is no such folder.

    On a store this is one request for each thousand files. Files may come and go meanwhile, as those of
    another command that is at work in the folder. Links are followed.

    Raises:
        StoreError: for a pipe, socket or device, which would hold up whoever opened it.
    """
    if isinstance(folder, Path):
        return dict(sorted(_local_files(folder)))
    with named_errors(folder):
        location = folder.location
        found = folder.fs.find(location, detail=True)
    return {
        name[len(location) + 1 :]: FileState.of(info)
        for name, info in sorted(found.items())
        if info["type"] == "file"
    }


def _local_files(top: Path) -> Iterator[tuple[str, FileState]]:
    waiting, seen = [(top, "")], set()
    while waiting:  # not by recursion: folders may be nested deeper than Python calls functions
        folder, inside = waiting.pop()
        try:
            state, entries = folder.stat(), list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue  # it has gone meanwhile
        if (state.st_dev, state.st_ino) in seen:
            continue  # a link that leads back
        seen.add((state.st_dev, state.st_ino))
        for entry in entries:
            path = f"{inside}{entry.name}"
            if entry.is_dir():
                waiting.append((Path(entry.path), f"{path}/"))
            elif entry.is_file():
                with suppress(FileNotFoundError):
                    yield path, FileState(entry.stat().st_size)
            elif not entry.is_symlink() or Path(entry.path).exists():
                raise _special(Path(entry.path))


def _special(path: Path) -> StoreError:
    return StoreError(f"{path}: is a pipe, socket or device where a file should be; remove it")


def read_file(path: Place, limit: int) -> bytes:
    """The content of a file that others may have put there.

    Args:
        limit: bytes it may have.

    Raises:
        FileNotFoundError: if there is none.
        StoreError: for what is no file, or one beyond the limit.
    """
    if isinstance(path, Path):
        if not path.is_dir() and path.exists() and not path.is_file():
            raise _special(path)
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    else:
        data = path.read_bytes()
    if len(data) > limit:
        raise StoreError(f"{path}: has more than {limit:,} bytes, far more than was ever written there")
    return data


def paths_matching(fs: fsspec.AbstractFileSystem, folder: str, pattern: str) -> list[str]:
    """The paths in a folder whose names match a pattern, in order; none where there is no such folder.

    They are listed and matched by name, because the path itself may hold characters that a glob would take
    for its own.
    """
    listed = fs.ls(folder, detail=False) if fs.isdir(folder) else []
    return sorted(path for path in listed if fnmatchcase(path.rsplit("/", 1)[-1], pattern))


def state_of(path: Place) -> FileState | None:
    """The state of a file; None where there is none."""
    try:
        if isinstance(path, Path):
            return FileState(path.stat().st_size)
        with named_errors(path):
            return FileState.of(path.fs.info(path.location))
    except FileNotFoundError:
        return None


def names_in(folder: Place) -> list[str]:
    """The names of the files and folders in a folder, in order; none where there is no such folder."""
    try:
        if isinstance(folder, Path):
            return sorted(path.name for path in folder.iterdir())
        with named_errors(folder):
            found = folder.fs.ls(folder.location, detail=False)
    except FileNotFoundError:
        return []
    return sorted({name.rstrip("/").rsplit("/", 1)[-1] for name in found})


def digest(path: Place) -> tuple[int, str] | None:
    """Bytes and SHA-256 (hexadecimal) of a file that is read from end to end; None where there is none."""
    try:
        if isinstance(path, StorePath):
            data = path.read_bytes()
            return len(data), hashlib.sha256(data).hexdigest()
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            return stream.tell(), sha256
    except FileNotFoundError:
        return None


def read_all(folder: Place, names: Sequence[str]) -> list[bytes]:
    """The contents of small files of a folder, fetched side by side from a store."""
    if isinstance(folder, Path):
        return [(folder / name).read_bytes() for name in names]
    with named_errors(folder):
        locations = [(folder / name).location for name in names]
        return folder.fs.cat_ranges(locations, None, None, on_error="raise")


@contextmanager
def opened(path: Place) -> Iterator[str | BinaryIO]:
    """What pyarrow reads a file from: its path on this machine, or ranges of it, fetched as it asks."""
    if isinstance(path, Path):
        yield str(path)
        return
    with named_errors(path), path.fs.open(path.location, "rb", cache_type="none") as stream:
        yield stream


def read_columns(path: Place, columns: Sequence[str]) -> pa.Table:
    """Columns of a Parquet file; of one on a store, only their ranges are fetched.

    By this thread alone: where one of Arrow's lets go of a Python file while the process ends, it aborts
    (exit 134, "terminate called without an active exception"; one run in 30 on a busy machine, pyarrow 26).
    """
    with opened(path) as source:
        return pq.ParquetFile(source).read(columns=list(columns), use_threads=False)


@contextmanager
def on_this_machine(folder: Place, names: Iterable[str]) -> Iterator[Path]:
    """A local folder with these files of a folder, as far as they exist: itself, or a copy for the while."""
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="imagenet3d-") as temporary:
        for name in names:
            if name.startswith("/") or not {"..", "."}.isdisjoint(name.split("/")) or "\\" in name:
                raise StoreError(f"{folder}: lists {name!r}, which is no file in it; build the folder again")
            copy = Path(temporary, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError), named_errors(folder / name):
                folder.fs.get_file((folder / name).location, str(copy))
        yield Path(temporary)


def remove(folder: Place, names: Iterable[str]) -> None:
    """Remove files of a folder, and folders that are empty after it; what is not there does no harm."""
    if isinstance(folder, StorePath):
        _delete(folder, sorted(files_below(folder).keys() & set(names)))
        return
    for name in names:
        (folder / name).unlink(missing_ok=True)
        with suppress(OSError):  # not empty, not there, or a link
            for parent in list(Path(name).parents)[:-1]:
                (folder / parent).rmdir()


def half_written(folder: Place) -> list[str]:
    """The files that killed processes have left aside."""
    return [path for path in files_below(folder) if _HALF_WRITTEN.fullmatch(path.rpartition("/")[2])]


def remove_tree(folder: Place) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if isinstance(folder, Path):
        if folder.is_dir():
            shutil.rmtree(folder)
        return
    _delete(folder, list(files_below(folder)))


def _delete(folder: StorePath, names: Sequence[str]) -> None:
    """Remove files that are there; a store is asked once for a thousand of them."""
    locations = [(folder / name).location for name in names]
    patterns = [at for at in locations if re.search(r"[*?[]", at)]  # fsspec would expand them
    with named_errors(folder):
        if plain := [at for at in locations if at not in patterns]:
            folder.fs.rm(plain)
        for at in patterns:
            folder.fs.rm_file(at)
