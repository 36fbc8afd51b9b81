"""Draws an annotation on its picture: the box, the mesh at its pose, and the object's axes.

Anyone with a row of the dataset can call it:

    from processing.drawing.draw import draw

    draw(row["image"], row, mesh).save("bed.png")

`layers` computes where everything lands, in pixels; `draw` paints that on a picture, and the preview page
writes it as SVG. Nothing hidden is drawn: a face shows where it is the nearest, an edge where nothing is
before it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import PIL.ImageColor
import PIL.ImageDraw
from numpy.typing import NDArray

from ImageNet3D import ANGLES, POSE_FIELDS
from processing.drawing.mesh import Mesh, MeshError, without_unused
from processing.drawing.outline import Drawing, trace
from processing.drawing.raster import LIGHT, shade
from processing.drawing.rgb import to_rgb
from processing.geometry import camera_position, project, rotation_from_viewpoint

LAYERS = ("faces", "outline", "box", "axes")  # in the order in which they are painted

BOX_COLOR = "#ffd400"
MESH_COLOR = "#00e5d0"
AXIS_COLORS: Mapping[str, str] = {"x": "#e5484d", "y": "#2f9e44", "z": "#3b7bea"}
FACE_OPACITY = 0.45  # the picture stays visible below the faces
EDGE_OPACITY = 0.75

# Sides of boxes are drawn no farther out, pixels: nobody sees them there, and nothing draws 1e300 pixels.
FARTHEST = 10.0**6

# Numbers of a pose past these belong to no photograph, and their projections are no numbers.
MAX_DISTANCE = MAX_POSITION = MAX_VIEWPORT = 1e9  # units of the mesh, pixels, pixels

_SHARPNESS = 2  # lines are painted so many times as large, and reduced: Pillow's own are jagged
_LARGEST = 4000  # pixels of a side that is still painted larger


class Axis(NamedTuple):
    """One axis of the object's space, from the object's centre to its tip; pixels."""

    name: str  # x to the right, y to the back, z up
    x1: float
    y1: float
    x2: float
    y2: float


class Faces(NamedTuple):
    """The shaded faces of a mesh, a patch of the picture."""

    image: PIL.Image.Image  # RGBA, of some resolution of its own
    box: tuple[float, float, float, float]  # x1, y1, x2, y2 of the patch in the picture, pixels


@dataclass(frozen=True)
class Layers:
    """Where an annotation lands in its picture.

    Attributes:
        box: left, upper, right and lower side as annotated, pixels; no farther out than `FARTHEST`.
        axes: the farthest first; none where there is no pose.
        mesh: the mesh's lines, or None where there is no mesh or nothing of it is in the picture.
        faces: its shaded faces, likewise.
        agreement: intersection over union of the box and that of the projected mesh, both cut at the
            picture's edge; None without a mesh.
        remark: why something is not drawn, or "".
    """

    box: tuple[float, float, float, float]
    axes: tuple[Axis, ...] = ()
    mesh: Drawing | None = None
    faces: Faces | None = None
    agreement: float | None = None
    remark: str = ""


def draw(
    picture: PIL.Image.Image,
    row: Mapping[str, Any],
    mesh: Mesh | None = None,
    show: Collection[str] = LAYERS,
) -> PIL.Image.Image:
    """Draw an object's annotation on its picture.

    Args:
        picture: as stored: an EXIF orientation must not have been applied.
        row: of the config pose or object_centric, or any mapping with `bbox` and the seven pose fields, each
            of which may be missing or None: x1, y1, x2, y2, px, py and viewport in pixels of the picture,
            angles in radians. Where the pose cannot be projected, the box is drawn alone.
        mesh: of the object; None draws box and axes only. A trimesh does too.
        show: of `LAYERS`.

    Returns:
        A new RGB picture of the same size.

    Raises:
        ValueError: show holds something else.
        ImportError: a mesh is given and contourpy is not installed.
    """
    if unknown := set(show) - set(LAYERS):
        raise ValueError(f"show has {', '.join(sorted(unknown))}; the layers are {', '.join(LAYERS)}")
    found = layers(row, mesh, picture.size)
    drawn = to_rgb(picture)
    drawn = drawn.copy() if drawn is picture else drawn
    if found.faces is not None and "faces" in show:
        _paste(drawn, found.faces)
    enlarged = _SHARPNESS if max(picture.size) <= _LARGEST else 1
    size = (picture.width * enlarged, picture.height * enlarged)
    overlay = PIL.Image.new("RGBA", size, (0, 0, 0, 0))
    _Pen(overlay, enlarged, max(picture.size)).paint(found, show)
    if enlarged > 1:
        overlay = overlay.reduce(enlarged)
    drawn.paste(overlay, mask=overlay)
    return drawn


def layers(
    row: Mapping[str, Any], mesh: Mesh | None, size: tuple[float, float], scale: float = 1.0
) -> Layers:
    """Find where an annotation lands.

    Args:
        row: as of `draw`.
        mesh: as of `draw`.
        size: width and height of what is drawn on, pixels.
        scale: pixels of what is drawn on for one of the picture.
    """
    box = _drawn_box(row["bbox"], scale)
    if why := why_not_projected(row):
        return Layers(box, remark=why)
    camera = camera_of(row, scale)
    axes = object_axes(camera, box)
    if mesh is None:
        return Layers(box, axes, remark="No mesh: box and axes only.")
    mesh = without_unused(mesh)
    pixels, depth = project(mesh.vertices, *camera)
    try:
        lines = trace(mesh, pixels, depth, size)
    except MeshError as error:
        return Layers(box, axes, remark=f"No mesh: {error}; box and axes only.")
    if lines is None:
        return Layers(box, axes, agreement=0.0, remark="Nothing of the mesh is in the picture.")
    agreement = box_agreement(box, pixels, size)
    return Layers(box, axes, lines, _shaded(mesh, camera, lines), agreement)


def why_not_projected(row: Mapping[str, Any]) -> str:
    """Why a pose puts nothing into its picture, as a sentence; "" if it does.

    Args:
        row: as of `draw`.
    """
    values = {name: row.get(name) for name in POSE_FIELDS}
    if any(values[name] is None for name in ANGLES):
        return "A box and no pose."
    distance, px, py, viewport = (values[name] for name in ("distance", "px", "py", "viewport"))
    if distance is None or distance <= 0:
        return "Never placed in depth: no mesh or axes to draw."
    if px is None or py is None:
        return "Its centre (px, py) is not annotated: no mesh or axes to draw."
    if viewport is None:
        return "Its focal length (viewport) is not annotated: no mesh or axes to draw."
    sound = distance <= MAX_DISTANCE and max(abs(px), abs(py)) <= MAX_POSITION
    if not (sound and 0 < viewport <= MAX_VIEWPORT):
        return "Distance, centre or viewport are those of no photograph: no mesh or axes to draw."
    return ""


def camera_of(row: Mapping[str, Any], scale: float = 1.0) -> tuple[float, ...]:
    """The arguments of `geometry.project` behind the points, of a pose that `why_not_projected` lets pass."""
    azimuth, elevation, theta, distance, px, py, viewport = (float(row[name]) for name in POSE_FIELDS)
    return azimuth, elevation, theta, distance, px * scale, py * scale, viewport * scale


def _drawn_box(bbox: Sequence[float], scale: float) -> tuple[float, float, float, float]:
    """A box as it is drawn: one that is annotated the wrong way round has the same sides."""
    x1, y1, x2, y2 = (min(max(float(value) * scale, -FARTHEST), FARTHEST) for value in bbox)
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def object_axes(camera: tuple[float, ...], box: tuple[float, ...]) -> tuple[Axis, ...]:
    """The three axes of the object's space, from the side some half of the box's longer side long.

    Args:
        camera: as of `camera_of`, with a distance above 0.
        box: x1, y1, x2, y2, pixels.
    """
    distance, viewport = camera[3], camera[6]
    length = max(box[2] - box[0], box[3] - box[1]) / 2 * distance / viewport
    # No axis may reach the camera, however near that is.
    tips = np.eye(3) * min(length, distance / 2)
    pixels, depth = project(np.vstack([np.zeros(3), tips]), *camera)
    farthest_first = sorted(range(1, 4), key=lambda place: -depth[place])
    return tuple(Axis("xyz"[place - 1], *pixels[0], *pixels[place]) for place in farthest_first)


def box_agreement(box: tuple[float, ...], points: NDArray[np.float64], size: tuple[float, float]) -> float:
    """Intersection over union of a box and the box of points (n, 2), both cut at the picture's edge."""
    limits = np.array([*size, *size])
    points = points[np.isfinite(points).all(axis=1)]  # those behind the camera have no place
    one = np.clip(box, 0, limits)
    other = np.clip([*points.min(axis=0), *points.max(axis=0)], 0, limits)
    inner = np.r_[np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])]
    common, first, second = (float(np.prod(np.maximum(b[2:] - b[:2], 0))) for b in (inner, one, other))
    return common / max(first + second - common, np.finfo(float).tiny)


def _shaded(mesh: Mesh, camera: tuple[float, ...], lines: Drawing) -> Faces:
    """The faces that are seen, lit from above the camera's left shoulder."""
    azimuth, elevation, theta, distance = camera[:4]
    light = np.array(LIGHT) @ rotation_from_viewpoint(azimuth, elevation, theta)  # camera to object space
    eye = camera_position(azimuth, elevation, distance)
    color = np.array(PIL.ImageColor.getrgb(MESH_COLOR)) / 255
    shaded = shade(mesh.vertices, mesh.faces, np.broadcast_to(color, (len(mesh.faces), 3)), eye, light)
    # The last row stands for "no face", index -1.
    colors = np.zeros((len(shaded) + 1, 4))
    colors[:-1, :3] = shaded
    colors[:-1, 3] = FACE_OPACITY
    return Faces(PIL.Image.fromarray(np.rint(colors * 255).astype(np.uint8)[lines.seen]), lines.window)


# --------------------------------------------------------------------------------------------------------
# Paint
# --------------------------------------------------------------------------------------------------------


def _paste(picture: PIL.Image.Image, faces: Faces) -> None:
    """Blend the patch into the picture, at fractions of pixels."""
    x1, y1, x2, y2 = faces.box
    left, top, right, bottom = math.floor(x1), math.floor(y1), math.ceil(x2), math.ceil(y2)
    across, down = faces.image.width / (x2 - x1), faces.image.height / (y2 - y1)
    # What of the patch, in its own pixels, each whole pixel of the picture shows; past its edge is nothing.
    margin = math.ceil(max(across, down)) + 1
    framed = PIL.Image.new("RGBA", (faces.image.width + 2 * margin, faces.image.height + 2 * margin))
    framed.paste(faces.image, (margin, margin))
    source = (
        (left - x1) * across + margin,
        (top - y1) * down + margin,
        (right - x1) * across + margin,
        (bottom - y1) * down + margin,
    )
    patch = framed.resize((right - left, bottom - top), PIL.Image.Resampling.BOX, box=source)
    picture.paste(patch, (left, top), patch)


class _Pen:
    """Paints lines on an overlay that is `enlarged` times as large as the picture."""

    def __init__(self, overlay: PIL.Image.Image, enlarged: int, long_side: int) -> None:
        self._draw = PIL.ImageDraw.Draw(overlay)
        self._enlarged = enlarged
        self._width = max(1.0, long_side / 320)  # of a plain line, pixels of the picture

    def paint(self, found: Layers, show: Collection[str]) -> None:
        if found.mesh is not None and "outline" in show:
            for edge in found.mesh.edges:
                self._line(edge, MESH_COLOR, 0.6, EDGE_OPACITY)
            for line in found.mesh.silhouette:
                self._line(line, MESH_COLOR, 1.1)
        if "box" in show:
            x1, y1, x2, y2 = found.box
            corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
            self._line(corners, "#000000", 2.2, 0.55)
            self._line(corners, BOX_COLOR, 1.1)
        if "axes" in show:
            for axis in found.axes:
                self._axis(axis)

    def _axis(self, axis: Axis) -> None:
        ends = [(axis.x1, axis.y1), (axis.x2, axis.y2)]
        self._line(ends, "#ffffff", 3.2, 0.8)
        self._line(ends, AXIS_COLORS[axis.name], 1.8)
        x, y = axis.x2 * self._enlarged, axis.y2 * self._enlarged
        radius = 4.5 * self._width * self._enlarged
        circle = (x - radius, y - radius, x + radius, y + radius)
        edge = max(1, round(self._width * self._enlarged / 2))
        self._draw.ellipse(circle, AXIS_COLORS[axis.name], "#ffffff", edge)
        self._draw.text((x, y), axis.name, "#ffffff", anchor="mm", font_size=radius * 1.5)

    def _line(self, points: Any, color: str, width: float, opacity: float = 1.0) -> None:
        path = [(float(x) * self._enlarged, float(y) * self._enlarged) for x, y in points]
        ink = (*PIL.ImageColor.getrgb(color), round(opacity * 255))
        self._draw.line(path, ink, max(1, round(width * self._width * self._enlarged)), "curve")
