"""The `sample` stage: a small synthetic raw release whose picture, mesh, pose and box agree.

Meshes are put together by code, and pictures are rendered from the very vertices that stand in the .off files
with the very numbers that stand in the annotations. So whoever projects a mesh with its annotation finds the
object's pixels, and its box, exactly there. The tree has the layout of the v1.0 release.

What a category holds depends on the seed and its name; what a picture shows, on these and its index. So a
larger tree begins with the pictures of a smaller one. Categories come in a fixed order, known and unknown in
turn; a category's place in it and a picture's index in its category say where everything odd is:

    SCENES          what a picture shows: one object, several, one cut by the edge, one behind another
    ODDITIES        grey, CMYK, PNG, EXIF-turned and unlisted pictures; objects with missing or special fields
    EMPTY_LISTS     categories of which one split is empty, where that is asked for

The last third of each category's pictures is the validation split. An object's status is what its share of
visible pixels says (`STATUS_FROM_VISIBLE`), and a scene of three is dense. Every fifth picture has no
caption, nor has one category.
"""

from __future__ import annotations

import colorsys
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image
from tqdm import tqdm

from ImageNet3D import CATEGORIES, KNOWN_CATEGORIES, SPLITS
from processing.drawing.raster import LIGHT, rasterize, render, shade
from processing.geometry import (
    TWO_PI,
    camera_position,
    project,
    rotation_from_viewpoint,
    wrap_angle,
)
from processing.runtime.store import UNFINISHED
from processing.sample import MARK
from processing.sample.shapes import Model, draw_model, off_bytes

# --------------------------------------------------------------------------------------------------------
# What is where
# --------------------------------------------------------------------------------------------------------

# Categories whose mesh is their own come first, so that a small tree shows them.
FIRST_CATEGORIES = ("car", "chair", "teapot", "desk_lamp", "aeroplane", "cup", "bed", "cone")

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

# (place of the category, index of the picture): what is odd about it.
ODDITIES: Mapping[tuple[int, int], str] = {
    (0, 1): "grey",
    (1, 1): "cmyk",
    (2, 1): "png",  # in a file named .JPEG
    (3, 1): "exif",  # a tag asks viewers to turn the picture; the box is right in the stored pixels
    (4, 1): "unlisted",  # in no split
    (4, 3): "box_only",  # the last of three objects has a box and no pose
    (5, 1): "box_only",  # the only object
    (6, 1): "no_status",
    (7, 1): "no_dense",
    (8, 1): "ignored",
    (9, 1): "no_distance",  # distance 0: never placed in depth; all else is right
}
# Place of the category: which of its splits is empty. The authors' own code cannot read an empty list.
EMPTY_LISTS: Mapping[int, str] = {8: "validation", 10: "validation", 11: "train"}
CATEGORY_WITHOUT_CAPTION = 3

SIZES = ((400, 300), (300, 400), (320, 320), (500, 333), (240, 180), (256, 384))  # width, height
VIEWPORT = 3000  # focal length in pixels, the release's
MESHES_PER_CATEGORY = 3
ORIENTATION_TURNED = 6  # EXIF: turn by 90 degrees clockwise to view

# --------------------------------------------------------------------------------------------------------
# The tree
# --------------------------------------------------------------------------------------------------------


def write_sample(
    out: str | Path,
    categories: int = 12,
    images_per_category: int = 6,
    seed: int = 0,
    empty_lists: bool = False,
) -> None:
    """Write a synthetic raw tree; the same arguments write the same bytes.

    Args:
        out: folder to write, new or empty.
        categories: how many, 1 to all of `ImageNet3D.CATEGORIES`.
        images_per_category: pictures in each, at least 2, so that each is trained on and validated on.
        seed: what the random numbers start from, at least 0.
        empty_lists: leave the splits of `EMPTY_LISTS` without pictures. A category may then have a single
            picture, which is for training in known categories, for validation in the others.

    Raises:
        FileExistsError: out is a file, or a folder that is not empty.
        ValueError: a number is out of its range.
    """
    out = Path(out)
    if not 1 <= categories <= len(CATEGORIES):
        raise ValueError(f"categories is {categories}; give 1 to {len(CATEGORIES)}")
    if images_per_category < 1 or seed < 0:
        raise ValueError(f"images_per_category is {images_per_category} and seed {seed}; give >= 1 and >= 0")
    if images_per_category == 1 and not empty_lists:
        raise ValueError("images_per_category is 1, so that lists would be empty; give 2, or empty lists too")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder: name a new one, or remove it first")
    # Written aside, so that what an interruption leaves is not taken for a tree.
    aside = out.absolute().with_name(f".{out.absolute().name}{UNFINISHED}")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write_tree(aside, category_order()[:categories], images_per_category, seed, empty_lists)
        out.mkdir(parents=True, exist_ok=True)
        for folder in sorted(aside.iterdir()):
            folder.replace(out / folder.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _write_tree(
    out: Path, names: Sequence[str], images_per_category: int, seed: int, empty_lists: bool
) -> None:
    image_captions: dict[str, str] = {}
    with tqdm(total=len(names) * images_per_category, unit="picture", disable=None) as progress:
        for place, name in enumerate(names):
            empty = EMPTY_LISTS.get(place) if empty_lists else None
            for image_id, caption in _write_category(out, place, name, images_per_category, seed, empty):
                image_captions |= {f"{name}/{image_id}": caption} if caption else {}
                progress.update()
    category_captions = {
        name: f"{'An' if name[0] in 'aeiou' else 'A'} {_words(name)}, drawn by code; azimuth 0 is its front."
        for place, name in enumerate(names)
        if place != CATEGORY_WITHOUT_CAPTION
    }
    _write_json(out / "captions" / "category_captions.json", category_captions)
    _write_json(out / "captions" / "image_captions.json", image_captions)
    _write_bytes(out / MARK, b"Pictures and annotations were drawn by code, to try things on.\n")


def category_order() -> list[str]:
    """Return all categories: known and unknown in turn, those with a mesh of their own first."""
    ordered = list(dict.fromkeys([*FIRST_CATEGORIES, *CATEGORIES]))
    known = [name for name in ordered if name in KNOWN_CATEGORIES]
    unknown = [name for name in ordered if name not in KNOWN_CATEGORIES]
    return [name for name in chain.from_iterable(zip_longest(known, unknown)) if name]


def _write_category(
    out: Path, place: int, name: str, count: int, seed: int, empty: str | None
) -> Iterator[tuple[str, str | None]]:
    """Write the files of one category but for the captions; yield each picture's id and caption.

    Args:
        empty: the split that has no picture.
    """
    rng = _generator(seed, name)
    models = [draw_model(name, rng) for _ in range(MESHES_PER_CATEGORY)]
    for cad_index, model in enumerate(models, start=1):
        _write_bytes(out / "CAD" / name / f"{cad_index:02d}.off", off_bytes(model))
    synset = f"n{rng.integers(2_700_000, 4_600_000):08d}"
    lists: dict[str, list[str]] = {split: [] for split in SPLITS}
    number = 0
    for index in range(count):
        rng = _generator(seed, name, index)
        number += int(rng.integers(1, 200))
        image_id = f"{synset}_{number}"
        split = _split(place, index, count, empty)
        if split:
            lists[split].append(image_id)
        scene = _scene(rng, place, index, models)
        picture = _picture(rng, scene)
        oddity = ODDITIES.get((place, index))
        _write_picture(out / "images" / name / f"{image_id}.JPEG", picture, oddity)
        annotations = _annotations(name, scene, oddity)
        _write_annotations(out / "annotations" / name / f"{image_id}.npz", annotations)
        yield image_id, _caption(name, len(annotations)) if index % 5 != 4 else None
    for split, listed in SPLITS.items():
        _write_bytes(out / "lists" / f"{name}_imagenet_{listed}.txt", "\n".join(lists[split]).encode())


def _generator(seed: int, name: str, *index: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), *index])


def _split(place: int, index: int, count: int, empty: str | None) -> str | None:
    """Return the split that lists a picture, None for the one that no list names."""
    if ODDITIES.get((place, index)) == "unlisted" and count > 2:
        return None
    if empty is not None:
        (split,) = (split for split in SPLITS if split != empty)
        return split
    if count == 1:
        return "train" if place % 2 == 0 else "validation"
    return "validation" if index >= count - max(1, count // 3) else "train"


def _caption(name: str, objects: int) -> str:
    others = f", with {objects - 1} more nearby" if objects > 1 else ""
    return f"A rendering of {_words(name)}: <obj0> is the {_words(name)}{others}."


def _words(name: str) -> str:
    return name.replace("_", " ")


def _write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _write_json(path: Path, captions: Mapping[str, str]) -> None:
    _write_bytes(path, json.dumps(captions, indent=0, sort_keys=True).encode())


def _write_picture(path: Path, picture: NDArray[np.uint8], oddity: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(picture)
    if oddity in ("grey", "cmyk"):
        image = image.convert({"grey": "L", "cmyk": "CMYK"}[oddity])
    if oddity == "png":
        image.save(path, "PNG")
        return
    # Colour at full resolution, so that it does not bleed over the outlines.
    options: dict[str, Any] = {"quality": 92, "subsampling": 0}
    if oddity == "exif":
        options["exif"] = Image.Exif()
        options["exif"][ExifTags.Base.Orientation] = ORIENTATION_TURNED
    image.save(path, "JPEG", **options)


def _write_annotations(path: Path, annotations: Sequence[Mapping[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = np.empty(len(annotations), dtype=object)
    objects[:] = annotations
    np.savez(path, annotations=objects)


# --------------------------------------------------------------------------------------------------------
# Scenes: which mesh stands where
# --------------------------------------------------------------------------------------------------------


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


def _scene(rng: np.random.Generator, place: int, index: int, models: Sequence[Model]) -> Scene:
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
        objects = [_cut(rng, objects[0], size, CUT_VISIBLE[place % len(CUT_VISIBLE)])]
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


def _cut(rng: np.random.Generator, whole: Placed, size: tuple[int, int], share: float) -> Placed:
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
    points, depth, faces, owner = _joined(scene)
    seen = rasterize(points, depth, faces, scene.size).face
    visible = np.bincount(owner[seen[seen >= 0]], minlength=len(scene.objects))
    return [
        count / _silhouette(placed)[0].sum() for count, placed in zip(visible, scene.objects, strict=True)
    ]


def _joined(scene: Scene) -> tuple[NDArray, ...]:
    """Join all objects' projections to one mesh: points (M, 2), depth (M,), faces (F, 3), owner (F,)."""
    projected = [placed.project() for placed in scene.objects]
    points, depth = (np.concatenate(parts) for parts in zip(*projected, strict=True))
    counts = [len(placed.model.vertices) for placed in scene.objects]
    starts = np.cumsum([0, *counts[:-1]])
    faces = [placed.model.faces + start for placed, start in zip(scene.objects, starts, strict=True)]
    owner = np.repeat(np.arange(len(faces)), [len(part) for part in faces])
    return points, depth, np.concatenate(faces), owner


def _annotations(category: str, scene: Scene, oddity: str | None) -> list[dict[str, Any]]:
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


# --------------------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------------------


def _picture(rng: np.random.Generator, scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene over a background: (height, width, 3), RGB."""
    width, height = scene.size
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))](rng, width, height)
    colors = np.concatenate([_face_colors(rng, placed) for placed in scene.objects])
    points, depth, faces, _ = _joined(scene)
    drawn = render(points, depth, faces, colors, scene.size) / 255
    alpha = drawn[..., 3:]
    picture = np.clip(background, 0, 1) * (1 - alpha) + drawn[..., :3] * alpha
    return np.rint(picture * 255).astype(np.uint8)


def _face_colors(rng: np.random.Generator, placed: Placed) -> NDArray[np.float64]:
    """Return (F, 3): each tone of the model in colours drawn for this picture, lit from above the camera."""
    hue = rng.random()
    tones = np.array(
        [
            colorsys.hsv_to_rgb(hue, rng.uniform(0.6, 0.85), rng.uniform(0.65, 0.9)),
            colorsys.hsv_to_rgb((hue + rng.choice((-0.08, 0.08, 0.5))) % 1, rng.uniform(0.5, 0.75), 0.55),
            (0.17, 0.18, 0.22),
            (1.0, 0.94, 0.74),
        ]
    )
    model = placed.model
    eye = camera_position(placed.azimuth, placed.elevation, placed.distance)
    light = np.array(LIGHT) @ rotation_from_viewpoint(*placed.viewpoint)  # camera space to object space
    return shade(model.vertices, model.faces, tones[model.tones], eye, light)


def _pastel(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a pale colour, which objects, being vivid or dark, stand out against."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.04, 0.22), rng.uniform(0.74, 0.88)))


def _grid(width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels' y, (height, 1), and x, (1, width), from 0 to 1."""
    return np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]


def _blend(share: ArrayLike, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Mix two colours, (3,) or (height, width, 3), by shares (height, width) of the second one."""
    share = np.asarray(share, dtype=np.float64)[..., None]
    return np.asarray(first, np.float64) * (1 - share) + np.asarray(second, np.float64) * share


def _gradient(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    y, x = _grid(width, height)
    angle = rng.uniform(0, TWO_PI)
    ramp = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    return _blend(np.clip(ramp + 0.5, 0, 1), _pastel(rng), _pastel(rng) * 0.8)


def _checker(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    side = int(rng.integers(16, 40))
    squares = (np.arange(height)[:, None] // side + np.arange(width)[None, :] // side) % 2
    color = _pastel(rng)
    return _blend(squares, color, color * 0.88)


def _room(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    """A wall that darkens upwards and a tiled floor that recedes towards it."""
    y, x = _grid(width, height)
    horizon = rng.uniform(0.5, 0.7)
    wall, floor = _pastel(rng), _pastel(rng)
    below = np.maximum(y - horizon, 1e-3)
    tiles = (np.floor(0.5 / below) + np.floor((x - 0.5) * 1.5 / below)) % 2
    # Tiles far away are smaller than a pixel: fade them out instead.
    tiles *= np.clip(below * 6, 0, 1)
    upright = _blend(np.broadcast_to(1 - y / horizon, (height, width)) * 0.25, wall, wall * 0)
    return np.where((y > horizon)[..., None], _blend(tiles, floor * 0.95, floor * 0.78), upright)


# Each draws (height, width, 3), RGB about [0, 1].
BACKGROUNDS: Sequence[Callable[[np.random.Generator, int, int], NDArray[np.float64]]] = (
    _gradient,
    _checker,
    _room,
)
