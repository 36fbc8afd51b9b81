"""The objects to be annotated, with what the release says of them, and the ways to choose among them."""

from __future__ import annotations

import json
import math
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import fsspec
import numpy as np

import ImageNet3D
from ImageNet3D import (
    CORRECTED_FIELDS,
    POSE_FIELDS,
    Correction,
    ObjectAnnotation,
    ReleaseError,
    read_corrections,
)
from processing.annotate.readings import ObjectKey
from processing.built import CORRECTIONS
from processing.drawing.draw import box_agreement
from processing.drawing.mesh import Mesh, MeshError
from processing.geometry import project
from processing.preview.selection import AnnotatedPicture, Source
from processing.preview.sources import open_source

USUAL_VIEWPOINT = 3000.0  # of the release, where an object has none; pixels
_FIRST_AZIMUTH, _FIRST_ELEVATION = math.radians(30), math.radians(10)  # three sides are seen
_FITTING_STEPS = 12


@dataclass(frozen=True)
class Item:
    """An object of the queue.

    Attributes:
        number: of the queue; it stays, whatever is added.
        annotation: what the source says of it, or the correction that adds it.
        released: field -> the release's value, as corrections name them.
        is_added: whether a correction adds it, which then stands for the release.
    """

    number: int
    picture: AnnotatedPicture
    annotation: ObjectAnnotation
    released: Mapping[str, Any]
    is_added: bool = False

    @property
    def key(self) -> ObjectKey:
        """The object."""
        return ObjectKey(self.picture.image_id, self.annotation.index)


@dataclass(frozen=True)
class Filter:
    """Which objects a person wants to see; an empty text or None stands for all.

    Attributes:
        category, split: names.
        status: of `OBJECT_STATUS`, or "none".
        density: "dense", "sparse" or "none".
        unposed: only those without a pose.
        below: only those whose box and mesh have a lower intersection over union than this.
        named: only those that were named in a file.
    """

    category: str = ""
    split: str = ""
    status: str = ""
    density: str = ""
    unposed: bool = False
    below: float | None = None
    named: bool = False


class Queue:
    """All objects of a raw release or built folder that have a box, and those that people add.

    They are shown in the order of its splits, those of a picture together.

    Args:
        path: of the release or the folder.
        named: a file that names objects, one a line: image_id and object_index with a blank between.

    Raises:
        ReleaseError: if it is neither, or the file names what is not there.
    """

    def __init__(self, path: str, named: str | None = None) -> None:
        self._source: Source = open_source(path)
        corrected = _released_values(path)
        self.items: list[Item] = []
        self._pictures: dict[str, AnnotatedPicture] = {}
        for picture in self._source.pictures():
            self._pictures[picture.image_id] = picture
            for item in picture.objects:
                values = {name: getattr(item, name) for name in CORRECTED_FIELDS}
                values["bbox"] = list(item.bbox)
                values |= corrected.get(ObjectKey(picture.image_id, item.index), {})
                self.items.append(Item(len(self.items), picture, item, values))
        self._numbers = {item.key: item.number for item in self.items}
        self._places = {image_id: place for place, image_id in enumerate(self._pictures)}
        self._growing = threading.Lock()
        self.named = frozenset(_named(named, self._numbers)) if named else frozenset()
        viewports = [v for item in self.items if (v := item.released["viewport"]) and v > 0]
        self._viewport = float(np.median(viewports)) if viewports else USUAL_VIEWPOINT
        self.mesh = lru_cache(maxsize=256)(self._mesh)
        self._agreement = lru_cache(maxsize=None)(self._agreement_of)

    @property
    def categories(self) -> list[str]:
        """Those that have an object."""
        return sorted({item.picture.category for item in self.items})

    def take_in(self, added: Iterable[Correction]) -> None:
        """Go on with objects that corrections add to the pictures; each is taken in once."""
        with self._growing:
            for line in added:
                key = ObjectKey(line.image_id, line.object_index)
                picture = self._pictures.get(line.image_id)
                if picture is None:
                    continue
                if (number := self._numbers.get(key)) is not None:  # a folder that was built with it
                    self.items[number] = replace(self.items[number], is_added=True)
                    continue
                values: dict[str, Any] = {name: line.new.get(name) for name in CORRECTED_FIELDS}
                annotation = ObjectAnnotation(line.object_index, **{**values, "bbox": tuple(values["bbox"])})
                self._numbers[key] = len(self.items)
                self.items.append(Item(len(self.items), picture, annotation, values, is_added=True))

    def num_objects(self, picture: AnnotatedPicture) -> int | None:
        """How many objects the source counts in a picture, usable or not; None where it cannot tell."""
        return self._source.num_objects(picture)

    def chosen(self, wanted: Filter) -> list[Item]:
        """The objects that a filter lets through, in the queue's order."""
        found = [item for item in self.items if self._is_chosen(item, wanted)]
        return sorted(found, key=lambda item: (self._places[item.key.image_id], item.annotation.index))

    def _is_chosen(self, item: Item, wanted: Filter) -> bool:
        released = item.released
        density = {True: "dense", False: "sparse", None: "none"}[released["dense"]]
        return (
            wanted.category in ("", item.picture.category)
            and wanted.split in ("", item.picture.split)
            and wanted.status in ("", released["object_status"] or "none")
            and wanted.density in ("", density)
            and (not wanted.unposed or not item.annotation.posed)
            and (not wanted.named or item.number in self.named)
            and (wanted.below is None or (self._agreement(item.number) or 0.0) < wanted.below)
        )

    def picture(self, item: Item) -> bytes:
        """The file that shows an object; Unusable if it cannot be used."""
        # A source finds a picture by an object of its own.
        shown = item.picture.objects[0] if item.is_added and item.picture.objects else item.annotation
        return self._source.read(item.picture, shown)

    def meshes(self, category: str) -> list[int]:
        """The CAD models of a category, from 1."""
        return self._source.meshes(category)

    def _mesh(self, category: str, cad_index: int) -> Mesh | None:
        """A CAD model; None if there is none that can be used."""
        try:
            return self._source.mesh(category, cad_index)
        except MeshError:
            return None

    def start(self, item: Item) -> dict[str, Any]:
        """Where a person begins: the release's values, and a good guess for what it has not."""
        return self.guess(item.picture.category, item.released)

    def guess(self, category: str, known: Mapping[str, Any]) -> dict[str, Any]:
        """An object's values, and a good guess for those that are not known.

        The object's centre in the middle of its box, at the distance at which the mesh fills the box.

        Args:
            known: field -> value or None; the `bbox` at least.
        """
        x1, y1, x2, y2 = known["bbox"]
        models = self.meshes(category)
        guess = {
            "azimuth": _FIRST_AZIMUTH,
            "elevation": _FIRST_ELEVATION,
            "theta": 0.0,
            "px": (x1 + x2) / 2,
            "py": (y1 + y2) / 2,
            "viewport": self._viewport,
            "cad_index": models[0] if models else None,
        }
        values = {**guess, **{name: v for name, v in known.items() if v is not None}}
        values = {name: values.get(name) for name in CORRECTED_FIELDS}
        if values["viewport"] <= 0:
            values["viewport"] = self._viewport
        if values["distance"] is None or values["distance"] <= 0:
            mesh = values["cad_index"] and self.mesh(category, values["cad_index"])
            values["distance"] = filling_distance(mesh or None, values)
        return values

    def _agreement_of(self, number: int) -> float | None:
        """Intersection over union of an object's box and mesh; None where there is no mesh to draw."""
        item = self.items[number]
        released = item.released
        if any(released[name] is None for name in (*POSE_FIELDS, "cad_index")):
            return None
        mesh = self.mesh(item.picture.category, released["cad_index"])
        if mesh is None or released["distance"] <= 0 or released["viewport"] <= 0:
            return None
        points, _ = project(mesh.vertices, *(released[name] for name in POSE_FIELDS))
        if not np.isfinite(points).all(axis=1).any():
            return 0.0
        size = item.picture.size or (math.inf, math.inf)
        return box_agreement(tuple(released["bbox"]), points, size)


def filling_distance(mesh: Mesh | None, values: Mapping[str, Any]) -> float:
    """The distance at which a mesh, else a ball of diameter 1, just fills a box at a pose; units of the mesh.

    Args:
        values: the pose, and the `bbox` to be filled.
    """
    x1, y1, x2, y2 = values["bbox"]
    box = np.maximum(np.abs([x2 - x1, y2 - y1]), 1.0)
    corners = np.array(np.meshgrid(*[(-0.5, 0.5)] * 3)).reshape(3, -1).T
    points = corners if mesh is None else mesh.vertices
    radius = float(np.linalg.norm(points, axis=1).max()) or 1.0
    distance = max(values["viewport"] * 2 * radius / float(box.max()), 1.1 * radius)
    azimuth, elevation, theta = (values[name] for name in ImageNet3D.ANGLES)
    for _ in range(_FITTING_STEPS):
        pixels, _ = project(points, azimuth, elevation, theta, distance, 0.0, 0.0, values["viewport"])
        # Widths shrink with the distance, nearly in proportion where the camera is far.
        distance = max(distance * float((np.ptp(pixels, axis=0) / box).max()), 1.01 * radius)
    return distance


def _released_values(path: str) -> dict[ObjectKey, dict[str, Any]]:
    """What the release has where a built folder has corrections of it; empty for any other source."""
    fs, location = fsspec.core.url_to_fs(path)
    released: dict[ObjectKey, dict[str, Any]] = defaultdict(dict)
    if not fs.isfile(f"{location.rstrip('/')}/{CORRECTIONS}"):
        return released
    for line in read_corrections(f"{path.rstrip('/')}/{CORRECTIONS}"):
        released[ObjectKey(line.image_id, line.object_index)] |= line.old
    return released


def _named(path: str, numbers: Mapping[ObjectKey, int]) -> Sequence[int]:
    """The numbers of the objects that a file names."""
    found, wrong = [], []
    try:
        text = Path(path).read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ReleaseError(f"{path}: is no UTF-8 ({error.reason}); write it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        image_id, _, index = line.strip().rpartition(" ")
        key = ObjectKey(image_id.strip(), int(index)) if index.isdecimal() else None
        if key is not None and key in numbers:
            found.append(numbers[key])
        elif line.strip():
            wrong.append(f"{path}, line {number}: {json.dumps(line[:80])} names no object with a box")
    if wrong:
        remedy = "write an image_id and an object_index, such as bed/n02818832_13 0"
        raise ReleaseError("\n".join([*wrong, remedy]))
    return found
