"""Meshes drawn by code for the synthetic tree: eight shapes, each in proportions of its own.

x is to the right, -y the front and z up, as in the release's CAD models. Everything is put together of boxes
and of what a lathe makes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from processing.geometry import TWO_PI

BODY, TRIM, DARK, PALE = range(4)  # the tones of a mesh, in the order of the colours a picture gives them

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """A piece of a mesh, of one tone."""

    vertices: NDArray[np.float64]  # (M, 3)
    faces: NDArray[np.int64]  # (F, 3)
    tone: int


Parts = list[Part]


@dataclass(frozen=True)
class Model:
    """A mesh, with a tone for each face that a picture turns into a colour."""

    vertices: NDArray[np.float64]  # (M, 3), object space, exactly as the .off file spells them
    faces: NDArray[np.int64]  # (F, 3)
    tones: NDArray[np.int64]  # (F,), BODY, TRIM, DARK or PALE


def draw_model(category: str, rng: np.random.Generator) -> Model:
    """Draw a category's shape in proportions of its own, centred, with a bounding box of diagonal 1."""
    parts = _shape_of(category)()
    vertices = np.concatenate([part.vertices for part in parts]) * rng.uniform(0.85, 1.15, 3)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    vertices = (vertices - (low + high) / 2) / np.linalg.norm(high - low)
    starts = np.cumsum([0, *(len(part.vertices) for part in parts[:-1])])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)])
    tones = np.repeat([part.tone for part in parts], [len(part.faces) for part in parts])
    # As many digits as the file holds; + 0.0 turns -0.0 into 0.0.
    return Model(np.round(vertices, 5) + 0.0, faces, tones)


def off_bytes(model: Model) -> bytes:
    """Spell a model as an OFF file."""
    lines = ["OFF", f"{len(model.vertices)} {len(model.faces)} 0"]
    lines += [f"{x:.5f} {y:.5f} {z:.5f}" for x, y, z in model.vertices]
    lines += [f"3 {a} {b} {c}" for a, b, c in model.faces]
    return ("\n".join(lines) + "\n").encode()


def _shape_of(category: str) -> Callable[[], Parts]:
    """Return what draws a category. Those without a shape of their own borrow one, always the same."""
    for shape, categories in SHAPES.items():
        if category in categories.split():
            return shape
    return list(SHAPES)[zlib.crc32(category.encode()) % len(SHAPES)]


# --------------------------------------------------------------------------------------------------------
# Parts
# --------------------------------------------------------------------------------------------------------

# Corner i of a box lies at the low or high end of x, y, z by the bits 4, 2, 1 of i; faces are wound outwards.
_CORNERS = np.array([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)])
_SIDES = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
_BOX = np.array([(side[0], *side[i : i + 2]) for side in _SIDES for i in (1, 2)])


def _box(tone: int, size: Point, at: Point) -> Parts:
    """A box of a size, its centre at a point."""
    return [Part((_CORNERS - 0.5) * size + at, _BOX, tone)]


def _frustum(tone: int, lower: Point, upper: Point, bottom: float, top: float) -> Parts:
    """A box between two heights whose lower and upper end, (width, depth, y of the centre), differ."""
    x, y, high = _CORNERS.T - [[0.5], [0.5], [0]]
    width, depth, middle = np.where(high[:, None] > 0, upper, lower).T
    return [
        Part(np.column_stack([x * width, y * depth + middle, bottom + high * (top - bottom)]), _BOX, tone)
    ]


def _turned(
    tone: int, profile: Sequence[tuple[float, float]], at: Point = (0, 0, 0), sections: int = 28
) -> Parts:
    """What a lathe makes of a profile of (radius, z), upwards on the outside and down again if hollow."""
    radii, heights = np.array(profile, dtype=np.float64).T
    angles = np.arange(sections) * TWO_PI / sections
    ring = np.column_stack([np.cos(angles), np.sin(angles), np.ones(sections)])
    vertices = np.concatenate([ring * (r, r, z) for r, z in zip(radii, heights, strict=True)])
    here = np.arange(sections)
    there = np.roll(here, -1)
    triangles = []
    for row, (r, above) in enumerate(pairwise(radii)):
        low, high = row * sections, (row + 1) * sections
        # On the axis a ring is one point, and half of the triangles have no area.
        triangles += [np.column_stack([low + here, low + there, high + there])] if r > 0 else []
        triangles += [np.column_stack([low + here, high + there, high + here])] if above > 0 else []
    used, faces = np.unique(np.concatenate(triangles), return_inverse=True)
    return [Part(vertices[used] + at, faces.reshape(-1, 3), tone)]


def _rod(tone: int, start: ArrayLike, end: ArrayLike, radius: float) -> Parts:
    """A round rod between two points."""
    start, along = np.asarray(start, dtype=np.float64), np.subtract(end, start)
    length = float(np.linalg.norm(along))
    [rod] = _turned(tone, [(0, 0), (radius, 0), (radius, length), (0, length)], sections=16)
    up = along / length
    side = np.cross((0, 1, 0) if abs(up[1]) < 0.9 else (1, 0, 0), up)
    side /= np.linalg.norm(side)
    return [_moved(rod, np.array([side, np.cross(up, side), up]), start)]


def _tube(tone: int, path: ArrayLike, radius: float) -> Parts:
    """A bent rod through the points (n, 3)."""
    points = np.asarray(path, dtype=np.float64)
    rods = [_rod(tone, start, end, radius) for start, end in pairwise(points)]
    bends = [_ball(tone, (radius, radius, radius), tuple(point)) for point in points[1:-1]]
    return [*chain.from_iterable(rods), *chain.from_iterable(bends)]


def _ball(tone: int, radii: Point, at: Point) -> Parts:
    """An ellipsoid about a point."""
    angles = np.linspace(-np.pi / 2, np.pi / 2, 9)
    profile = np.column_stack([np.cos(angles) * (np.abs(angles) < 1.57), np.sin(angles)])
    [ball] = _turned(tone, [tuple(point) for point in profile], sections=16)
    return [_moved(ball, np.diag(radii), at)]


def _moved(part: Part, matrix: NDArray[np.float64], by: ArrayLike) -> Part:
    """A part whose points (row vectors) went through a matrix (3, 3) and were moved."""
    return Part(part.vertices @ matrix + np.asarray(by, np.float64), part.faces, part.tone)


def _arc(center: Point, radius: float, start: float, end: float, count: int) -> NDArray[np.float64]:
    """Return (count, 3) points of an arc in the x-z plane, between angles in radians from x to z."""
    angles = np.linspace(start, end, count)
    return np.array(center) + radius * np.column_stack([np.cos(angles), angles * 0, np.sin(angles)])


def _legs(tone: int, x: float, y: float, height: float, radius: float) -> Parts:
    """Four legs at (±x, ±y), standing on the ground."""
    corners = [(-x, -y), (-x, y), (x, -y), (x, y)]
    return [part for a, b in corners for part in _rod(tone, (a, b, 0), (a, b, height), radius)]


def _wheels(y: Sequence[float], x: float, radius: float) -> Parts:
    """A pair of wheels at each y, with hubs."""
    axles = [(side * x, at) for at in y for side in (-1, 1)]
    tyres = [_rod(DARK, (a - 0.1, b, radius), (a + 0.1, b, radius), radius) for a, b in axles]
    hubs = [_rod(PALE, (a - 0.12, b, radius), (a + 0.12, b, radius), radius * 0.5) for a, b in axles]
    return [*chain.from_iterable(tyres), *chain.from_iterable(hubs)]


# --------------------------------------------------------------------------------------------------------
# Shapes
# --------------------------------------------------------------------------------------------------------


def _car() -> Parts:
    return [
        *_frustum(BODY, (0.95, 2.3, 0), (0.9, 2.2, 0), 0.2, 0.6),
        *_frustum(DARK, (0.88, 1.35, 0.2), (0.7, 0.85, 0.25), 0.6, 0.93),
        *_frustum(BODY, (0.72, 0.87, 0.25), (0.66, 0.8, 0.25), 0.93, 0.98),
        *_box(TRIM, (0.97, 0.1, 0.12), (0, -1.17, 0.3)),
        *_box(PALE, (0.2, 0.06, 0.12), (-0.3, -1.14, 0.47)),
        *_box(PALE, (0.2, 0.06, 0.12), (0.3, -1.14, 0.47)),
        *_box(TRIM, (0.7, 0.06, 0.1), (0, 1.14, 0.47)),
        *_wheels((-0.72, 0.72), 0.44, 0.24),
    ]


def _aeroplane() -> Parts:
    engines = [_rod(DARK, (x, -0.42, -0.14), (x, 0.0, -0.14), 0.09) for x in (-0.85, -0.45, 0.45, 0.85)]
    return [
        *_ball(BODY, (0.2, 1.5, 0.2), (0, 0, 0)),
        *_ball(DARK, (0.13, 0.22, 0.1), (0, -1.12, 0.1)),
        *_frustum(TRIM, (0.55, 0.6, -0.05), (0.55, 0.5, -0.05), -0.12, -0.02),
        *_wing(TRIM, root=(0.5, 0.0, -0.05), tip=(0.22, 1.55, 0.35), thickness=0.05),
        *_wing(TRIM, root=(0.3, 0.0, 1.2), tip=(0.16, 0.55, 1.4), thickness=0.04),
        *_frustum(BODY, (0.05, 0.5, 1.15), (0.04, 0.25, 1.4), 0.1, 0.65),
        *chain.from_iterable(engines),
    ]


def _wing(tone: int, root: Point, tip: Point, thickness: float) -> Parts:
    """A pair of wings in the x-y plane: chord, distance from the middle, and y of each end."""
    (root_chord, _, root_y), (tip_chord, span, tip_y) = root, tip
    out, along, up = (_CORNERS - [0, 0.5, 0.5]).T  # out: 0 at the root, 1 at the tip
    y = root_y + out * (tip_y - root_y) + along * (root_chord + out * (tip_chord - root_chord))
    return [Part(np.column_stack([side * out * span, y, up * thickness]), _BOX, tone) for side in (-1, 1)]


def _chair() -> Parts:
    slats = [_box(TRIM, (0.78, 0.05, 0.13), (0, 0.42, z)) for z in (1.05, 1.3, 1.55)]
    return [
        *_box(BODY, (0.95, 0.95, 0.1), (0, 0, 0.75)),
        *_legs(DARK, 0.41, 0.41, 0.72, 0.05),
        *_rod(DARK, (-0.41, 0.42, 0.75), (-0.41, 0.42, 1.72), 0.05),
        *_rod(DARK, (0.41, 0.42, 0.75), (0.41, 0.42, 1.72), 0.05),
        *chain.from_iterable(slats),
        *_rod(DARK, (-0.41, -0.41, 0.3), (-0.41, 0.41, 0.3), 0.03),
        *_rod(DARK, (0.41, -0.41, 0.3), (0.41, 0.41, 0.3), 0.03),
    ]


def _bed() -> Parts:
    return [
        *_box(DARK, (1.4, 2.1, 0.18), (0, 0, 0.3)),
        *_box(PALE, (1.32, 1.98, 0.2), (0, 0, 0.48)),
        *_box(BODY, (1.38, 1.3, 0.22), (0, -0.36, 0.5)),
        *_box(TRIM, (1.5, 0.1, 1.15), (0, 1.07, 0.58)),
        *_box(TRIM, (1.5, 0.1, 0.65), (0, -1.07, 0.33)),
        *_ball(PALE, (0.3, 0.2, 0.1), (-0.33, 0.7, 0.63)),
        *_ball(PALE, (0.3, 0.2, 0.1), (0.33, 0.7, 0.63)),
    ]


def _cup() -> Parts:
    wall = [(0, 0), (0.36, 0), (0.42, 0.08), (0.45, 0.95), (0.4, 0.95), (0.36, 0.12), (0, 0.1)]
    return [
        *_turned(BODY, wall),
        *_turned(TRIM, [(0, 0.78), (0.39, 0.78), (0, 0.781)]),
        *_turned(PALE, [(0.443, 0.3), (0.455, 0.3), (0.46, 0.5), (0.448, 0.5)]),
        *_tube(BODY, _arc((0.42, 0, 0.5), 0.27, -1.45, 1.45, 8), 0.06),
    ]


def _teapot() -> Parts:
    body = [(0, 0), (0.35, 0), (0.55, 0.2), (0.6, 0.42), (0.5, 0.68), (0.3, 0.8), (0, 0.8)]
    return [
        *_turned(BODY, body),
        *_turned(TRIM, [(0, 0.78), (0.3, 0.8), (0.2, 0.9), (0, 0.94)]),
        *_ball(DARK, (0.08, 0.08, 0.08), (0, 0, 0.98)),
        *_tube(BODY, [(0.5, 0, 0.3), (0.75, 0, 0.42), (0.9, 0, 0.75), (1.02, 0, 0.82)], 0.08),
        *_tube(DARK, _arc((-0.55, 0, 0.45), 0.3, 1.3, 4.9, 9), 0.055),
    ]


def _lamp() -> Parts:
    [shade] = _turned(BODY, [(0, 0), (0.34, 0), (0, 0.5)], sections=24)
    lean = np.array([[1, 0, 0], [0, np.cos(0.5), np.sin(0.5)], [0, -np.sin(0.5), np.cos(0.5)]])  # about x
    return [
        *_turned(DARK, [(0, 0), (0.42, 0), (0.4, 0.08), (0.1, 0.12), (0, 0.12)]),
        *_tube(TRIM, [(0, 0, 0.1), (-0.25, 0.3, 0.85), (0.12, -0.3, 1.45)], 0.05),
        _moved(shade, lean, (0.12, -0.55, 1.05)),
        *_ball(PALE, (0.16, 0.16, 0.16), (0.12, -0.57, 1.03)),
    ]


def _cone() -> Parts:
    def ring(tone: int, low: float, high: float) -> Parts:
        outer = [(0.42 - 0.34 * z, 0.08 + 1.1 * z) for z in (low, high)]
        return _turned(tone, [(0, outer[0][1]), *outer, (0, outer[1][1])])

    bands = zip((0, 0.3, 0.48, 0.7, 0.84), (0.3, 0.48, 0.7, 0.84, 1), strict=True)
    rings = [ring((BODY, PALE)[i % 2], low, high) for i, (low, high) in enumerate(bands)]
    return [
        *_box(DARK, (1.0, 1.0, 0.09), (0, 0, 0.045)),
        *chain.from_iterable(rings),
        *_box(TRIM, (0.34, 0.06, 0.22), (0, -0.4, 0.34)),
    ]


# Each with the categories it stands for, be it only by its rough form.
SHAPES: Mapping[Callable[[], Parts], str] = {
    _car: "car ambulance bumper_car dune_buggy go_kart snowmobile tank tractor bus trolleybus fire_truck",
    _chair: "chair highchair wheelchair bench toilet stove",
    _teapot: "teapot kettle pot",
    _lamp: "desk_lamp light_bulb flashlight fan",
    _aeroplane: "aeroplane glider airship",
    _bed: "bed sofa pillow diningtable piano",
    _cup: "cup beaker jar can bowl trash_bin bucket",
    _cone: "cone funnel cooling_tower yurt bottle wind_turbine",
}
