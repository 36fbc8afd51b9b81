"""Croissant metadata of the built folder: its files, records and fields, and how the data came about.

Plain JSON-LD, which `mlcroissant` reads; its words are in dataset_card/croissant.yaml. Files are found in a
clone of the repository, or in a folder that stands for it:

    mlcroissant.Dataset("ImageNet3D/croissant.json", mapping={"repository": "ImageNet3D"})
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import yaml

import dataset_card
import ImageNet3D
from ImageNet3D import OBJECT_STATUS
from processing.built import shard_glob
from processing.card.columns import COLUMNS, meaning
from processing.card.description import DOI, PAPER, Description
from processing.configs import DESCRIPTIONS, config_features

WORDS = Path(dataset_card.__file__).with_name("croissant.yaml")
REPOSITORY_ID = "repository"

# The columns that key a record.
_KEYS = (("image_id", "object_index"), ("image_id",), ("category", "cad_index"), ("name",))

_SCALARS = {
    "bool": "sc:Boolean",
    "float64": "cr:Float64",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "string": "sc:Text",
    "binary": "sc:Text",
}


def render_croissant(description: Description) -> bytes:
    """The content of croissant.json."""
    sizes = description.sizes
    home = f"https://huggingface.co/datasets/{description.repository}"
    metadata = {
        **yaml.safe_load(WORDS.read_text("utf-8")),
        "url": home,
        "sameAs": [f"https://doi.org/{DOI}", f"https://arxiv.org/abs/{PAPER}"],
        "version": description.version,
        "citeAs": ImageNet3D.CITATION,
        "distribution": [_repository(home, description.checksum), *map(_file_set, sizes, sizes.values())],
        "recordSet": [
            _names("category_names", description.categories),
            _names("object_status_names", OBJECT_STATUS),
            *(_split_set(config, splits) for config, splits in sizes.items()),
            *(_record_set(config, splits) for config, splits in sizes.items()),
        ],
    }
    return json.dumps(metadata, indent=1, ensure_ascii=False).encode() + b"\n"


# --------------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------------


def _repository(home: str, checksum: str) -> dict[str, Any]:
    """The repository as a whole; the format wants a checksum of it, too."""
    return {
        "@type": "cr:FileObject",
        "@id": REPOSITORY_ID,
        "name": REPOSITORY_ID,
        "description": "The repository on the Hugging Face Hub, which asks for a login and consent to its "
        "terms. The checksum is that of lines `sha256  path` of its Parquet files, in the order of paths.",
        "contentUrl": home,
        "encodingFormat": "git+https",
        "sha256": checksum,
    }


def _file_set(config: str, splits: Iterable[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": _files_of(config),
        "name": _files_of(config),
        "description": f"Parquet files of the config {config}.",
        "containedIn": {"@id": REPOSITORY_ID},
        "encodingFormat": "application/x-parquet",
        "includes": [shard_glob(config, split) for split in splits],
    }


def _files_of(config: str) -> str:
    return f"files-of-{config}"


# --------------------------------------------------------------------------------------------------------
# Records
# --------------------------------------------------------------------------------------------------------


def _names(name: str, labels: Iterable[str]) -> dict[str, Any]:
    """What the ids of a ClassLabel stand for, whose records are in the metadata itself."""
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": "What the ids of a column of labels stand for.",
        "dataType": "sc:Enumeration",
        "key": {"@id": f"{name}/id"},
        "field": [_plain_field(f"{name}/id", "sc:Integer"), _plain_field(f"{name}/name", "sc:Text")],
        "data": [{f"{name}/id": i, f"{name}/name": label} for i, label in enumerate(labels)],
    }


def _splits_of(config: str) -> str:
    return f"splits-of-{config}"


def _split_set(config: str, splits: Iterable[str]) -> dict[str, Any]:
    """The splits of one config: readers ask for the records of each, and not every config has both."""
    name = _splits_of(config)
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": f"The splits of the config {config}.",
        "dataType": "cr:Split",
        "key": {"@id": f"{name}/name"},
        "field": [_plain_field(f"{name}/name", "sc:Text")],
        "data": [{f"{name}/name": split} for split in splits],
    }


def _plain_field(name: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": name, "name": name.rpartition("/")[2], "dataType": kind}


def _record_set(config: str, splits: Iterable[str]) -> dict[str, Any]:
    features = config_features(config)
    key = next((names for names in _KEYS if set(names) <= set(features)), ())
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        "description": DESCRIPTIONS[config],
        **({"key": [{"@id": f"{config}/{name}"} for name in key]} if key else {}),
        "field": [
            _split_field(config, splits),
            *(_field(config, name, kind) for name, kind in features.items()),
        ],
    }


def _split_field(config: str, splits: Iterable[str]) -> dict[str, Any]:
    """The split a record is in: its file's name begins with it.

    To filter by split, mlcroissant makes a glob of the expression and puts it in the place of the file name
    in `includes`; so it tells the files of known categories from others, too. What follows the split is
    optional, for mlcroissant applies the expression twice where a field has references.
    """
    splits = list(splits)
    (rest,) = {shard_glob(config, split).rpartition("/")[2].removeprefix(split) for split in splits}
    rest = re.escape(rest).replace(r"\*", ".*").replace(r"\-", "-")
    files = {"fileSet": {"@id": _files_of(config)}, "extract": {"fileProperty": "filename"}}
    return {
        **_plain_field(f"{config}/split", "sc:Text"),
        "description": f"The split: {' or '.join(splits)}.",
        "source": {**files, "transform": {"regex": f"^({'|'.join(splits)})(?:{rest})?$"}},
        "references": {"field": {"@id": f"{_splits_of(config)}/name"}},
    }


def _field(config: str, name: str, feature: Any) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": _files_of(config)}, "extract": {"column": name}}
    field = {"@type": "cr:Field", "@id": f"{config}/{name}", "name": name}
    if name in COLUMNS:
        field["description"] = meaning(config, name)
    if isinstance(feature, datasets.Image):
        source["transform"] = {"jsonPath": "bytes"}
        return {**field, "dataType": "sc:ImageObject", "source": source}
    items, shape = _items(feature)
    array = {"isArray": True, "arrayShape": shape} if shape else {}
    if not isinstance(items, Mapping):
        return {**field, "dataType": _data_type(items), **array, "source": source}
    parts = [_part(config, name, part, items[part]) for part in items]
    return {**field, **array, "source": source, "subField": parts}


def _part(config: str, column: str, name: str, feature: Any) -> dict[str, Any]:
    """A field of the structures in a column."""
    source = {"fileSet": {"@id": _files_of(config)}, "extract": {"column": column}}
    source["transform"] = {"jsonPath": name}
    return {**_field(config, name, feature), "@id": f"{config}/{column}/{name}", "source": source}


def _items(feature: Any) -> tuple[Any, str]:
    """What a list holds, or a list of lists, and its shape; "" for a feature that is no list."""
    if isinstance(feature, list):
        return feature[0], "-1"
    if isinstance(feature, datasets.Sequence | getattr(datasets, "List", datasets.Sequence)):
        items, shape = _items(feature.feature)
        return items, f"{feature.length},{shape}" if shape else str(feature.length)
    return feature, ""


def _data_type(feature: Any) -> str:
    return "sc:Integer" if isinstance(feature, datasets.ClassLabel) else _SCALARS[feature.dtype]
