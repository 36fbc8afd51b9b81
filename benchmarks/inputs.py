"""Raw trees of any size to measure on: a small one, its pictures repeated under names of their own."""

import json
from itertools import cycle, islice
from pathlib import Path

from ImageNet3D import MAX_ANNOTATION_BYTES, MAX_PICTURE_BYTES, SPLITS, Entry, RawTree, Survey, survey
from processing.sample.command import write_sample

CATEGORIES, IMAGES_PER_CATEGORY = 24, 8  # of the synthetic tree that is repeated


def synthetic(out: Path) -> str:
    """A small synthetic raw tree, some 16 KB a picture."""
    write_sample(out, CATEGORIES, IMAGES_PER_CATEGORY)
    return str(out)


def replicate(raw: str, out: Path, pictures: int, captions: str | None = None) -> str:
    """Write a raw tree of so many pictures, from those of another, each with its annotation and caption.

    A copy's JPEG has its number in a comment, so that no two pictures are the same bytes. What a tree has
    that no list names is left out.
    """
    found = survey(RawTree(raw), captions)
    tree = found.release.tree
    for name in sorted(found.release.meshes):
        _write(out / name, tree.read(name, 2**31, "picture_too_large"))
    lists: dict[str, list[str]] = {}
    captions: dict[str, str] = {}
    for number, (entry, picture, annotation) in enumerate(islice(cycle(_read(found)), pictures)):
        image_id = f"{entry.image_id}x{number:07d}"
        _write(out / f"images/{image_id}.JPEG", _numbered(picture, number))
        _write(out / f"annotations/{image_id}.npz", annotation)
        split = {"train": "train", "validation": "val"}[entry.split]
        lists.setdefault(f"{entry.category}_imagenet_{split}.txt", []).append(image_id.partition("/")[2])
        if entry.caption:
            captions[image_id] = entry.caption
    for name, stems in lists.items():
        _write(out / "lists" / name, "".join(f"{stem}\n" for stem in stems).encode())
    if captions:
        _write(out / "captions" / "image_captions.json", json.dumps(captions).encode())
    return str(out)


def _read(found: Survey) -> list[tuple[Entry, bytes, bytes]]:
    """Picture and annotation of every entry."""
    tree = found.release.tree
    return [
        (
            entry,
            tree.read(entry.picture_file, MAX_PICTURE_BYTES, "picture_too_large"),
            tree.read(entry.annotation_file, MAX_ANNOTATION_BYTES, "annotation_too_large"),
        )
        for split in SPLITS
        for entry in found.entries[split]
    ]


def _numbered(picture: bytes, number: int) -> bytes:
    """A JPEG with a comment after its first marker; other pictures as they are."""
    text = f"{number:08d}".encode()
    comment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    return picture[:2] + comment + picture[2:] if picture.startswith(b"\xff\xd8") else picture


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
