"""Where a dataset stands: a folder of this machine, or one of an object store.

A place of this machine is a `pathlib.Path`. A place of a store is a `StorePath`, named by an fsspec URL such
as s3://bucket/ImageNet3D; it has the few methods of Path whose promises a store can keep. What a store cannot
do (rename, lock, keep a folder without files) is not imitated: the functions below do things the way of
either.

Either way a file has its name only when it is whole. On a disk it is written aside, flushed and renamed. On a
store it is uploaded in parts, and the last request gives it its name; a process that is killed before leaves
nothing that a reader could see. `docs/stores.md` says what else is promised.
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
from typing import Any, BinaryIO, Protocol

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from ImageNet3D import shown_error

UNFINISHED = ".unfinished"  # the ending of a hidden file that a killed process may leave behind
_HALF_WRITTEN = re.compile(rf"\.[0-9a-f]{{32}}{re.escape(UNFINISHED)}")

# Of an upload; S3 takes at least 5 MiB and at most 10,000 parts. A worker holds one for each file it writes.
PART_BYTES = 8 * 2**20

# Stores where a file is uploaded in parts and then named, or thrown away, by fsspec's `commit` and `discard`;
# and the extra that has their package.
_STORES = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://|::)")


class PlaceError(ValueError):
    """A place cannot be used at all; the message says what to do."""

    exit_code = 2


class StoreError(OSError):
    """A store refused or failed, after every repetition; the message names the file and the remedy."""


@dataclass(frozen=True)
class StorePath:
    """A file or folder of an object store. It can be sent to other processes and machines.

    Attributes:
        url: any fsspec URL of a store, without a slash at its end.
    """

    url: str

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The file system: one for each process and thread, none of which remembers what it listed."""
        return fsspec.core.url_to_fs(self.url, use_listings_cache=False)[0]

    @property
    def location(self) -> str:
        """The path inside the file system."""
        return self.fs._strip_protocol(self.url)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, path: str) -> "StorePath":
        return StorePath(f"{self.url}/{path}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.url.rsplit("/", 1)[-1]

    def is_file(self) -> bool:
        """Whether there is such a file."""
        with told(self):
            try:
                return self.fs.info(self.location)["type"] == "file"
            except FileNotFoundError:
                return False

    def read_bytes(self) -> bytes:
        """The content of a file."""
        with told(self):
            return self.fs.cat_file(self.location)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content of a file of text."""
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file."""
        with told(self):
            try:
                self.fs.rm_file(self.location)
            except FileNotFoundError:
                if not missing_ok:
                    raise


Place = Path | StorePath


def place(where: str | os.PathLike[str] | StorePath) -> Place:
    """The place that a path or fsspec URL names; nothing is looked up.

    Raises:
        PlaceError: for a store whose package is not installed, or where files cannot be finished in one step.
    """
    if isinstance(where, StorePath):
        return where
    text = os.fspath(where)
    if (match := _URL.match(text)) is None:
        return Path(text).absolute()  # the workers of a cluster are in folders of their own
    protocol, rest = match[1], text[match.end() :]
    if protocol in ("file", "local"):
        return Path(fsspec.core.url_to_fs(text)[1])
    if protocol == "hf":
        raise PlaceError(
            f"{text}: every file written would be a commit there; build, verify and crop a folder of this "
            "machine, and `publish` a built one"
        )
    if protocol not in _STORES:
        raise PlaceError(
            f"{text}: a file cannot be named there when it is whole; write to a local folder and copy that, "
            "or name one on S3 (s3://) or Google Cloud Storage (gs://)"
        )
    if not rest.strip("/"):
        raise PlaceError(f"{text}: name a folder, such as {protocol}://bucket/ImageNet3D")
    if re.search(r"[?#]|(^|/)\.{1,2}(/|$)|//", rest.rstrip("/")):
        raise PlaceError(f"{text}: a folder on a store has no ?, #, //, . or .. in its name; name it plainly")
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = f'pip install "imagenet3d-datasets[{_STORES[protocol]}]"'
        raise PlaceError(f"{text}: needs a package that is not installed: {extra}") from error
    return StorePath(text.rstrip("/"))


@contextmanager
def told(path: Place, missing_too: bool = False) -> Iterator[None]:
    """Name the file and the remedy where a store only says what went wrong.

    Args:
        missing_too: also where something is not there, as a bucket to write to.
    """
    try:
        yield
    except Exception as error:  # packages for stores fail in ways of their own
        missing = isinstance(error, FileNotFoundError) and not missing_too
        if isinstance(path, Path) or isinstance(error, StoreError) or missing:
            raise
        if isinstance(error, PermissionError | FileNotFoundError):
            remedy = "check the address, the credentials and what they allow"
        else:
            remedy = "also when asked again; run the same command again to go on"
        raise StoreError(f"{path}: {shown_error(error)}; {remedy}") from error


# --------------------------------------------------------------------------------------------------------
# Writing
# --------------------------------------------------------------------------------------------------------


class NewFile(Protocol):
    """A file that is being written and has no name yet."""

    def write(self, data: Any) -> object:
        """Write bytes."""

    def commit(self) -> None:
        """Give the file its name; it is whole, and on the disk or the store, when this returns."""

    def discard(self) -> None:
        """Throw away what was written; nothing happens after `commit`."""


def new_file(path: Place, aside: Path | None = None) -> NewFile:
    """Begin a file.

    Args:
        aside: where it is written first, on the same disk as `path`; beside it where None.
    """
    if isinstance(path, Path):
        # Not after the file's own name, which may be as long as a name can be.
        return _NewLocalFile(path, aside or path.with_name(f".{attempt()}{UNFINISHED}"))
    return _NewStoreFile(path)


def attempt() -> str:
    """An ending for temporary names: two machines may be at the same file, and have the same process ids."""
    return uuid.uuid4().hex


def write_whole(path: Place, data: bytes) -> None:
    """Write a file so that its name never stands for half of it."""
    if isinstance(path, StorePath):
        with told(path, missing_too=True):
            path.fs.pipe_file(path.location, data)
        return
    file = new_file(path)
    try:
        file.write(data)
        file.commit()
    finally:
        file.discard()


def write_all(folder: StorePath, files: Mapping[str, bytes]) -> None:
    """Write files of a store's folder side by side, each of them whole or not at all."""
    with told(folder, missing_too=True):
        folder.fs.pipe({(folder / name).location: data for name, data in files.items()})


_PUSHED_AT_ONCE = 8 * 2**20  # bytes


class _NewLocalFile:
    """Written aside, flushed to the disk, renamed."""

    def __init__(self, path: Path, aside: Path) -> None:
        self._path, self._aside = path, aside
        aside.parent.mkdir(parents=True, exist_ok=True)
        self._stream = aside.open("wb")
        self._pushed = 0

    def write(self, data: Any) -> None:
        """Write, and have the disk work meanwhile, so that `commit` need not wait for all of it."""
        self._stream.write(data)
        if self._stream.tell() - self._pushed >= _PUSHED_AT_ONCE and hasattr(os, "posix_fadvise"):
            self._stream.flush()
            # Linux begins to write what it is told to forget.
            os.posix_fadvise(self._stream.fileno(), self._pushed, 0, os.POSIX_FADV_DONTNEED)
            self._pushed = self._stream.tell()

    def commit(self) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _give_name(self._aside, self._path)

    def discard(self) -> None:
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


class _NewStoreFile:
    """Uploaded in parts as it is written, and the last request names it; a small one is sent in one."""

    def __init__(self, path: StorePath) -> None:
        self._path = path
        self._start = bytearray()  # until there is enough for a part
        self._upload: Any = None

    def write(self, data: Any) -> None:
        if self._upload is None:
            self._start += data
            if len(self._start) < PART_BYTES:
                return
            data, self._start = self._start, bytearray()
            with told(self._path, missing_too=True):
                fs, location = self._path.fs, self._path.location
                self._upload = fs.open(location, "wb", block_size=PART_BYTES, autocommit=False)
        with told(self._path, missing_too=True):
            self._upload.write(data)

    def commit(self) -> None:
        if self._upload is None:
            write_whole(self._path, bytes(self._start))
            return
        with told(self._path, missing_too=True):
            self._upload.close()
            self._upload.commit()
        self._upload = None

    def discard(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            with suppress(Exception):  # the store may be gone, which is why this file is thrown away
                upload.discard()
            upload.closed = True  # or it would be uploaded when it is collected


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
    with told(folder):
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
        if (real := os.path.realpath(folder)) in seen:
            continue  # a link that leads back
        seen.add(real)
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue  # it has gone meanwhile
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
        with told(path):
            return FileState.of(path.fs.info(path.location))
    except FileNotFoundError:
        return None


def names_in(folder: Place) -> list[str]:
    """The names of the files and folders in a folder, in order; none where there is no such folder."""
    try:
        if isinstance(folder, Path):
            return sorted(path.name for path in folder.iterdir())
        with told(folder):
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
    with told(folder):
        locations = [(folder / name).location for name in names]
        return folder.fs.cat_ranges(locations, None, None, on_error="raise")


@contextmanager
def opened(path: Place) -> Iterator[str | BinaryIO]:
    """What pyarrow reads a file from: its path on this machine, or ranges of it, fetched as it asks."""
    if isinstance(path, Path):
        yield str(path)
        return
    with told(path), path.fs.open(path.location, "rb", cache_type="none") as stream:
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
            with suppress(FileNotFoundError), told(folder / name):
                folder.fs.get_file((folder / name).location, str(copy))
        yield Path(temporary)


def remove(folder: Place, names: Iterable[str]) -> None:
    """Remove files of a folder, and folders that are empty after it; what is not there does no harm."""
    for name in names:
        (folder / name).unlink(missing_ok=True)
        if isinstance(folder, Path):
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
    locations = [(folder / name).location for name in files_below(folder)]
    patterns = {
        location for location in locations if re.search(r"[*?[]", location)
    }  # fsspec would expand them
    with told(folder):
        if plain := [location for location in locations if location not in patterns]:
            folder.fs.rm(plain)
        for location in patterns:
            folder.fs.rm_file(location)
