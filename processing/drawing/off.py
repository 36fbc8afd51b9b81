"""Reads meshes of the Object File Format, as text: the release's CAD models.

The format is that of Geomview's manual, section "OFF Files": a keyword, the counts of vertices, faces and
edges, then so many vertices and so many faces, all as tokens between white space. Line ends mean nothing but
in one place: what stands behind a face's last corner up to the end of the line is its colour, as is what
stands behind the coordinates of a vertex where the keyword has a C.

The counts are held against the content to the last token. A file that was cut off, or that lacks a vertex, so
that a face would be read as one, does not agree with its counts and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_COMMENT = re.compile(r"#[^\r\n]*")
_KEYWORD = re.compile(r"(ST)?(C)?(N)?OFF")
_COUNT = re.compile(r"[0-9]+")
_MOST_COLOR_TOKENS = 4  # red, green, blue, alpha; or one index of a colour map


class Off(NamedTuple):
    """What a file says."""

    vertices: NDArray[np.float64]  # (M, 3)
    faces: NDArray[
        np.int64
    ]  # (F, 3), indices of vertices, unchecked; of polygons, fans about the first corner


class CountsError(ValueError):
    """A file claims more vertices or faces than may be read."""


def read_off(data: bytes, most_vertices: int, most_faces: int) -> Off:
    """Read a file.

    Args:
        most_vertices, most_faces: more are refused before anything is made of them.

    Raises:
        CountsError: there are to be more.
        ValueError: of another kind, if it is no OFF file, or its counts and its content disagree.
    """
    text = _COMMENT.sub("", data.decode("ascii", "replace"))
    lines = [tokens for line in text.splitlines() if (tokens := line.split())]
    keyword = _KEYWORD.match(lines[0][0]) if lines else None
    if keyword is None or "BINARY" in lines[0]:
        raise ValueError("it does not begin with OFF")
    # Files are in use whose counts follow the keyword without a space.
    lines[0] = [glued, *lines[0][1:]] if (glued := lines[0][0][keyword.end() :]) else lines[0][1:]
    stream = _Lines(lines)
    vertices, faces = _counts(stream)
    if vertices > most_vertices or faces > most_faces:
        raise CountsError(f"{vertices:,} vertices and {faces:,} faces are too many")
    texture, color, normal = keyword.groups()
    values = 3 + 3 * bool(normal) + 2 * bool(texture)
    read = _colored_vertices if color else _vertices
    return Off(read(stream, vertices, values), _faces(stream, faces))


class _Lines:
    """Tokens by line, read from the front."""

    def __init__(self, lines: Sequence[list[str]]) -> None:
        self._lines = lines
        self._line = 0
        self._column = 0

    def take(self, count: int) -> list[str]:
        """The next tokens, over line ends."""
        taken: list[str] = []
        while len(taken) < count:
            if self._line == len(self._lines):
                raise ValueError("it ends too early")
            line = self._lines[self._line]
            part = line[self._column : self._column + count - len(taken)]
            taken = taken + part if taken else part
            self._column += len(part)
            if self._column == len(line):
                self._line, self._column = self._line + 1, 0
        return taken

    def rest_of_line(self) -> list[str]:
        """What still stands on the line of the last token taken."""
        if self._column == 0:
            return []
        rest = self._lines[self._line][self._column :]
        self._line, self._column = self._line + 1, 0
        return rest

    def whole_lines(self, tokens: int) -> list[list[str]]:
        """As many lines as have so many tokens in all."""
        if self._column:
            raise ValueError("a line holds more than it should")
        first = self._line
        while tokens > 0 and self._line < len(self._lines):
            tokens -= len(self._lines[self._line])
            self._line += 1
        if tokens:
            raise ValueError("the vertices are not as many as it says")
        return list(self._lines[first : self._line])

    def remaining_lines(self) -> Sequence[list[str]]:
        """All lines that are not begun, to be looked at; none where one is begun."""
        return [] if self._column else self._lines[self._line :]

    @property
    def at_end(self) -> bool:
        """Whether all is read."""
        return self._line == len(self._lines)


def _counts(stream: _Lines) -> tuple[int, int]:
    """How many vertices and faces; the count of edges may be missing, and says nothing."""
    counts = stream.take(2)
    edges = stream.rest_of_line()
    if len(edges) > 1 or not all(_COUNT.fullmatch(token) for token in [*counts, *edges]):
        raise ValueError("its counts are no counts")
    return _count(counts[0]), _count(counts[1])


def _count(token: str) -> int:
    return int(token) if len(token) < 19 else 10**18


def _vertices(stream: _Lines, count: int, values: int) -> NDArray[np.float64]:
    tokens = list(chain.from_iterable(stream.whole_lines(count * values)))
    return _numbers(tokens).reshape(count, values)[:, :3]


def _colored_vertices(stream: _Lines, count: int, values: int) -> NDArray[np.float64]:
    tokens: list[str] = []
    for _ in range(count):
        tokens += stream.take(values)
        _check_color(stream.rest_of_line())
    return _numbers(tokens).reshape(count, values)[:, :3]


def _faces(stream: _Lines, count: int) -> NDArray[np.int64]:
    lines = stream.remaining_lines()
    if len(lines) == count and all(len(line) == 4 and line[0] == "3" for line in lines):  # as most files are
        return np.array([[int(token) for token in line[1:]] for line in lines], np.int64).reshape(-1, 3)
    triangles: list[tuple[int, int, int]] = []
    for _ in range(count):
        (corners,) = stream.take(1)
        if not _COUNT.fullmatch(corners):
            raise ValueError(f"a face has {corners[:20]!r} corners")
        polygon = [int(token) for token in stream.take(_count(corners))]
        _check_color(stream.rest_of_line())
        triangles += ((polygon[0], *pair) for pair in pairwise(polygon[1:]))  # none of a point or a line
    if not stream.at_end:
        raise ValueError("more follows the faces than it says")
    return np.array(triangles, np.int64).reshape(-1, 3)


def _check_color(tokens: Sequence[str]) -> None:
    if len(tokens) > _MOST_COLOR_TOKENS:
        raise ValueError("a line holds more than it should")
    for token in tokens:
        float(token)


def _numbers(tokens: Sequence[str]) -> NDArray[np.float64]:
    return np.array(list(map(float, tokens)), dtype=np.float64)
