"""Draws a mesh, as an annotation places it, with few lines: its silhouette, and the edges seen inside it.

The faces of many CAD models are wound at random, doubled or not joined. So the silhouette is traced from a
raster of all faces, and an edge is judged by where its two faces lie, never by the sign of a normal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from processing.drawing.mesh import Mesh, MeshError
from processing.drawing.raster import drawing_costs, rasterize

# Of the raster, whose long side has at most this many samples; small objects get more samples a pixel.
MAX_SAMPLES = 540
MAX_SAMPLES_A_PIXEL = 8
MAX_LAYERS = 256  # triangles that may lie over each other, on the average; those of real meshes are some ten
# How far beyond the picture the silhouette is traced, pixels: its cut side then lies outside.
MARGIN = 2

MAX_SILHOUETTE_POINTS = 500
MIN_REGION = 2.0  # square pixels; smaller regions and holes are left out
MAX_REGIONS = 100  # the largest are kept
MAX_EDGES = 300
MIN_EDGE = 2.0  # pixels
# Faces that meet at more than this show an edge; less is a curved surface cut into triangles.
CREASE = np.deg2rad(35)
PIECE = 2.0  # pixels: the step in which an edge is looked at from end to end
# How far behind the surface an edge may lie and still be seen, as a share of the mesh's diagonal.
DEPTH_TOLERANCE = 0.01


@dataclass(frozen=True)
class Drawing:
    """A mesh in lines; coordinates are pixels, x to the right and y down."""

    silhouette: tuple[NDArray[np.float64], ...]  # closed outlines (n, 2) of regions and of their holes
    edges: NDArray[np.float64]  # (n, 2, 2), visible edges inside the silhouette, the longest first
    seen: NDArray[np.int64]  # (rows, columns), the face seen in each sample of the window; -1 for none
    window: tuple[float, float, float, float]  # x1, y1, x2, y2 of these samples in the picture


@dataclass(frozen=True)
class _Window:
    """The part of the picture that is rastered."""

    origin: NDArray[np.float64]  # (2,), pixels
    size: tuple[int, int]  # width, height, samples
    samples: float  # a pixel

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x1, y1, x2, y2, pixels."""
        x, y = map(float, self.origin)
        return x, y, x + float(self.size[0] / self.samples), y + float(self.size[1] / self.samples)

    def from_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        return (points - self.origin) * self.samples


def trace(
    mesh: Mesh, pixels: NDArray[np.float64], depth: NDArray[np.float64], size: tuple[float, float]
) -> Drawing | None:
    """Trace a projected mesh.

    Args:
        mesh: all its vertices are used, as `mesh.without_unused` has it.
        pixels: (M, 2), where the mesh's vertices land, as `geometry.project` returns them.
        depth: (M,), units of the mesh, positive in front of the camera.
        size: width and height of the picture, pixels.

    Returns:
        The drawing, or None if nothing of the mesh is in the picture.

    Raises:
        MeshError: so many large triangles lie behind each other that drawing would take too long.
    """
    window = _window(pixels[depth > 0], size)
    if window is None:
        return None
    points = window.from_pixels(pixels)
    if drawing_costs(points, mesh.faces, window.size).sum() > MAX_LAYERS * MAX_SAMPLES**2:
        raise MeshError("too many large triangles to draw", "mesh_too_large")
    coverage = rasterize(points, depth, mesh.faces, window.size)
    silhouette = _silhouette(coverage.face >= 0, window)
    edges = _visible_edges(mesh, pixels, depth, window, coverage.depth)
    return Drawing(silhouette, edges, coverage.face, window.box) if silhouette or len(edges) else None


def _window(pixels: NDArray[np.float64], size: tuple[float, float]) -> _Window | None:
    if not len(pixels):
        return None
    low = np.maximum(pixels.min(axis=0), -MARGIN)
    high = np.minimum(pixels.max(axis=0), np.add(size, MARGIN))
    extent = high - low
    if (extent <= 0).any():
        return None
    samples = min(MAX_SAMPLES_A_PIXEL, MAX_SAMPLES / extent.max())
    width, height = np.ceil(extent * samples).astype(int)
    return _Window(low, (int(width), int(height)), samples)


# --------------------------------------------------------------------------------------------------------
# Silhouette
# --------------------------------------------------------------------------------------------------------


def _silhouette(mask: NDArray[np.bool_], window: _Window) -> tuple[NDArray[np.float64], ...]:
    """Outlines of the covered samples, of as few points as show the same shape."""
    # A ring of empty samples closes the outlines at the window's border.
    field = np.pad(mask, 1).astype(np.float64)
    try:
        import contourpy
    except ImportError:
        raise ImportError('outlines are drawn with contourpy: pip install -e ".[demo]" in a clone') from None
    # By default each line is an array of its own, (N, 2).
    found = cast("list[NDArray[np.float64]]", contourpy.contour_generator(z=field).lines(0.5))
    # Sample (0, 0) of the window has its centre at (0.5, 0.5), and stands at (1, 1) of the field.
    lines = [(line - 0.5) / window.samples + window.origin for line in found]
    lines = sorted((line for line in lines if _area(line) >= MIN_REGION), key=_area, reverse=True)
    tolerance = max(0.75 / window.samples, 0.25)  # pixels; the first is a stair of the raster
    while True:
        simplified = [_simplified(line, tolerance) for line in lines[:MAX_REGIONS]]
        if sum(map(len, simplified)) <= MAX_SILHOUETTE_POINTS:
            return tuple(line for line in simplified if len(line) > 3)  # a closed line of 3 has no area
        tolerance *= 1.5


def _area(line: NDArray[np.float64]) -> float:
    """The area inside a closed line (the shoelace formula)."""
    (x, y), (following_x, following_y) = line[:-1].T, line[1:].T
    return abs(float(np.sum(x * following_y - following_x * y))) / 2


def _simplified(line: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """The points (n, 2) of a line that keep it within a tolerance (Ramer 1972, Douglas and Peucker 1973)."""
    kept = np.zeros(len(line), dtype=bool)
    kept[[0, -1]] = True
    stretches = [(0, len(line) - 1)]
    while stretches:
        first, last = stretches.pop()
        offsets = line[first + 1 : last] - line[first]
        if not len(offsets):
            continue
        chord = line[last] - line[first]
        if (length := np.hypot(*chord)) > 0:
            distances = np.abs(chord[0] * offsets[:, 1] - chord[1] * offsets[:, 0]) / length
        else:  # a closed line ends where it begins
            distances = np.hypot(*offsets.T)
        farthest = int(distances.argmax())
        if distances[farthest] > tolerance:
            middle = first + 1 + farthest
            kept[middle] = True
            stretches += [(first, middle), (middle, last)]
    return line[kept]


# --------------------------------------------------------------------------------------------------------
# Edges
# --------------------------------------------------------------------------------------------------------


def _visible_edges(
    mesh: Mesh,
    pixels: NDArray[np.float64],
    depth: NDArray[np.float64],
    window: _Window,
    surface: NDArray[np.float64],
) -> NDArray[np.float64]:
    """The unhidden parts (n, 2, 2) of the edges that tell the shape, in pixels, the longest first."""
    ends = _telling_edges(mesh, pixels, depth)
    points, nearness = pixels[ends], 1 / depth[ends]  # nearness is linear in the picture, depth is not
    lengths = np.linalg.norm(points[:, 1] - points[:, 0], axis=-1)
    counts = np.clip(np.ceil(lengths / PIECE), 1, MAX_SAMPLES).astype(np.int64)
    edge = np.repeat(np.arange(len(ends)), counts)
    piece = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)

    middle = (piece + 0.5) / counts[edge]
    column, row = np.floor(window.from_pixels(_between(points, edge, middle))).astype(np.int64).T
    width, height = window.size
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    nearest = surface[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    tolerance = DEPTH_TOLERANCE * np.linalg.norm(np.ptp(mesh.vertices, axis=0))
    visible = inside & (1 / _between(nearness[..., None], edge, middle)[:, 0] <= nearest + tolerance)

    # Runs of visible pieces of one edge are one line.
    joined = visible[1:] & visible[:-1] & (edge[1:] == edge[:-1])
    first = np.flatnonzero(visible & ~np.r_[False, joined])
    last = np.flatnonzero(visible & ~np.r_[joined, False])
    start = _between(points, edge[first], piece[first] / counts[edge[first]])
    end = _between(points, edge[last], (piece[last] + 1) / counts[edge[last]])
    lines = np.stack([start, end], axis=1)
    lengths = np.linalg.norm(end - start, axis=1)
    longest = np.argsort(-lengths, kind="stable")[:MAX_EDGES]
    return lines[longest[lengths[longest] >= MIN_EDGE]]


def _between(values: NDArray[np.float64], edge: NDArray[np.int64], share: NDArray[np.float64]) -> NDArray:
    """Values (n, k) at a share of the way from the first to the second end of edges."""
    first, second = values[edge, 0], values[edge, 1]
    return first + share[:, None] * (second - first)


def _telling_edges(mesh: Mesh, pixels: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.int64]:
    """Edges (n, 2) in front of the camera where faces meet at an angle, fold over in the picture, or end."""
    faces = _joined_faces(mesh)
    faces = faces[(depth[faces] > 0).all(axis=1)]
    corners = mesh.vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(float).tiny)

    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    opposite = faces[:, [2, 0, 1]].reshape(-1)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, opposite, face = edges[order], opposite[order], order // 3
    begins = np.flatnonzero(np.r_[True, (edges[1:] != edges[:-1]).any(axis=1)][: len(edges)])
    num_faces = np.diff(np.r_[begins, len(edges)])

    pair = begins[num_faces == 2]
    cosine = np.abs(np.einsum("ij,ij->i", normals[face[pair]], normals[face[pair + 1]]))
    start, end = pixels[edges[pair]].swapaxes(0, 1)
    sides = [_cross(end - start, pixels[opposite[pair + second]] - start) for second in (0, 1)]
    folded = sides[0] * sides[1] > 0  # both faces lie on one side of the edge
    return edges[np.r_[begins[num_faces != 2], pair[(cosine < np.cos(CREASE)) | folded]]]


def _joined_faces(mesh: Mesh) -> NDArray[np.int64]:
    """Faces that share the vertices that lie at one place, each once and none without area."""
    _, representative, same = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    faces = np.sort(representative[same.reshape(-1)][mesh.faces], axis=1)
    flat = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2])
    return np.unique(faces[~flat], axis=0)


def _cross(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
