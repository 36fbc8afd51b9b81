"""The cards of a preview page: an object's picture, made small, with what is drawn on it and said of it."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import PIL.Image
from numpy.typing import NDArray

from ImageNet3D import KNOWN_CATEGORIES, REASONS, ObjectAnnotation, Unusable
from processing.drawing.draw import Faces, Layers, camera_of, layers, why_not_projected
from processing.drawing.mesh import Mesh, MeshError
from processing.drawing.rgb import to_rgb
from processing.geometry import TWO_PI
from processing.preview.meshes import EmbeddedMesh, embedded
from processing.preview.selection import AnnotatedPicture, Source

# Long side of an embedded picture in pixels, by how many objects a page has: it is to stay below 30 MB with
# 500 objects.
LONG_SIDES = ((60, 640), (200, 520), (600, 420))
SMALLEST_LONG_SIDE = 320
PICTURE_QUALITY, PATCH_QUALITY, PATCH_ALPHA_QUALITY = 72, 55, 70  # of WebP

AGREES = 0.75  # intersection over union of box and mesh from which they are said to agree


def long_side(objects: int) -> int:
    """Of the embedded pictures on a page of so many objects, pixels."""
    return next((side for most, side in LONG_SIDES if objects <= most), SMALLEST_LONG_SIDE)


@dataclass(frozen=True)
class Embedded:
    """A picture as the page holds it.

    Attributes:
        webp: base64.
        scale: its pixels for one of the picture.
        width, height: of the picture times the scale; its own are these, rounded.
    """

    webp: str
    scale: float
    width: float
    height: float


@dataclass(frozen=True)
class Card:
    """One object as the page shows it; lengths are pixels of the embedded picture.

    Attributes:
        number: of the card, from 0.
        split: of the picture.
        caption: of the picture, or None.
        layers: what is drawn.
        faces: the shaded faces as WebP in base64, or "".
        mesh_key: of the embedded mesh, or "".
        remark: why something is not drawn, or "".
    """

    number: int
    picture: AnnotatedPicture
    item: ObjectAnnotation
    image: Embedded
    layers: Layers
    faces: str
    mesh_key: str
    remark: str

    @property
    def known(self) -> bool:
        """Whether the category is one of the known ones."""
        return self.picture.category in KNOWN_CATEGORIES

    @property
    def angles(self) -> dict[str, float]:
        """Degrees: azimuth in [0, 360), elevation and theta in [-180, 180)."""
        azimuth, elevation, theta = self.item.azimuth, self.item.elevation, self.item.theta
        if azimuth is None or elevation is None or theta is None:
            return {}
        return {
            "azimuth": math.degrees(azimuth % TWO_PI),
            "elevation": _signed_degrees(elevation),
            "theta": _signed_degrees(theta),
        }

    @property
    def silhouette(self) -> str:
        """An SVG path, "" where there is no mesh."""
        lines = self.layers.mesh.silhouette if self.layers.mesh else ()
        return "".join(f"{_path(line[:-1])}Z" for line in lines)

    @property
    def edges(self) -> str:
        """An SVG path."""
        return "".join(map(_path, self.layers.mesh.edges)) if self.layers.mesh else ""

    @property
    def agreement(self) -> str:
        """How box and mesh stand to each other, as a word to filter by."""
        if self.layers.agreement is None:
            return "no mesh"
        return "agree" if self.layers.agreement >= AGREES else "differ"

    @property
    def camera(self) -> list[float] | None:
        """The arguments of `geometry.project` behind the points, in pixels of the card."""
        return list(camera_of(asdict(self.item), self.image.scale)) if self.layers.axes else None

    @property
    def alt(self) -> str:
        """The picture in words."""
        parts = [f"{self.picture.image_id.replace('/', ', ', 1)}, object {self.item.index}"]
        drawn = ["box"] + ["CAD model"] * bool(self.silhouette) + ["axes"] * bool(self.layers.axes)
        parts.append(f"its {', '.join(drawn)} drawn on the picture")
        parts += [f"{name} {value:.0f}°" for name, value in self.angles.items()]
        if self.item.posed and self.item.distance is not None:
            parts.append(f"distance {self.item.distance:.2f}")
        return "; ".join(parts)

    @property
    def close_up(self) -> tuple[float, float, float]:
        """x, y and side of a square about the object, for a tile of the page's head."""
        x1, y1, x2, y2 = self.layers.box
        side = max(x2 - x1, y2 - y1) * 1.4
        side = min(side, self.image.width, self.image.height)
        middles = ((x1 + x2) / 2, (y1 + y2) / 2)
        limits = (self.image.width, self.image.height)
        x, y = (min(max(m - side / 2, 0), limit - side) for m, limit in zip(middles, limits, strict=True))
        return x, y, side

    @property
    def fit_for_head(self) -> tuple[bool, bool]:
        """Sorts the cards for the head of the page, the best first: a good object, large and whole."""
        x1, y1, x2, y2 = self.layers.box
        width, height = x2 - x1, y2 - y1  # 0 of a box thinner than a pixel, as far as float64 can tell
        share = width * height / (self.image.width * self.image.height)
        whole = x1 > 0 and y1 > 0 and x2 < self.image.width and y2 < self.image.height
        stout = whole and 0.4 * height < width < 2.5 * height
        good = self.item.object_status == "good" and stout and 0.12 < share < 0.6
        return not (good and self.agreement != "differ"), not self.silhouette


def _signed_degrees(angle: float) -> float:
    return math.degrees((angle + math.pi) % TWO_PI - math.pi)


class CardMaker:
    """Makes the cards of one page.

    Attributes:
        meshes: key -> mesh, of those that cards made so far turn.
        notes: of each object whose picture cannot be shown, in words.
    """

    def __init__(self, source: Source, long_side: int) -> None:
        self._source, self._long_side = source, long_side
        self._last: tuple[tuple[str, int], Mesh | None] | None = None
        self._number = 0
        self.meshes: dict[str, EmbeddedMesh] = {}
        self.notes: list[str] = []

    def cards(self, candidates: Sequence[tuple[AnnotatedPicture, ObjectAnnotation]]) -> Iterator[Card]:
        """Cards of the candidates in turn, without those whose picture cannot be shown."""
        for picture, item in candidates:
            try:
                image = embed(self._source.read(picture, item), self._long_side)
            except Unusable as error:
                rule = REASONS[error.reason].rule
                self.notes.append(f"{picture.image_id}, object {item.index}, is not shown: {rule}")
                continue
            yield self._card(picture, item, image)

    def _card(self, picture: AnnotatedPicture, item: ObjectAnnotation, image: Embedded) -> Card:
        mesh, remark, key = None, "", ""
        if item.cad_index is not None and not why_not_projected(asdict(item)):
            try:
                mesh = self._mesh(picture.category, item.cad_index)
            except MeshError as error:
                remark = f"No mesh: {error}; box and axes only."
        found = layers(asdict(item), mesh, (image.width, image.height), image.scale)
        if mesh is not None:
            key = f"{picture.category}/{item.cad_index:02d}"
            if key not in self.meshes:
                self.meshes[key] = embedded(mesh)
        faces = "" if found.faces is None else _embed_patch(found.faces)
        card = Card(self._number, picture, item, image, found, faces, key, remark or found.remark)
        self._number += 1
        return card

    def _mesh(self, category: str, cad_index: int) -> Mesh | None:
        """A mesh; the last one is kept, for the objects of a category come one after the other."""
        if self._last is None or self._last[0] != (category, cad_index):
            self._last = ((category, cad_index), self._source.mesh(category, cad_index))
        return self._last[1]


def embed(data: bytes, long_side: int) -> Embedded:
    """A picture's file as a small WebP.

    The orientation tag is not followed: annotations refer to stored pixels.

    Raises:
        Unusable: its pixels cannot be decoded.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            width, height = image.size
            image.draft("RGB", (long_side, long_side))  # JPEG: decode no larger than needed
            small = to_rgb(image).copy()  # which is free of the file
            small.thumbnail((long_side, long_side))
    except Exception as error:  # Pillow's decoders meet damaged pixels with many kinds of error
        raise Unusable("picture_unreadable") from error
    scale = min(1.0, long_side / max(width, height))
    return Embedded(_webp(small, quality=PICTURE_QUALITY), scale, width * scale, height * scale)


def _embed_patch(faces: Faces) -> str:
    """The shaded faces, with about as many pixels as the embedded picture has below them."""
    x1, y1, x2, y2 = faces.box
    size = (max(1, math.ceil(x2 - x1)), max(1, math.ceil(y2 - y1)))
    larger = faces.image.width > size[0]
    image = faces.image.resize(size, PIL.Image.Resampling.BOX) if larger else faces.image
    return _webp(image, quality=PATCH_QUALITY, alpha_quality=PATCH_ALPHA_QUALITY)


def _webp(image: PIL.Image.Image, **options: Any) -> str:
    target = io.BytesIO()
    image.save(target, "WEBP", method=4, **options)
    return base64.b64encode(target.getvalue()).decode("ascii")


def _path(points: NDArray) -> str:
    """Points (n, 2) as a stretch of an SVG path, to a tenth of a pixel."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
