"""The configs of the published dataset: the builder's, and those that are made of its rows and of meshes."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import datasets

import ImageNet3D
from ImageNet3D import CATEGORIES, OBJECT_STATUS, SPLITS, known_only

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        **ImageNet3D.DESCRIPTIONS,
        "object_centric": "A row is a posed object, cropped for training: centred, at one distance.",
        "cad": "A row is a CAD model, as GLB with a rendered thumbnail.",
        "categories": "A row is a category, with how much there is of it.",
    }
)
PUBLISHED_CONFIGS = tuple(DESCRIPTIONS)

# The configs of whole pictures that have files; open_vocab_known and open_vocab_unknown are views of pose.
TABLES = ("pose", "classification", "captions")
# The configs of other pictures, in shards of the same plan.
DERIVED_TABLES = ("object_centric",)
PICTURE_TABLES = (*TABLES, *DERIVED_TABLES)
# The configs that the rows of others refer to, in shards of their own.
REFERENCE_TABLES = ("cad", "categories")
ALL_TABLES = (*PICTURE_TABLES, *REFERENCE_TABLES)

# The columns of `categories` that count: pictures as in classification, objects as in pose, by their status.
CATEGORY_COUNTS = tuple(
    f"{split}_{what}" for split in SPLITS for what in ("pictures", "objects", *OBJECT_STATUS, "no_status")
)


def table_of(config: str) -> str:
    """The config whose files a config shows: open_vocab_known and open_vocab_unknown are views of pose."""
    return "pose" if known_only(config) is not None else config


def config_splits(config: str) -> tuple[str, ...]:
    """The splits a config may have; meshes and categories are all in `train`, as is the Hub's custom."""
    return ("train",) if config in REFERENCE_TABLES else ImageNet3D.config_splits(config)


def config_features(config: str, categories: Sequence[str] = CATEGORIES) -> datasets.Features:
    """The typed columns of any published config.

    Args:
        categories: the names of label ids; see `ImageNet3D.config_features`.

    Raises:
        ValueError: for a name that is not in `PUBLISHED_CONFIGS`.
    """
    value = datasets.Value
    if config == "object_centric":
        inverse = {
            "resize_rate": value("float64"),  # pixels of the crop for one of the picture
            # x, y of the picture's upper left corner, pixels: crop = picture * resize_rate + offset
            "offset": datasets.Sequence(value("float64"), length=2),
        }
        return datasets.Features({**ImageNet3D.config_features("pose", categories), **inverse})
    label = datasets.ClassLabel(names=list(categories))
    if config == "cad":
        corner = datasets.Sequence(value("float64"), length=3)  # x, y, z in CAD units
        return datasets.Features(
            {
                "image": datasets.Image(),
                "category": label,
                "cad_index": value("int32"),
                # Not datasets.Mesh, which only the newest versions know; they cast it to that.
                "mesh": {"bytes": value("binary"), "path": value("string")},
                "num_vertices": value("int32"),
                "num_faces": value("int32"),
                "bounds": datasets.Sequence(corner, length=2),
            }
        )
    if config == "categories":
        head = {"name": value("string"), "category": label, "known": value("bool")}
        counts = {name: value("int32") for name in (*CATEGORY_COUNTS, "num_meshes")}
        return datasets.Features({**head, "caption": value("string"), **counts})
    return ImageNet3D.config_features(config, categories)
