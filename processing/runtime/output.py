"""Single files that a user has a command write: a page, figures as JSON, a plot.

One rule for all commands: **an output never replaces what is not an earlier output of the same command.**
Every command writes a mark of its own into its files and knows them by it. A pipe, a terminal or another
device is written through and stays what it is; a link stays too, and the file behind it is the output.

Commands that write folders keep to the same rule with the lists of what they wrote.
"""

import os
import re
import stat
from pathlib import Path

from processing.runtime.paths import PlaceError
from processing.runtime.store import write_whole

_LOOKED_AT = 2**16  # bytes at either end of a file, in which its mark has to be
_OWN_DESCRIPTOR = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")
_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}


class OutputError(PlaceError):
    """An output would replace something else, or cannot be a file; the message says what to do."""


def check_output(path: str | Path, mark: bytes) -> None:
    """Refuse a path before the work begins, where its result could not be written.

    Args:
        path: new, an empty file, an earlier output of the command, or a pipe or device; links are followed.
        mark: what the command writes near the beginning or the end of all its files of this kind, and
            nobody else does.

    Raises:
        OutputError: it is a folder, a disk or a socket, or a file of someone else's.
        OSError: it cannot be looked at.
    """
    if _descriptor(path) is not None:
        return
    try:
        found = Path(path).stat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise OutputError(f"{path} is a folder; name the file to write")
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISCHR(found.st_mode):
        return
    if not stat.S_ISREG(found.st_mode):
        raise OutputError(f"{path} is no file; name another to write")
    if found.st_size and not _is_marked(Path(path), mark):
        raise OutputError(
            f"{path} exists and is no earlier output of this command; name another file, or remove it first"
        )


def write_output(path: str | Path, data: bytes, mark: bytes) -> bool:
    """Write a file whole, or write through to a pipe or device.

    Args:
        path, mark: as of `check_output`, which is asked again.
        data: holds the mark.

    Returns:
        Whether it was written through, and there is no file.

    Raises:
        OutputError, OSError: as of `check_output`; also where it cannot be written.
    """
    if mark not in data[:_LOOKED_AT] and mark not in data[-_LOOKED_AT:]:
        raise AssertionError(f"an output without its mark {mark!r} would not be known again")
    check_output(path, mark)
    if (descriptor := _descriptor(path)) is not None:
        with os.fdopen(os.dup(descriptor), "wb") as stream:  # where a shell's >> has come to
            stream.write(data)
        return True
    file = Path(path).resolve()
    if file.exists() and not file.is_file():
        with file.open("wb", buffering=0) as stream:
            stream.write(data)
        return True
    write_whole(file, data)
    return False


def _descriptor(path: str | Path) -> int | None:
    """Which of this process's own open files a path stands for; None for all other paths."""
    text = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow the link to what is open there
    match = _OWN_DESCRIPTOR.fullmatch(text)
    return int(match[1]) if match else _STANDARD.get(text)


def _is_marked(path: Path, mark: bytes) -> bool:
    with path.open("rb") as stream:
        start = stream.read(_LOOKED_AT)
        stream.seek(-min(_LOOKED_AT, path.stat().st_size), os.SEEK_END)
        return mark in start or mark in stream.read(_LOOKED_AT)
