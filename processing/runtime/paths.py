"""Where a dataset stands: a folder of this machine, or one of any file system that fsspec knows.

A place of this machine is a `pathlib.Path`. Any other is a `StorePath`, named by an fsspec URL such as
s3://bucket/ImageNet3D; it has the few methods of Path whose promises all of them can keep.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import fsspec

from ImageNet3D import is_unicode, shown_error

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}  # that have a protocol's package
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(?:://|::)")


class PlaceError(ValueError):
    """A place cannot be used at all; the message says what to do."""

    exit_code = 2


class StoreError(OSError):
    """A store refused or failed, after every repetition; the message names the file and the remedy."""


@dataclass(frozen=True)
class StorePath:
    """A file or folder that is not of this machine. It can be sent to other processes and machines.

    Attributes:
        url: any fsspec URL, without a slash at its end.
    """

    url: str

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The file system: one for each process and thread, which is not to remember what it listed."""
        fs = fsspec.core.url_to_fs(self.url)[0]
        fs.invalidate_cache()
        return fs

    @property
    def location(self) -> str:
        """The path inside the file system."""
        return fsspec.get_filesystem_class(self.url.partition("://")[0])._strip_protocol(self.url)

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
        with named_errors(self), suppress(FileNotFoundError):
            return self.fs.info(self.location)["type"] == "file"
        return False

    def read_bytes(self) -> bytes:
        """The content of a file."""
        with named_errors(self):
            return self.fs.cat_file(self.location)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content of a file of text."""
        return self.read_bytes().decode(encoding)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file."""
        with named_errors(self):
            try:
                self.fs.rm_file(self.location)
            except FileNotFoundError:
                if not missing_ok:
                    raise


Place = Path | StorePath


def has_names_only(path: StorePath) -> bool:
    """Whether folders of that store are no more than names, which need not be made."""
    return path.url.partition("://")[0] in _EXTRAS


def place(where: str | os.PathLike[str] | StorePath) -> Place:
    """The place that a path or fsspec URL names; nothing is looked up.

    Raises:
        PlaceError: for a name that cannot be used, a file system that is not installed, or the Hub's.
    """
    if isinstance(where, StorePath):
        return where
    text = os.fspath(where)
    if "\0" in text or not is_unicode(text):
        raise PlaceError(f"{text!a}: is no UTF-8, which not all libraries can open; name another folder")
    if (match := _URL.match(text)) is None:
        path = Path(text)
        with suppress(RuntimeError):  # nobody of that name: then it is the name of a folder
            path = path.expanduser()
        return path.absolute()  # the workers of a cluster are in folders of their own
    protocol, rest = match[1], text[match.end() :]
    if protocol in ("file", "local"):
        return Path(fsspec.core.url_to_fs(text)[1])
    if protocol == "hf":
        raise PlaceError(
            f"{text}: every file written would be a commit there; build, verify and crop a folder of this "
            "machine, and `publish` a built one"
        )
    if "::" in text:
        raise PlaceError(f"{text}: name the folder itself, not one inside of something else")
    if not rest.strip("/"):
        raise PlaceError(f"{text}: name a folder, such as {protocol}://bucket/ImageNet3D")
    if re.search(r"[?#]|(^|/)\.{1,2}(/|$)|//", rest.strip("/")):
        raise PlaceError(f"{text}: a folder on a store has no ?, #, //, . or .. in its name; name it plainly")
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        extra = f'pip install -e ".[{_EXTRAS[protocol]}]" in a clone' if protocol in _EXTRAS else error
        raise PlaceError(f"{text}: needs a package that is not installed: {extra}") from error
    except ValueError as error:
        raise PlaceError(f"{text}: {error}; name a folder, or the URL of one") from error
    return StorePath(text.rstrip("/"))


@contextmanager
def named_errors(path: Place, missing_too: bool = False) -> Iterator[None]:
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
        if isinstance(error, NotImplementedError):
            what, remedy = "this cannot be done there", "name a folder that can be written and listed"
        elif isinstance(error, PermissionError | FileNotFoundError):
            what, remedy = shown_error(error), "check the address, the credentials and what they allow"
        else:
            what, remedy = shown_error(error), "also when asked again; run the same command again to go on"
        raise StoreError(f"{path}: {what}; {remedy}") from error
