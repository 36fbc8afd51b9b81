"""Meshes drawn by code for the synthetic tree: twenty shapes, each in proportions of its own.

x is to the right, -y the front and z up, as in the release's CAD models.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from processing.geometry import TWO_PI

try:
    import trimesh
except ImportError:  # an extra; `draw_model` names the remedy
    trimesh = None


BODY, TRIM, DARK, PALE = range(4)  # the tones of a mesh, in the order of the colours a picture gives them

Point = tuple[float, float, float]
Parts = list[tuple["trimesh.Trimesh", int]]  # each with its tone


@dataclass(frozen=True)
class Model:
    """A mesh, with a tone for each face that a picture turns into a colour."""

    vertices: NDArray[np.float64]  # (M, 3), object space, exactly as the .off file spells them
    faces: NDArray[np.int64]  # (F, 3)
    tones: NDArray[np.int64]  # (F,), BODY, TRIM, DARK or PALE


def draw_model(category: str, rng: np.random.Generator) -> Model:
    """Draw a category's shape in proportions of its own, centred, with a bounding box of diagonal 1.

    Raises:
        ImportError: trimesh is not installed.
    """
    if trimesh is None:
        raise ImportError("sample meshes are drawn with trimesh: pip install imagenet3d-datasets[demo]")
    parts = _shape_of(category)()
    vertices = np.concatenate([mesh.vertices for mesh, _ in parts]) * rng.uniform(0.85, 1.15, 3)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    vertices = (vertices - (low + high) / 2) / np.linalg.norm(high - low)
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh, _ in parts[:-1])])
    faces = np.concatenate([mesh.faces + start for (mesh, _), start in zip(parts, starts, strict=True)])
    tones = np.repeat([tone for _, tone in parts], [len(mesh.faces) for mesh, _ in parts])
    # As many digits as the file holds; + 0.0 turns -0.0 into 0.0.
    return Model(np.round(vertices, 5) + 0.0, faces.astype(np.int64), tones)


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


def _box(tone: int, size: Point, at: Point) -> Parts:
    """A box of a size, its centre at a point."""
    mesh = trimesh.creation.box(extents=size)
    mesh.apply_translation(at)
    return [(mesh, tone)]


def _frustum(tone: int, lower: Point, upper: Point, bottom: float, top: float) -> Parts:
    """A box between two heights whose lower and upper end, (width, depth, y of the centre), differ."""
    mesh = trimesh.creation.box(extents=(1, 1, 1))
    ends = np.where(mesh.vertices[:, 2:] > 0, upper, lower)
    x = mesh.vertices[:, 0] * ends[:, 0]
    y = mesh.vertices[:, 1] * ends[:, 1] + ends[:, 2]
    z = np.where(mesh.vertices[:, 2] > 0, top, bottom)
    mesh.vertices = np.column_stack([x, y, z])
    return [(mesh, tone)]


def _rod(tone: int, start: Point, end: Point, radius: float) -> Parts:
    """A round rod between two points."""
    return [(trimesh.creation.cylinder(radius, segment=[start, end], sections=16), tone)]


def _tube(tone: int, path: ArrayLike, radius: float) -> Parts:
    """A bent rod through the points (n, 3)."""
    points = [tuple(point) for point in np.asarray(path, dtype=np.float64)]
    rods = [_rod(tone, start, end, radius) for start, end in pairwise(points)]
    bends = [_ball(tone, (radius, radius, radius), point, detail=1) for point in points[1:-1]]
    return [*chain.from_iterable(rods), *chain.from_iterable(bends)]


def _ball(tone: int, radii: Point, at: Point, detail: int = 2) -> Parts:
    """An ellipsoid about a point."""
    mesh = trimesh.creation.icosphere(subdivisions=detail)
    mesh.apply_scale(radii)
    mesh.apply_translation(at)
    return [(mesh, tone)]


def _turned(tone: int, profile: Sequence[tuple[float, float]], at: Point = (0, 0, 0)) -> Parts:
    """What a lathe makes of a profile of (radius, z), upwards on the outside and down again if hollow."""
    mesh = trimesh.creation.revolve(np.array(profile, dtype=np.float64), sections=28)
    mesh.apply_translation(at)
    return [(mesh, tone)]


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


def _bus() -> Parts:
    windows = [_box(DARK, (1.04, 0.4, 0.4), (0, y, 1.0)) for y in np.linspace(-1.0, 1.3, 5)]
    return [
        *_box(BODY, (1.0, 3.2, 1.15), (0, 0, 0.8)),
        *_box(TRIM, (1.03, 3.23, 0.1), (0, 0, 0.6)),
        *_frustum(PALE, (0.9, 2.9, 0), (0.8, 2.7, 0), 1.37, 1.46),
        *chain.from_iterable(windows),
        *_box(DARK, (0.86, 0.06, 0.5), (0, -1.6, 1.0)),
        *_box(PALE, (0.16, 0.06, 0.12), (-0.35, -1.62, 0.42)),
        *_box(PALE, (0.16, 0.06, 0.12), (0.35, -1.62, 0.42)),
        *_wheels((-1.0, 1.0), 0.45, 0.26),
    ]


def _aeroplane() -> Parts:
    engines = [_rod(DARK, (x, -0.42, -0.14), (x, 0.0, -0.14), 0.09) for x in (-0.85, -0.45, 0.45, 0.85)]
    return [
        *_ball(BODY, (0.2, 1.5, 0.2), (0, 0, 0), detail=3),
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
    mesh = trimesh.creation.box(extents=(2 * span, 1, thickness))
    left, right = mesh.copy(), mesh.copy()
    for half, side in ((left, -1), (right, 1)):
        reach = (half.vertices[:, 0] * side / span + 1) / 2  # 0 at the root, 1 at the tip
        chord = root_chord + reach * (tip_chord - root_chord)
        y = root_y + reach * (tip_y - root_y) + half.vertices[:, 1] * chord
        half.vertices = np.column_stack([side * reach * span, y, half.vertices[:, 2]])
    return [(left, tone), (right, tone)]


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


def _table() -> Parts:
    return [
        *_box(BODY, (1.7, 1.05, 0.08), (0, 0, 0.85)),
        *_box(TRIM, (1.5, 0.85, 0.14), (0, 0, 0.75)),
        *_box(PALE, (0.4, 0.05, 0.1), (0, -0.42, 0.75)),
        *_legs(DARK, 0.72, 0.4, 0.8, 0.06),
        *_turned(
            PALE, [(0, 0), (0.12, 0), (0.17, 0.15), (0.07, 0.3), (0.1, 0.36), (0, 0.36)], (0.45, 0.1, 0.89)
        ),
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


def _cabinet() -> Parts:
    return [
        *_box(BODY, (1.0, 0.7, 1.5), (0, 0, 0.85)),
        *_box(TRIM, (1.08, 0.78, 0.06), (0, 0, 1.62)),
        *_box(TRIM, (0.46, 0.06, 0.9), (-0.245, -0.35, 0.65)),
        *_box(TRIM, (0.46, 0.06, 0.9), (0.245, -0.35, 0.65)),
        *_box(PALE, (0.95, 0.06, 0.34), (0, -0.35, 1.34)),
        *_rod(DARK, (-0.07, -0.42, 0.6), (-0.07, -0.42, 0.85), 0.025),
        *_rod(DARK, (0.07, -0.42, 0.6), (0.07, -0.42, 0.85), 0.025),
        *_rod(DARK, (-0.15, -0.42, 1.34), (0.15, -0.42, 1.34), 0.025),
        *_legs(DARK, 0.42, 0.28, 0.12, 0.05),
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


def _bottle() -> Parts:
    glass = [(0, 0), (0.28, 0), (0.3, 0.05), (0.3, 0.85), (0.11, 1.15), (0.1, 1.5), (0, 1.5)]
    return [
        *_turned(BODY, glass),
        *_turned(TRIM, [(0, 1.5), (0.13, 1.48), (0.13, 1.6), (0, 1.6)]),
        *_frustum(PALE, (0.4, 0.3, -0.17), (0.4, 0.3, -0.17), 0.25, 0.7),
    ]


def _bowl() -> Parts:
    wall = [(0, 0), (0.3, 0), (0.35, 0.08), (0.75, 0.5), (0.69, 0.5), (0.3, 0.14), (0, 0.12)]
    return [
        *_turned(BODY, wall),
        *_turned(TRIM, [(0.78, 0.46), (0.8, 0.52), (0.68, 0.52), (0.7, 0.46)]),
        *_ball(PALE, (0.22, 0.22, 0.22), (0.2, -0.1, 0.36)),
        *_ball(DARK, (0.19, 0.19, 0.19), (-0.25, 0.1, 0.33)),
    ]


def _bin() -> Parts:
    wall = [(0, 0), (0.36, 0), (0.46, 1.0), (0.42, 1.0), (0.33, 0.06), (0, 0.05)]
    return [
        *_turned(BODY, wall),
        *_turned(DARK, [(0.465, 0.93), (0.5, 0.95), (0.5, 1.02), (0.4, 1.02), (0.4, 0.93)]),
        *_box(PALE, (0.3, 0.12, 0.3), (0, -0.37, 0.55)),
        *_tube(DARK, _arc((0, 0, 0.98), 0.48, 0, np.pi, 12), 0.025),
    ]


def _lamp() -> Parts:
    shade = trimesh.creation.cone(radius=0.34, height=0.5, sections=24)
    shade.apply_transform(trimesh.transformations.rotation_matrix(0.5, (1, 0, 0)))
    shade.apply_translation((0.12, -0.55, 1.05))
    return [
        *_turned(DARK, [(0, 0), (0.42, 0), (0.4, 0.08), (0.1, 0.12), (0, 0.12)]),
        *_tube(TRIM, [(0, 0, 0.1), (-0.25, 0.3, 0.85), (0.12, -0.3, 1.45)], 0.05),
        (shade, BODY),
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


def _ring() -> Parts:
    step = TWO_PI / 8
    arcs = [
        _tube((BODY, PALE)[i % 2], _arc((0, 0, 0), 0.75, i * step, (i + 1) * step, 4), 0.2) for i in range(8)
    ]
    rope = _tube(DARK, _arc((0, -0.1, 0), 1.0, 0.2, np.pi - 0.2, 9), 0.035)
    return [*chain.from_iterable(arcs), *rope, *_box(TRIM, (0.5, 0.1, 0.16), (0, -0.18, -0.75))]


def _turbine() -> Parts:
    blades = []
    for turn in (0.3, 0.3 + TWO_PI / 3, 0.3 + 2 * TWO_PI / 3):
        [(blade, tone)] = _frustum(BODY, (0.16, 0.05, 0), (0.05, 0.02, 0), 0.08, 1.0)
        blade.apply_transform(trimesh.transformations.rotation_matrix(turn, (0, 1, 0)))
        blade.apply_translation((0, -0.34, 1.95))
        blades.append((blade, tone))
    return [
        *_turned(TRIM, [(0, 0), (0.16, 0), (0.08, 1.9), (0, 1.9)]),
        *_box(BODY, (0.2, 0.55, 0.2), (0, 0, 1.95)),
        *_ball(DARK, (0.1, 0.14, 0.1), (0, -0.34, 1.95)),
        *blades,
        *_turned(DARK, [(0, 0), (0.35, 0), (0.35, 0.06), (0, 0.06)]),
    ]


def _monitor() -> Parts:
    return [
        *_box(DARK, (1.6, 0.1, 1.0), (0, 0, 0.95)),
        *_box(TRIM, (1.46, 0.06, 0.84), (0, -0.04, 0.97)),
        *_box(BODY, (0.7, 0.06, 0.5), (-0.25, -0.05, 1.02)),
        *_box(PALE, (0.08, 0.06, 0.04), (0.65, -0.04, 0.49)),
        *_box(DARK, (0.7, 0.16, 0.5), (0, 0.1, 0.95)),
        *_rod(BODY, (0, 0.08, 0.05), (0, 0.08, 0.6), 0.07),
        *_box(BODY, (0.8, 0.45, 0.06), (0, 0.05, 0.03)),
    ]


def _laptop() -> Parts:
    keys = [_box(PALE, (1.02, 0.07, 0.03), (0, y, 0.085)) for y in (-0.08, 0.04, 0.16, 0.28)]
    lean = trimesh.transformations.rotation_matrix(-0.3, (1, 0, 0), (0, 0.45, 0.08))
    lid = [*_box(BODY, (1.3, 0.05, 0.86), (0, 0.45, 0.5)), *_box(TRIM, (1.18, 0.04, 0.72), (0, 0.43, 0.52))]
    for mesh, _ in lid:
        mesh.apply_transform(lean)
    return [
        *_box(BODY, (1.3, 0.9, 0.08), (0, 0, 0.04)),
        *_box(DARK, (1.1, 0.5, 0.02), (0, 0.1, 0.085)),
        *chain.from_iterable(keys),
        *_box(TRIM, (0.36, 0.2, 0.02), (0, -0.3, 0.085)),
        *lid,
    ]


def _hammer() -> Parts:
    return [
        *_rod(TRIM, (0, 0, 0), (0, 0, 1.45), 0.07),
        *_rod(DARK, (0, 0, 0.02), (0, 0, 0.5), 0.095),
        *_box(BODY, (0.34, 0.24, 0.24), (0, 0, 1.4)),
        *_rod(BODY, (-0.42, 0, 1.4), (-0.15, 0, 1.4), 0.1),
        *_rod(DARK, (-0.52, 0, 1.4), (-0.4, 0, 1.4), 0.15),
        *_tube(BODY, [(0.15, -0.07, 1.42), (0.38, -0.08, 1.4), (0.56, -0.1, 1.28)], 0.05),
        *_tube(BODY, [(0.15, 0.07, 1.42), (0.38, 0.08, 1.4), (0.56, 0.1, 1.28)], 0.05),
    ]


def _dumbbell() -> Parts:
    plates = [(0.35, 0.47, 0.32, BODY), (0.47, 0.6, 0.42, TRIM), (0.6, 0.68, 0.25, BODY)]
    right = [_rod(tone, (a, 0, 0), (b, 0, 0), radius) for a, b, radius, tone in plates]
    left = [_rod(tone, (-a, 0, 0), (-b, 0, 0), radius) for a, b, radius, tone in plates[:2]]
    return [
        *_rod(DARK, (-0.72, 0, 0), (0.76, 0, 0), 0.09),
        *chain.from_iterable([*right, *left]),
        *_box(PALE, (0.2, 0.06, 0.06), (0, -0.08, 0)),
    ]


# Each with the categories it stands for, be it only by its rough form.
SHAPES: Mapping[Callable[[], Parts], str] = {
    _car: "car ambulance bumper_car dune_buggy go_kart snowmobile tank tractor riding_mower",
    _bus: "bus school_bus trolleybus recreational_vehicle train fire_truck garbage_truck",
    _aeroplane: "aeroplane glider airship",
    _chair: "chair highchair wheelchair bench toilet",
    _table: "diningtable billiard_table table_tennis_table piano",
    _bed: "bed sofa pillow",
    _cabinet: "cabinet filing_cabinet refrigerator dishwasher washing_machine stove bookshelf door",
    _cup: "cup beaker jar can",
    _teapot: "teapot kettle pot",
    _bottle: "bottle fire_extinguisher salt_or_pepper_shaker lipstick lighter",
    _bowl: "bowl plate pan ashtray sombrero helmet",
    _bin: "trash_bin bucket basket",
    _lamp: "desk_lamp light_bulb flashlight",
    _cone: "cone funnel cooling_tower yurt",
    _ring: "life_buoy frisbee millwheel",
    _turbine: "wind_turbine fan",
    _monitor: "tvmonitor blackboard microwave sign computer printer",
    _laptop: "laptop cellphone calculator keyboard telephone",
    _hammer: "hammer ax shovel hacksaw trowel screwdriver",
    _dumbbell: "dumbbell barbell",
}
