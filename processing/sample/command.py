"""The `sample` stage: a small synthetic raw release whose picture, mesh, pose and box agree.

Meshes are put together by code, and pictures are rendered from the very vertices that stand in the .off files
with the very numbers that stand in the annotations. So whoever projects a mesh with its annotation finds the
object's pixels, and its box, exactly there. The tree has the layout of the v1.0 release.

What a category holds depends on the seed and its name; what a picture shows, on these and its index. So a
larger tree begins with the pictures of a smaller one. Categories come in a fixed order, known and unknown in
turn; a category's place in it and a picture's index in its category say where everything odd is:

    scenes.SCENES   what a picture shows: one object, several, one cut by the edge, one behind another
    ODDITIES        grey, CMYK, PNG, EXIF-turned and unlisted pictures; objects with missing or special fields
    EMPTY_LISTS     categories of which one split is empty, where that is asked for

The last third of each category's pictures is the validation split. An object's status is what its share of
visible pixels says (`scenes.STATUS_FROM_VISIBLE`), and a scene of three is dense. Every fifth picture has no
caption, nor has one category.
"""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image
from tqdm import tqdm

from ImageNet3D import CATEGORIES, KNOWN_CATEGORIES, SPLITS
from processing.runtime.store import UNFINISHED
from processing.sample import MARK
from processing.sample.pictures import draw_picture
from processing.sample.scenes import annotations_of, draw_scene
from processing.sample.shapes import SHAPES, draw_model, off_bytes

# --------------------------------------------------------------------------------------------------------
# What is where
# --------------------------------------------------------------------------------------------------------

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
    """Return all categories: known and unknown in turn, first those that a shape stands for."""
    shaped = chain.from_iterable(zip_longest(*(names.split() for names in SHAPES.values())))
    ordered = list(dict.fromkeys([*filter(None, shaped), *CATEGORIES]))
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
        scene = draw_scene(rng, place, index, models)
        picture = draw_picture(rng, scene)
        oddity = ODDITIES.get((place, index))
        _write_picture(out / "images" / name / f"{image_id}.JPEG", picture, oddity)
        annotations = annotations_of(name, scene, oddity)
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
