"""The file of corrections as a journal: each save is one line, on the disk before anybody is told so.

A *reading* is what one person says of one object: the release's values with that person's own changes, as far
as all their lines tell. Any number of servers and people may write one file: a line is written whole, under a
lock, at its end.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ImageNet3D import Correction, CorrectionError, parse_correction


class ObjectKey(NamedTuple):
    """An object of the release."""

    image_id: str
    object_index: int


@dataclass(frozen=True)
class Reading:
    """What one person says of one object.

    Attributes:
        who: a name, or None.
        when: of the last of their lines, UTC.
        changes: field -> value, as corrections name them.
        left_out: whether they say that the object is none.
        why: of the last line.
    """

    who: str | None
    when: datetime
    changes: Mapping[str, Any] = field(default_factory=dict)
    left_out: bool = False
    why: str = ""

    def after(self, line: Correction) -> Reading:
        """This reading, with what the same person said later."""
        changes = {**self.changes, **line.new}
        left_out = {"leave_out": True, "take_back": False}.get(line.operation, self.left_out)
        return replace(self, when=line.time, changes=changes, left_out=left_out, why=line.why)


class Readings:
    """A file of corrections, followed as it grows, whoever writes it.

    Args:
        path: of the file; made by the first save.

    Raises:
        CorrectionError: if a line of it is no correction; all such lines are named.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.RLock()  # of this object; the file has its own
        self._forget()
        self.refresh()

    def _forget(self) -> None:
        self._state: tuple[int, ...] = ()  # of the file, when it was last read
        self._offset, self._digest = 0, _digest(b"")  # what was read of it
        self.lines: list[Correction] = []  # by time
        self.by_object: dict[ObjectKey, dict[str | None, Reading]] = {}
        self.chosen: dict[ObjectKey, datetime] = {}  # object -> when its readings were held side by side last
        self.left_out: set[ObjectKey] = set()  # by the last line that says so or takes it back
        self.added: dict[ObjectKey, Correction] = {}  # object that is none of the release's -> what adds it

    def refresh(self) -> None:
        """Take in the lines that were written since, by whomever; all anew if the file was edited.

        Raises:
            CorrectionError: as of the class, until the file is mended.
        """
        with self._lock:
            self._read_on()

    def _read_on(self) -> None:
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                state = status.st_ino, status.st_size, status.st_mtime_ns
                if state == self._state:
                    return
                data = file.read()
        except FileNotFoundError:
            self._forget()
            return
        whole = data[: data.rfind(b"\n") + 1]
        if _is_json(data[len(whole) :]):  # an editor may have left out the last line end
            whole = data
        known = self._offset if _digest(data[: self._offset]) == self._digest else 0
        lines, problems = [], []
        for number, line in enumerate(whole[known:].split(b"\n"), 1 + whole.count(b"\n", 0, known)):
            try:
                if line.strip():
                    lines.append(parse_correction(line))
            except ValueError as error:
                problems.append(f"{self.path}, line {number}: {error}")
        if problems:
            raise CorrectionError("\n".join([f"{len(problems)} lines are no corrections:", *problems]))
        if not known:
            self._forget()
        self._take_in(lines)
        self._state, self._offset, self._digest = state, len(whole), _digest(whole)

    def _take_in(self, lines: list[Correction]) -> None:
        """In the order in which a build applies them: by time, whatever their order in the file."""
        lines = sorted(lines, key=lambda line: line.order)
        if lines and self.lines and lines[0].order < self.lines[-1].order:
            lines = sorted([*self.lines, *lines], key=lambda line: line.order)
            self._forget()
        for line in lines:
            self.lines.append(line)
            key = ObjectKey(line.image_id, line.object_index)
            if line.operation == "leave_out":
                self.left_out.add(key)
            elif line.operation == "take_back":
                self.left_out.discard(key)
            if line.reviewed:
                self.chosen[key] = line.time
            elif line.operation == "add":
                self.added[key] = line
            else:
                readings = self.by_object.setdefault(key, {})
                readings[line.who] = readings.get(line.who, Reading(line.who, line.time)).after(line)

    def touched(self, key: ObjectKey) -> set[str]:
        """The fields that anybody ever changed of an object."""
        found = self.by_object.get(key, {}).values()
        return {name for reading in found for name in reading.changes}

    def append(self, *said: Mapping[str, Any], num_objects: int = 0) -> Correction:
        """Write lines, all or none; they are on the disk when this returns the last.

        Args:
            said: values of a `Correction`, without `when`; of `add` without `object_index` too, which becomes
                the next that is free, whoever else adds to the picture at the same time.
            num_objects: of `add`, how many objects the picture has without those of this file.

        Raises:
            ValueError: if they make none; nothing is written.
            OSError: if it cannot be written.
        """
        for values in said:  # before the file is there
            parse_correction(_line({"object_index": 0, **values}, datetime.now(UTC)))
        is_new = not self.path.exists()
        with self._lock, self.path.open("ab+") as file, _locked(file.fileno()):
            self.refresh()
            now, step = datetime.now(UTC), timedelta(microseconds=1)
            if self.lines:  # the clock of who wrote it may be ahead
                now = max(now, self.lines[-1].time + step)
            made: list[Correction] = []
            for values in said:
                if values["operation"] == "add":
                    values = {**values, "object_index": self._next_index(values["image_id"], num_objects)}
                made.append(parse_correction(_line(values, now + len(made) * step)))
            text = "".join(f"{correction.to_json()}\n" for correction in made)
            written = self._mended_end(file.fileno()) + text.encode()
            if os.write(file.fileno(), written) < len(written):
                os.ftruncate(file.fileno(), self._offset)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(file.fileno())
            self.refresh()
        if is_new:
            folder = os.open(self.path.resolve().parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the file's name, too
            finally:
                os.close(folder)
        return made[-1]

    def _next_index(self, image_id: str, num_objects: int) -> int:
        added = [key.object_index + 1 for key in self.added if key.image_id == image_id]
        return max([num_objects, *added])

    def _mended_end(self, descriptor: int) -> bytes:
        """A line end if one lacks; what a power cut left of a line, which nobody was told is saved, goes."""
        size = os.fstat(descriptor).st_size
        if size == self._offset:
            return b"" if not size or os.pread(descriptor, 1, size - 1) == b"\n" else b"\n"
        os.ftruncate(descriptor, self._offset)
        return b""


def _line(values: Mapping[str, Any], when: datetime) -> str:
    said = {key: value for key, value in values.items() if value is not None}
    return json.dumps({**said, "when": when.isoformat(timespec="microseconds").replace("+00:00", "Z")})


def _is_json(line: bytes) -> bool:
    """What was cut off is none."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data).digest()


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Hold the file for one line; the lock goes with the process, however it ends."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
