"""What the rows must be, read from an unpacked raw tree in the plainest way: numpy, Pillow and text lists.

Nothing here calls the code under test but for the names of the categories. The trees are our own, so their
pickles may be loaded with full power.
"""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ImageNet3D import KNOWN_CATEGORIES

POSE = ("azimuth", "elevation", "theta", "distance", "px", "py", "viewport")
STATUS = {f"status_{name}": name for name in ("good", "partially", "barely", "bad")}
DENSITY = {"dense_yes": True, "dense_no": False}

Rows = dict[tuple[str, int], dict[str, Any]]


def reference_rows(tree: Path, captions: Path) -> dict[tuple[str, str], Rows]:
    """(config, split) -> (image id, object index or -1) -> row, for every config."""
    by_picture = json.loads((captions / "image_captions.json").read_text("utf-8"))
    by_category = json.loads((captions / "category_captions.json").read_text("utf-8"))
    tables: dict[tuple[str, str], Rows] = {}
    for listed in sorted(tree.glob("lists/*_imagenet_*.txt")):
        category, word = listed.stem.rsplit("_imagenet_", 1)
        split = {"train": "train", "val": "validation"}[word]
        for stem in listed.read_text("utf-8").split():
            image_id = f"{category}/{stem}"
            picture = _picture(tree / "images" / f"{image_id}.JPEG")
            raw = np.load(tree / "annotations" / f"{image_id}.npz", allow_pickle=True)["annotations"]
            objects = [_object(index, item) for index, item in enumerate(raw)]
            head = {"image_id": image_id, **picture}
            for config in _configs(category, split):
                rows = tables.setdefault((config, split), {})
                for item in objects:
                    if None not in (item["azimuth"], item["elevation"], item["theta"]):
                        kind = {"category": category, "known": category in KNOWN_CATEGORIES}
                        rows[image_id, item["object_index"]] = {**head, **kind, **item}
            counted = {**head, "label": category, "num_objects": len(raw)}
            tables.setdefault(("classification", split), {})[image_id, -1] = counted
            texts = {"caption": by_picture.get(image_id), "category_caption": by_category.get(category)}
            if set(texts.values()) != {None}:
                row = {**head, **texts, "category": category, "objects": objects}
                tables.setdefault(("captions", split), {})[image_id, -1] = row
    return {key: rows for key, rows in tables.items() if rows}


def reference_meshes(tree: Path) -> Rows:
    """(category, cad_index) -> row of cad, without its thumbnail."""
    rows: Rows = {}
    for file in sorted(tree.glob("CAD/*/*.off")):
        vertices, faces = read_off(file)
        used = vertices[sorted({index for face in faces for index in face})]
        name = file.parent.name
        checksum = hashlib.sha256(vertices.astype("<f4").tobytes()).hexdigest()
        rows[name, int(file.stem)] = {
            "category": name,
            "cad_index": int(file.stem),
            "mesh": {"path": f"{name}_{file.stem}.glb", "vertices": checksum},
            "num_vertices": len(vertices),
            "num_faces": sum(len(face) - 2 for face in faces),
            "bounds": [used.min(axis=0).tolist(), used.max(axis=0).tolist()],
            "decoded": [256, 256],
        }
    return rows


def reference_categories(tree: Path, captions: Path, tables: dict[tuple[str, str], Rows]) -> Rows:
    """(category, -1) -> row of categories, counted in the rows of pose and classification."""
    by_category = json.loads((captions / "category_captions.json").read_text("utf-8"))
    rows: Rows = {}
    for name in sorted({file.parent.name for file in (*tree.glob("CAD/*/*"), *tree.glob("images/*/*"))}):
        caption = by_category.get(name)
        row = {"name": name, "category": name, "known": name in KNOWN_CATEGORIES, "caption": caption}
        for split in ("train", "validation"):
            pictures = tables.get(("classification", split), {}).values()
            objects = tables.get(("pose", split), {}).values()
            own = [item["object_status"] for item in objects if item["category"] == name]
            row[f"{split}_pictures"] = sum(picture["label"] == name for picture in pictures)
            row[f"{split}_objects"] = len(own)
            for status in STATUS.values():
                row[f"{split}_{status}"] = own.count(status)
            row[f"{split}_no_status"] = own.count(None)
        rows[name, -1] = {**row, "num_meshes": len(list(tree.glob(f"CAD/{name}/*.off")))}
    return rows


def _configs(category: str, split: str) -> list[str]:
    if category in KNOWN_CATEGORIES:
        return ["pose", "open_vocab_known"]
    return ["pose", "open_vocab_unknown"] if split == "validation" else ["pose"]


def _picture(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
    return {
        "image": hashlib.sha256(data).hexdigest(),
        "width": width,
        "height": height,
        "decoded": [width, height],
    }


def _object(index: int, item: dict[str, Any]) -> dict[str, Any]:
    cad_index = item.get("cad_index")
    return {
        "object_index": index,
        "bbox": [float(value) for value in item["bbox"]],
        **{name: None if item.get(name) is None else float(item[name]) for name in POSE},
        "cad_index": None if cad_index is None else int(cad_index),
        "object_status": STATUS.get(item.get("object_status")),
        "dense": DENSITY.get(item.get("dense")),
    }


def read_off(path: Path) -> tuple[np.ndarray, list[list[int]]]:
    """Vertices and polygons of an OFF file without comments, read in the plainest way."""
    words = path.read_text("ascii").split()
    num_vertices, num_faces = int(words[1]), int(words[2])
    at = 4 + 3 * num_vertices
    vertices = np.array(words[4:at], np.float64).reshape(-1, 3)
    faces = []
    for _ in range(num_faces):
        count = int(words[at])
        faces.append([int(word) for word in words[at + 1 : at + 1 + count]])
        at += 1 + count
    return vertices, faces
