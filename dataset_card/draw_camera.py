"""Draws the camera conventions, camera.svg: `python dataset_card/draw_camera.py` with the extra demo.

Both halves are computed with `processing.geometry`, so the figure cannot disagree with the code: on the left
the object's space with the camera in it, on the right the picture that this camera takes, with the box and
the outline of the car as `processing.drawing.draw` finds them. Colours are chosen
to be read on white and on dark pages alike, since an SVG in a page does not know the page's theme.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ImageNet3D import POSE_FIELDS
from processing.drawing.draw import AXIS_COLORS, BOX_COLOR, layers
from processing.drawing.mesh import Mesh
from processing.geometry import camera_position, project, rotation_from_viewpoint

TARGET = Path(__file__).with_name("camera.svg")

# The pose that is drawn, and who looks at it; radians.
AZIMUTH, ELEVATION, THETA, DISTANCE = np.radians(58), np.radians(32), np.radians(17), 3.3
WATCHER_AZIMUTH, WATCHER_ELEVATION = np.radians(-24), np.radians(24)

SCALE = 66.0  # pixels of the left half for one unit of the object's space
ORIGIN = (206.0, 200.0)  # where that space's origin is drawn
FRAME = (494.0, 66.0, 316.0, 224.0)  # the picture: left, top, width, height
CENTRE = (662.0, 184.0)  # (px, py)
VIEWPORT = 272.0

INK, FAINT = "#747b85", "#747b8566"
AIM = "#d9822b"
AXES = (
    (AXIS_COLORS["x"], "x right", (1.35, 0, 0)),
    (AXIS_COLORS["y"], "y back", (0, 1.75, 0)),
    (AXIS_COLORS["z"], "z up", (0, 0, 1.35)),
)

Point = NDArray[np.float64]


def draw() -> str:
    """The whole figure."""
    style = "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif}.note{font-size:11.5px}"
    words = (
        "Left: the object's space, x to the right, y to the back, z up, front towards -y. The camera's "
        "azimuth is counted from the front towards x, its elevation from the ground up. Right: the picture; "
        "the object's centre is at (px, py), and theta turns the object counter-clockwise."
    )
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 840 340" width="840" height="340">',
            f"<title>Camera conventions</title><desc>{words}</desc><style>{style}</style>",
            *_object_space(),
            *_picture(),
            "</svg>\n",
        ]
    )


# --------------------------------------------------------------------------------------------------------
# The object: a car whose front looks towards -y
# --------------------------------------------------------------------------------------------------------


def _prism(lower: Sequence[float], upper: Sequence[float], bottom: float, top: float) -> list[Point]:
    """Sides and top of a frustum; its ends are (x, y from, y to)."""
    rings = [
        [(-x, back, z), (-x, front, z), (x, front, z), (x, back, z)]
        for (x, front, back), z in ((lower, bottom), (upper, top))
    ]
    sides = [(rings[0][i], rings[0][i - 3], rings[1][i - 3], rings[1][i]) for i in range(4)]
    return [np.array(face, float) for face in (*sides, rings[1])]


def _wheel(x: float, y: float) -> Point:
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False) * np.sign(x)
    return np.stack([np.full(24, x), y + 0.2 * np.cos(turns), -0.3 + 0.2 * np.sin(turns)], axis=1)


BODY = _prism((0.46, -1.05, 1.0), (0.44, -1.0, 0.97), -0.3, 0.06)
CABIN = _prism((0.43, -0.42, 0.85), (0.33, -0.1, 0.6), 0.06, 0.42)
WHEELS = [_wheel(x, y) for x in (-0.47, 0.47) for y in (-0.62, 0.6)]


def _mesh() -> Mesh:
    """The faces cut into triangles, as a CAD model has them."""
    faces = [*BODY, *CABIN, *WHEELS]
    corners = [(face[0], face[i], face[i + 1]) for face in faces for i in range(1, len(face) - 1)]
    return Mesh(np.array(corners).reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3))


def _car(place: "Projection", seen_from: Point) -> Iterable[str]:
    """The faces that look at the camera, those further up later."""
    for faces, colour in ((BODY, "#8a93a0"), (WHEELS, "#4a5058"), (CABIN, "#a7b0bc")):
        for face in faces:
            normal = np.cross(face[1] - face[0], face[2] - face[0])
            if normal @ (seen_from - face[0]) > 0:
                light = 0.1 + 0.25 * (1 - normal[2] / np.linalg.norm(normal))
                outline = f'fill="{colour}" stroke="#4a5058" stroke-width="0.8" stroke-linejoin="round"'
                yield f'<polygon points="{_list(place(face))}" {outline}/>'
                yield f'<polygon points="{_list(place(face))}" fill="#000" fill-opacity="{light:.2f}"/>'


# --------------------------------------------------------------------------------------------------------
# The two halves
# --------------------------------------------------------------------------------------------------------


class Projection:
    """Takes points of the object's space to the drawing."""

    def __call__(self, points: ArrayLike) -> Point:
        """(..., 3) to (..., 2)."""
        raise NotImplementedError


class Watched(Projection):
    """As a far watcher sees it, without perspective."""

    def __call__(self, points: ArrayLike) -> Point:
        """(..., 3) to (..., 2)."""
        rotation = rotation_from_viewpoint(WATCHER_AZIMUTH, WATCHER_ELEVATION, 0)
        seen = np.asarray(points, float) @ rotation.T
        return np.stack([ORIGIN[0] + SCALE * seen[..., 0], ORIGIN[1] - SCALE * seen[..., 1]], axis=-1)


class Taken(Projection):
    """As the camera of the drawn pose takes it."""

    def __call__(self, points: ArrayLike) -> Point:
        """(..., 3) to (..., 2)."""
        points = np.asarray(points, float)
        pixels, _ = project(
            points.reshape(-1, 3), AZIMUTH, ELEVATION, THETA, DISTANCE, *CENTRE, viewport=VIEWPORT
        )
        return pixels.reshape(*points.shape[:-1], 2)


def _object_space() -> Iterable[str]:
    place = Watched()
    camera = camera_position(AZIMUTH, ELEVATION, DISTANCE)
    shadow = camera * (1, 1, 0)
    front = np.array([0, -np.linalg.norm(shadow), 0])
    yield _text((24, 28), "object space", weight=600)
    yield _path(place(_turn(0, 2 * np.pi, 0, DISTANCE * np.cos(ELEVATION))), FAINT, dash="2 4", closed=True)
    yield _path(place([front, (0, 0, 0), shadow]), FAINT)
    yield _path(place([shadow, camera]), FAINT, dash="2 4")
    yield from _axes(place, (0, 1))
    yield from _car(place, camera_position(WATCHER_AZIMUTH, WATCHER_ELEVATION, 100.0))
    yield from _axes(place, (2,))
    yield _path(place([(0, 0, 0), camera]), AIM, width=2)
    yield _path(place(_turn(0, AZIMUTH, 0, 1.75)), INK, width=2, arrow=True)
    yield _path(place(_rise(2.35)), INK, width=2, arrow=True)
    yield from _camera(place, camera)
    yield _text(place(_turn(AZIMUTH * 0.45, 0, 0, 1.75)[0]), "azimuth", shift=(-2, 20), anchor="middle")
    yield _text(place(_rise(2.35)[9]), "elevation", shift=(9, 5))
    yield _text(place(camera * 0.6), "distance", shift=(-8, -8), colour=AIM, anchor="end")
    yield _text(place(front), "front, azimuth 0", shift=(-6, 16), anchor="middle", note=True)


def _picture() -> Iterable[str]:
    place = Taken()
    left, top, width, height = FRAME
    yield _text((left, 28), "picture", weight=600)
    yield f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="{INK}"/>'
    yield _path(np.array([(left, top - 8), (left + 46, top - 8)]), INK, arrow=True)
    yield _path(np.array([(left - 8, top), (left - 8, top + 46)]), INK, arrow=True)
    yield _text((left + 52, top - 4), "x, pixels", note=True)
    yield _text((left - 13, top + 60), "y", anchor="middle", note=True)
    yield from _axes(place, (1,), 0.85)
    yield from _car(place, camera_position(AZIMUTH, ELEVATION, DISTANCE))
    yield from _annotation()
    yield from _axes(place, (0,), 0.95)
    yield from _axes(place, (2,), 0.7)
    x, y = CENTRE
    up = np.radians(90)
    yield _path(np.array([(left, y), (x, y), (x, top + height)]), FAINT, dash="2 4")
    yield _path(np.array([(x, y), (x, y - 112)]), INK, dash="4 3")
    arc = np.linspace(up, up + THETA, 16)
    yield _path(np.stack([x + 108 * np.cos(arc), y - 108 * np.sin(arc)], axis=1), INK, width=2, arrow=True)
    yield _text((x + 8, y - 100), "theta")
    yield f'<circle cx="{x}" cy="{y}" r="4" fill="{AIM}"/>'
    yield _text((left + 8, y - 7), "py", colour=AIM)
    yield _text((x, top + height + 16), "px", colour=AIM, anchor="middle")
    note = "viewport: focal length in pixels"
    yield _text((left, top + height + 36), note, note=True)


def _annotation() -> Iterable[str]:
    """The car's box and its outline, drawn as those of any row are."""
    mesh = _mesh()
    pixels = Taken()(mesh.vertices)
    row = dict(zip(POSE_FIELDS, (AZIMUTH, ELEVATION, THETA, DISTANCE, *CENTRE, VIEWPORT), strict=True))
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    found = layers(row | {"bbox": [*low, *high]}, mesh, (FRAME[0] + FRAME[2], FRAME[1] + FRAME[3]))
    for line in found.mesh.silhouette:
        yield _path(line[:-1], "#4a5058", width=1.6, closed=True)
    x1, y1, x2, y2 = found.box
    for colour, width in ((INK, 3), (BOX_COLOR, 1.4)):
        yield _path(np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]), colour, width=width, closed=True)
    yield _text((x1, y1), "x1, y1", shift=(0, -6), note=True)
    yield _text((x2, y2), "x2, y2", shift=(7, 4), note=True)


def _axes(place: Projection, which: Sequence[int], length: float = 1.0) -> Iterable[str]:
    for colour, name, tip in (AXES[i] for i in which):
        end = np.array(tip) * length
        start, stop = place(np.stack([end * 0, end]))
        yield _path(np.array([start, stop]), colour, width=2, arrow=True)
        away = (stop - start) / np.linalg.norm(stop - start)
        anchor = "start" if away[0] > 0.3 else "end" if away[0] < -0.3 else "middle"
        yield _text(stop + away * 12, name, shift=(0, 4), colour=colour, anchor=anchor)


def _turn(start: float, stop: float, elevation: float, radius: float) -> Point:
    """An arc of camera places of one elevation."""
    return camera_position(np.linspace(start, stop, 48), elevation, radius)


def _rise(radius: float) -> Point:
    """An arc of camera places from the ground up to the drawn elevation."""
    return camera_position(AZIMUTH, np.linspace(0, ELEVATION, 24), radius)


def _camera(place: Projection, camera: Point) -> Iterable[str]:
    """A pyramid whose base looks at the object."""
    rotation = rotation_from_viewpoint(AZIMUTH, ELEVATION, THETA)
    corners = [(x, y, -0.42) for x, y in ((-0.24, -0.17), (0.24, -0.17), (0.24, 0.17), (-0.24, 0.17))]
    base = np.array(corners) @ rotation + camera
    for i in range(4):
        yield _path(place([camera, base[i], base[i - 1]]), AIM, width=1.6, closed=True)
    yield _text(place(camera), "camera", shift=(6, -14), colour=AIM, anchor="middle")


# --------------------------------------------------------------------------------------------------------
# SVG
# --------------------------------------------------------------------------------------------------------


def _list(points: Point) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _path(
    points: Point,
    colour: str,
    *,
    width: float = 1.2,
    dash: str = "",
    arrow: bool = False,
    closed: bool = False,
) -> str:
    lines = f"M{_list(points)}" + ("Z" if closed else "")
    if arrow:
        ahead = (points[-1] - points[-2]) / np.linalg.norm(points[-1] - points[-2])
        aside = np.array([-ahead[1], ahead[0]])
        back = points[-1] - ahead * 8
        lines += f"M{_list(np.array([back + aside * 4, points[-1], back - aside * 4]))}"
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<path d="{lines}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _text(
    at: ArrayLike,
    words: str,
    *,
    shift: tuple[float, float] = (0, 0),
    colour: str = INK,
    anchor: str = "start",
    weight: int = 400,
    note: bool = False,
) -> str:
    x, y = np.add(at, shift)
    look = f'fill="{colour}" text-anchor="{anchor}" font-weight="{weight}"'
    if note:
        look += ' class="note"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {look}>{words}</text>'


if __name__ == "__main__":
    TARGET.write_text(draw(), "utf-8")
