"""Scenes of a synthetic release: which mesh stands where, and what the release says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from processing.drawing.raster import rasterize
from processing.geometry import (
    TWO_PI,
    project,
    wrap_angle,
)
from processing.sample.shapes import Model

# A picture of index i in the category at place k shows SCENES[(k + i) % 6].
SCENES = ("alone", "group", "alone", "cut", "alone", "behind")

# How much of a cut object is left in the picture, by the category's place: partially, barely, bad.
CUT_VISIBLE = (0.7, 0.35, 0.1)
STATUS_FROM_VISIBLE = (
    (0.9, "status_good"),
    (0.5, "status_partially"),
    (0.2, "status_barely"),
    (0.0, "status_bad"),
)
SIZES = ((400, 300), (300, 400), (320, 320), (500, 333), (240, 180), (256, 384))  # width, height
VIEWPORT = 3000  # focal length in pixels, the release's


@dataclass(frozen=True)
class Placed:
    """A model before the annotated camera, whose numbers have the types of the release."""

    model: Model
    cad_index: int  # from 1
    azimuth: float  # radians, [0, 2π)
    elevation: np.float64  # radians, [0, 2π): 2π - 0.1 is seen from below
    theta: float  # radians, [0, 2π)
    distance: np.float64  # units of the model
    px: float  # pixels
    py: np.float32  # pixels; rounded before rendering, so that the picture agrees with it

    @property
    def viewpoint(self) -> tuple[float, float, float]:
        """Azimuth, elevation and theta, radians."""
        return self.azimuth, float(self.elevation), self.theta

    def project(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return where the vertices land, (M, 2) pixels and (M,) depth."""
        camera = (*self.viewpoint, self.distance, self.px, self.py, VIEWPORT)
        return project(self.model.vertices, *camera)


@dataclass(frozen=True)
class Scene:
    """What a picture shows."""

    size: tuple[int, int]  # width, height, pixels
    objects: tuple[Placed, ...]


def draw_scene(rng: np.random.Generator, place: int, index: int, models: Sequence[Model]) -> Scene:
    """Place one to three objects of a category in a picture."""
    size = SIZES[rng.integers(len(SIZES))]
    width, height = size
    kind = SCENES[(place + index) % len(SCENES)]
    first = int(rng.integers(len(models)))
    x, y = np.array(size) * rng.uniform(0.46, 0.54, 2)
    extent = min(size) * rng.uniform(0.9, 1.05)
    if kind == "group":
        count = 3 if place % 2 == 0 else 2
        slot = width / count
        extent = min(slot * 1.1, height * 0.8)
        objects = [_placed(rng, models, first + i, extent, slot * (i + 0.5), y) for i in range(count)]
    elif kind == "behind":
        # The difference in size puts a gap in depth between the two, so that they do not run into each other.
        side = rng.choice((-1, 1)) * rng.uniform(0.3, 0.5) * extent
        hidden = _placed(rng, models, first, extent * 0.85, x - side / 2, y - 0.05 * height)
        objects = [hidden, _placed(rng, models, first + 1, extent * 1.05, x + side / 2, y + 0.05 * height)]
    else:
        objects = [_placed(rng, models, first, extent, x, y)]
    if kind == "cut":
        objects = [_over_the_edge(rng, objects[0], size, CUT_VISIBLE[place % len(CUT_VISIBLE)])]
    return Scene(size, tuple(objects))


def _placed(
    rng: np.random.Generator, models: Sequence[Model], which: int, extent: float, x: float, y: float
) -> Placed:
    """Place a model with its centre at (x, y), so far away that its bounding sphere is extent pixels wide."""
    which %= len(models)
    return Placed(
        model=models[which],
        cad_index=which + 1,
        azimuth=float(rng.uniform(0, TWO_PI)),
        elevation=np.float64(wrap_angle(rng.uniform(-0.12, 0.6))),
        theta=float(wrap_angle(rng.normal(0, 0.08))),
        distance=np.float64(VIEWPORT / extent),  # the model's bounding box has the diagonal 1
        px=float(x),
        py=np.float32(y),
    )


def _over_the_edge(rng: np.random.Generator, whole: Placed, size: tuple[int, int], share: float) -> Placed:
    """Push an object over one edge of the picture until a share of its pixels is left in it."""
    mask, offset = _silhouette(whole)
    axis = int(rng.integers(2))  # 0 over the left or right edge, 1 over the upper or lower
    inside_first = bool(rng.integers(2))  # whether the object's left, or upper, part stays in the picture
    pixels = np.cumsum(mask.sum(axis=axis)) / mask.sum()
    border = offset[axis] + np.searchsorted(pixels, share if inside_first else 1 - share) + 1
    shift = (size[axis] if inside_first else 0) - border
    if axis == 0:
        return replace(whole, px=float(whole.px + shift))
    return replace(whole, py=np.float32(whole.py + shift))


def _silhouette(placed: Placed) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Return the object's mask beyond the picture's edges too, and the pixel x, y where the mask begins."""
    points, depth = placed.project()
    offset = np.floor(points.min(axis=0)).astype(np.int64)
    width, height = np.ceil(points.max(axis=0)).astype(np.int64) - offset
    return rasterize(points - offset, depth, placed.model.faces, (width, height)).face >= 0, offset


def _visible_shares(scene: Scene) -> list[float]:
    """Return how much of each object's silhouette neither the picture's edge nor another object hides."""
    points, depth, faces, owner = one_mesh(scene)
    seen = rasterize(points, depth, faces, scene.size).face
    visible = np.bincount(owner[seen[seen >= 0]], minlength=len(scene.objects))
    return [
        count / _silhouette(placed)[0].sum() for count, placed in zip(visible, scene.objects, strict=True)
    ]


def one_mesh(scene: Scene) -> tuple[NDArray, ...]:
    """Join all objects' projections to one mesh: points (M, 2), depth (M,), faces (F, 3), owner (F,)."""
    projected = [placed.project() for placed in scene.objects]
    points, depth = (np.concatenate(parts) for parts in zip(*projected, strict=True))
    counts = [len(placed.model.vertices) for placed in scene.objects]
    starts = np.cumsum([0, *counts[:-1]])
    faces = [placed.model.faces + start for placed, start in zip(scene.objects, starts, strict=True)]
    owner = np.repeat(np.arange(len(faces)), [len(part) for part in faces])
    return points, depth, np.concatenate(faces), owner


def annotations_of(category: str, scene: Scene, oddity: str | None) -> list[dict[str, Any]]:
    """Describe the scene as the release does; an oddity in the fields befalls the last object."""
    dense = "dense_yes" if len(scene.objects) > 2 else "dense_no"
    visible = _visible_shares(scene)
    annotations = []
    for placed, share in zip(scene.objects, visible, strict=True):
        status = next(status for least, status in STATUS_FROM_VISIBLE if share >= least)
        rated = {"object_status": status, "dense": dense}
        annotations.append(_boxed(category, placed, scene.size) | _posed(placed) | rated)
    last = annotations[-1]
    if oddity == "box_only":
        annotations[-1] = _boxed(category, scene.objects[-1], scene.size)
    elif oddity in ("no_status", "no_dense"):
        del last["object_status" if oddity == "no_status" else "dense"]
    elif oddity == "ignored":
        last["ignore"] = 1
    elif oddity == "no_distance":
        last["distance"] = 0.0
    return annotations


def _boxed(category: str, placed: Placed, size: tuple[int, int]) -> dict[str, Any]:
    """The fields every object has. The box is that of the projected mesh, clipped to the picture."""
    width, height = size
    points, _ = placed.project()
    bbox = np.clip([*points.min(axis=0), *points.max(axis=0)], 0, [width, height, width, height])
    return {"class": category, "height": np.uint16(height), "width": np.uint16(width), "bbox": bbox}


def _posed(placed: Placed) -> dict[str, Any]:
    """The fields of a posed object, with the mixture of types that the release has."""
    return {
        "azimuth": placed.azimuth,
        "elevation": placed.elevation,
        "theta": placed.theta,
        "distance": placed.distance,
        "px": placed.px,
        "py": placed.py,
        "principal": np.array([placed.px, placed.py], dtype=np.float64),
        "focal": 1,
        "viewport": VIEWPORT,
        "cad_index": placed.cad_index,
        "ignore": 0,
    }
