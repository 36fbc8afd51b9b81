"""A z-buffer rasteriser in numpy: projected triangles in, pixels out.

It draws what `geometry.project` returns, and so shares its pixels: continuous, x to the right and y down,
pixel (row i, column j) covering [j, j + 1) x [i, i + 1) with its centre at (j + 0.5, i + 0.5). A pixel
belongs to the nearest triangle that covers its centre. Neighbouring triangles share no pixel and leave no
gap.

Sizes are (width, height), as in Pillow. There are no loops over faces: an array holds the runs of pixels, or
the covered pixels, of many faces at once, and of no more than memory is meant for.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Light that reaches a face turned away from the lamp, as a share of full light.
AMBIENT = 0.35
# Where the lamp stands in camera space: above the camera's left shoulder.
LIGHT = (-0.45, 0.8, 0.55)

# Pixels of the faces that are drawn at once; each takes some 150 bytes on the way.
_BATCH = 2**20
_ROW_COST = 4  # what a row of a face takes besides its pixels, as pixels


class Coverage(NamedTuple):
    """Which triangle is seen in each pixel, and how far away."""

    face: NDArray[np.int64]  # (height, width), index into the faces; -1 where there is none
    depth: NDArray[np.float64]  # (height, width), unit of the vertices' depth; inf where there is no face


class _Edge(NamedTuple):
    """One edge for each of n runs of pixels, from its upper to its lower end."""

    upper: NDArray[np.float64]  # (n, 3): x, y, 1 / depth
    lower: NDArray[np.float64]  # (n, 3)

    def at(self, y: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return (n, 2): x and 1 / depth where the edge crosses the height y (n,)."""
        share = (y - self.upper[:, 1]) / (self.lower[:, 1] - self.upper[:, 1])
        upper, lower = self.upper[:, ::2], self.lower[:, ::2]
        return upper + share[:, None] * (lower - upper)


def rasterize(points: ArrayLike, depth: ArrayLike, faces: ArrayLike, size: tuple[int, int]) -> Coverage:
    """Find the triangle seen in each pixel.

    Args:
        points: (M, 2), where the vertices land, in pixels; they may leave the picture.
        depth: (M,), distance along the view axis, positive in front of the camera. A face with a vertex at or
            behind the camera is not drawn.
        faces: (F, 3), indices into the points, wound either way.
        size: width and height of the picture, pixels.

    Returns:
        The face and its perspective-correct depth at each pixel's centre.
    """
    width, height = size
    faces = np.asarray(faces)
    seen = np.full(height * width, -1, dtype=np.int64)
    nearness = np.zeros(height * width)  # 1 / depth is linear in the picture, depth itself is not
    ends = np.cumsum(drawing_costs(points, faces, size))
    cuts: list[int] = (
        np.unique(np.searchsorted(ends, np.arange(_BATCH, ends[-1], _BATCH))).tolist() if len(faces) else []
    )
    for start, end in itertools.pairwise([0, *cuts, len(faces)]):
        face, row, first, count, left, right = _runs_of_pixels(points, depth, faces[start:end], size)
        drawn = count > 0
        face, row, first, count, left, right = (a[drawn] for a in (face, row, first, count, left, right))
        column = _concatenated_ranges(first, count)[1]
        (x, at_left), (length, rise) = left.T, (right - left).T
        value = column + 0.5  # becomes 1 / depth there, in place: half the time goes into new arrays
        value -= np.repeat(x, count)
        value /= np.repeat(length, count)
        value *= np.repeat(rise, count)
        value += np.repeat(at_left, count)
        pixel = np.repeat(row * width, count) + column
        np.maximum.at(nearness, pixel, value)
        nearest = value == nearness[pixel]
        seen[pixel[nearest]] = start + np.repeat(face, count)[nearest]
    with np.errstate(divide="ignore"):
        return Coverage(seen.reshape(height, width), (1 / nearness).reshape(height, width))


def drawing_costs(points: ArrayLike, faces: ArrayLike, size: tuple[int, int]) -> NDArray[np.float64]:
    """How much there is to draw of each face, whether or not another one covers it.

    Args:
        points: (M, 2), as in `rasterize`.
        faces: (F, 3), as in `rasterize`.
        size: width and height of the picture, pixels.

    Returns:
        (F,), about its pixels inside the picture and some for each of their rows; 1 or more.
    """
    corners = np.nan_to_num(np.asarray(points, dtype=np.float64))[np.asarray(faces)]
    inside = np.clip(corners, 0, size)
    columns, rows = np.moveaxis(inside.max(axis=1) - inside.min(axis=1), -1, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # far outside; the box's area is what counts then
        one, other = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        area = np.abs(one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) / 2
    return 1 + _ROW_COST * rows + np.fmin(area, columns * rows)


def shade(
    vertices: ArrayLike, faces: ArrayLike, face_colors: ArrayLike, eye: ArrayLike, light: ArrayLike
) -> NDArray[np.float64]:
    """Shade every face evenly by its angle to a lamp far away.

    Both sides of a face are lit alike, since the faces of many CAD models are wound at random.

    Args:
        vertices: (M, 3), in any space that eye and light share.
        faces: (F, 3), indices into the vertices.
        face_colors: (F, 3), RGB in [0, 1].
        eye: (3,), where the camera stands.
        light: (3,), direction towards the lamp, of any length.

    Returns:
        (F, 3), RGB in [0, 1].
    """
    corners = np.asarray(vertices, dtype=np.float64)[np.asarray(faces)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    # A face without area has no normal, and is never seen either.
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)
    towards_eye = np.asarray(eye, dtype=np.float64) - corners.mean(axis=1)
    normals[np.einsum("fx,fx->f", normals, towards_eye) < 0] *= -1
    direction = np.asarray(light, dtype=np.float64)
    # From -1 for a face turned away to 1 for one that faces the lamp; clipping at 0 would flatten dark sides.
    cosine = normals @ (direction / np.linalg.norm(direction))
    brightness = AMBIENT + (1 - AMBIENT) * (1 + cosine) / 2
    return np.clip(np.asarray(face_colors, dtype=np.float64) * brightness[:, None], 0, 1)


def render(
    points: ArrayLike,
    depth: ArrayLike,
    faces: ArrayLike,
    face_colors: ArrayLike,
    size: tuple[int, int],
    supersampling: int = 2,
) -> NDArray[np.uint8]:
    """Draw coloured triangles on a transparent picture.

    Args:
        points: (M, 2), as in `rasterize`.
        depth: (M,), as in `rasterize`.
        faces: (F, 3), as in `rasterize`.
        face_colors: (F, 3), RGB in [0, 1], drawn as given; `shade` adds light.
        size: width and height of the picture, pixels.
        supersampling: samples along each side of a pixel, at least 1; more of them give smoother edges.

    Returns:
        (height, width, 4), RGBA with straight alpha; alpha is the covered share of the pixel, 0 to 255.
    """
    width, height = size
    points = np.asarray(points, dtype=np.float64) * supersampling
    seen = rasterize(points, depth, faces, (width * supersampling, height * supersampling)).face
    # The last row stands for "no face", index -1, so that colours are summed over covered samples alone.
    samples = np.zeros((len(np.asarray(faces)) + 1, 4), dtype=np.float32)
    samples[:-1, :3] = face_colors
    samples[:-1, 3] = 1
    offsets = np.ndindex(supersampling, supersampling)
    sums = np.zeros((height, width, 4), dtype=np.float32)
    for i, j in offsets:
        sums += samples.take(seen[i::supersampling, j::supersampling], axis=0)
    sums[..., :3] /= np.maximum(sums[..., 3:], 1)
    sums[..., 3] /= supersampling**2
    return np.rint(sums * 255).astype(np.uint8)


def _runs_of_pixels(
    points: ArrayLike, depth: ArrayLike, faces: NDArray[np.integer], size: tuple[int, int]
) -> tuple[NDArray, ...]:
    """Cut every triangle into rows of pixels.

    Returns, for each of n runs: its face, its row, its first column, its number of pixels (may be 0), and
    (n, 2) x and 1 / depth at its left and right end.
    """
    width, height = size
    depth = np.asarray(depth, dtype=np.float64)
    drawn = np.flatnonzero((depth[faces] > 0).all(axis=1))
    with np.errstate(divide="ignore"):
        vertices = np.column_stack([np.asarray(points, dtype=np.float64), 1 / depth])
    corners = vertices[faces[drawn]]
    # Every edge runs downwards, whichever triangle it is seen from: neighbours compute the very same border.
    downwards = np.argsort(corners[..., 1], axis=1, kind="stable")
    top, middle, bottom = np.moveaxis(np.take_along_axis(corners, downwards[..., None], axis=1), 1, 0)

    first_row, end_row = (_first_centre(corner[:, 1], height) for corner in (top, bottom))
    rows = end_row - first_row
    face, row = _concatenated_ranges(first_row, rows)
    top, middle, bottom = (np.repeat(corner, rows, axis=0) for corner in (top, middle, bottom))
    y = row + 0.5
    # Above the middle corner the short side is top-middle, below it middle-bottom: an edge that y crosses.
    above = (y < middle[:, 1])[:, None]
    long_side = _Edge(top, bottom).at(y)
    short_side = _Edge(np.where(above, top, middle), np.where(above, middle, bottom)).at(y)
    swapped = (long_side[:, 0] > short_side[:, 0])[:, None]
    left, right = np.where(swapped, short_side, long_side), np.where(swapped, long_side, short_side)
    first, end = (_first_centre(side[:, 0], width) for side in (left, right))
    return drawn[face], row, first, end - first, left, right


def _first_centre(position: NDArray[np.float64], length: int) -> NDArray[np.int64]:
    """Return the first pixel whose centre is at or past the position, within [0, length]."""
    return np.clip(np.ceil(position - 0.5), 0, length).astype(np.int64)


def _concatenated_ranges(
    start: NDArray[np.int64], count: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Concatenate range(start, start + count) of all entries; return each member's entry, and the member."""
    entry = np.repeat(np.arange(len(count)), count)
    behind = np.cumsum(count) - count
    return entry, np.arange(len(entry)) - behind[entry] + start[entry]
