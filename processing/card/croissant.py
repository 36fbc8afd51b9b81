"""Croissant metadata of the built folder: its files, records and fields, and how the data came about.

Written as plain JSON-LD after version 1.1 of the format and 1.0 of its responsible-AI vocabulary, which
`mlcroissant` reads. Files are found in a clone of the repository, or in a folder that stands for it:

    mlcroissant.Dataset("ImageNet3D/croissant.json", mapping={"repository": "ImageNet3D"})
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets

import ImageNet3D
from ImageNet3D import CATEGORIES, OBJECT_STATUS
from processing.built import CROISSANT, shard_glob
from processing.card.card import DOI, PAPER, Sizes, describe
from processing.card.columns import COLUMNS, meaning
from processing.ledger import ShardResult
from processing.runtime.store import Place, write_whole

REPOSITORY_ID = "repository"
_HOME = f"https://huggingface.co/datasets/{ImageNet3D.REPOSITORY}"

# The columns that key a record.
_KEYS = (("image_id", "object_index"), ("image_id",), ("category", "cad_index"), ("name",))

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{
        term: f"cr:{term}"
        for term in (
            "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty "
            "fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet "
            "references regex repeated replace samplingRate separator source subField transform"
        ).split()
    },
}

_SCALARS = {
    "bool": "sc:Boolean",
    "float64": "cr:Float64",
    "int32": "cr:Int32",
    "int64": "cr:Int64",
    "string": "sc:Text",
    "binary": "sc:Text",
}

# The responsible-AI fields; dataset_card/datasheet.md has the same in full.
_RESPONSIBLE_AI = {
    "dataCollection": "Pictures were taken from ImageNet21k. People annotated the "
    "box, 6D pose and visual quality of each object and the density of its scene, in a web application.",
    "dataCollectionType": ["Manual Human Curation", "Secondary Data Analysis"],
    "dataCollectionRawData": "Pictures of ImageNet21k, a large collection of diverse natural images.",
    "dataCollectionMissingData": "Some objects have a box and no pose, no visual quality or no density: such "
    "fields are null, and objects without a pose stand in the config captions only.",
    "dataCollectionTimeFrame": ["2023-09-01", "2024-05-31"],
    "dataPreprocessingProtocol": [
        "Neither pictures nor annotations were cleaned. Of a picture whose EXIF tag would turn it, that tag "
        "is set to 1.",
        "The config object_centric holds crops: pictures scaled so that all objects are at one distance.",
    ],
    "dataAnnotationProtocol": [
        "Undergraduate students, paid an hourly wage as set by their university, annotated boxes, 3D "
        "viewpoints, 3D locations, visual quality and scene density by hand. The institutional review board "
        "of Johns Hopkins University approved the study before it began; annotators were told its purpose "
        "and gave their consent.",
    ],
    "dataAnnotationPlatform": ["A web application written in Python for this dataset."],
    "annotatorDemographics": ["Undergraduate students; nothing else was recorded about them."],
    "machineAnnotationTools": ["GPT-4v wrote the captions."],
    "dataUseCases": [
        "Linear probing of object-level 3D awareness; open-vocabulary pose estimation; image classification "
        "together with category-level pose estimation.",
    ],
    "dataLimitations": [
        "Most pictures show one or two objects in the middle: the dataset may not suit 3D object detection "
        "or tasks that need objects to occur together.",
        "Objects in the wild vary more in looks and shape than these pictures show.",
    ],
    "dataBiases": ["Subjects and viewpoints are those of ImageNet21k, whatever it favours or lacks."],
    "personalSensitiveInformation": [
        "The dataset is not about people, but pictures may show faces; the terms of ImageNet21k apply. "
        "Nothing personal was collected from the annotators.",
    ],
    "dataReleaseMaintenancePlan": "The CCVL group at Johns Hopkins University maintains the dataset. Each "
    "version has a tag of its own, and older versions stay available.",
}


def write_croissant(
    folder: Place, sizes: Sizes, results: Iterable[ShardResult], categories: Sequence[str] = CATEGORIES
) -> None:
    """Write croissant.json.

    Args:
        sizes: of the card's configs and splits.
        results: of the shards.
        categories: the names of label ids.
    """
    metadata = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": "ImageNet3D",
        "description": "Rigid objects in ImageNet21k pictures, each with a 2D box, a 3D viewpoint, a "
        "distance, a CAD model, its visual quality and the density of its scene; captions that refer to the "
        "objects.",
        "url": _HOME,
        "sameAs": [f"https://doi.org/{DOI}", f"https://arxiv.org/abs/{PAPER}"],
        "version": ImageNet3D.__version__,
        "license": "https://creativecommons.org/licenses/by-nc/4.0/",
        "citeAs": ImageNet3D.CITATION,
        "creator": {
            "@type": "sc:Organization",
            "name": "CCVL, Johns Hopkins University",
            "url": "https://ccvl.jhu.edu",
        },
        "datePublished": "2024-04-09",
        "inLanguage": "en",
        "isAccessibleForFree": True,
        "keywords": ["pose estimation", "3d", "6d pose", "image classification", "captions", "ImageNet"],
        "distribution": [_repository(results), *_file_sets(sizes)],
        "recordSet": [
            *_label_sets(categories),
            _split_set(sizes),
            *(_record_set(config) for config in sizes),
        ],
        **{f"rai:{name}": value for name, value in _RESPONSIBLE_AI.items()},
    }
    write_whole(folder / CROISSANT, json.dumps(metadata, indent=1, ensure_ascii=False).encode() + b"\n")


# --------------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------------


def _repository(results: Iterable[ShardResult]) -> dict[str, Any]:
    """The repository as a whole; the format wants a checksum of it, too."""
    files = sorted((file.path, file.sha256) for result in results for file in result.files.values())
    listing = "".join(f"{sha256}  {path}\n" for path, sha256 in files)
    return {
        "@type": "cr:FileObject",
        "@id": REPOSITORY_ID,
        "name": REPOSITORY_ID,
        "description": "The repository on the Hugging Face Hub, which asks for a login and consent to its "
        "terms. The checksum is that of lines `sha256  path` of its Parquet files, in the order of paths.",
        "contentUrl": _HOME,
        "encodingFormat": "git+https",
        "sha256": hashlib.sha256(listing.encode()).hexdigest(),
    }


def _file_sets(sizes: Sizes) -> list[dict[str, Any]]:
    return [
        {
            "@type": "cr:FileSet",
            "@id": _files_of(config),
            "name": _files_of(config),
            "description": f"Parquet files of the config {config}.",
            "containedIn": {"@id": REPOSITORY_ID},
            "encodingFormat": "application/x-parquet",
            "includes": [shard_glob(config, split) for split in splits],
        }
        for config, splits in sizes.items()
    ]


def _files_of(config: str) -> str:
    return f"files-of-{config}"


# --------------------------------------------------------------------------------------------------------
# Records
# --------------------------------------------------------------------------------------------------------


def _label_sets(categories: Sequence[str]) -> list[dict[str, Any]]:
    """What ids of a ClassLabel stand for: record sets whose records are in the metadata itself."""
    return [
        {
            "@type": "cr:RecordSet",
            "@id": name,
            "name": name,
            "description": "What the ids of a column of labels stand for.",
            "dataType": "sc:Enumeration",
            "key": {"@id": f"{name}/id"},
            "field": [_plain_field(f"{name}/id", "sc:Integer"), _plain_field(f"{name}/name", "sc:Text")],
            "data": [{f"{name}/id": i, f"{name}/name": label} for i, label in enumerate(labels)],
        }
        for name, labels in (("category_names", categories), ("object_status_names", OBJECT_STATUS))
    ]


def _split_set(sizes: Sizes) -> dict[str, Any]:
    splits = [name for name in ImageNet3D.SPLITS if any(name in found for found in sizes.values())]
    return {
        "@type": "cr:RecordSet",
        "@id": "splits",
        "name": "splits",
        "description": "The splits of all configs.",
        "dataType": "cr:Split",
        "key": {"@id": "splits/name"},
        "field": [_plain_field("splits/name", "sc:Text")],
        "data": [{"splits/name": name} for name in splits],
    }


def _plain_field(name: str, kind: str) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": name, "name": name.rpartition("/")[2], "dataType": kind}


def _record_set(config: str) -> dict[str, Any]:
    features = ImageNet3D.config_features(config)
    key = next((names for names in _KEYS if set(names) <= set(features)), ())
    return {
        "@type": "cr:RecordSet",
        "@id": config,
        "name": config,
        "description": describe(config),
        **({"key": [{"@id": f"{config}/{name}"} for name in key]} if key else {}),
        "field": [_split_field(config), *(_field(config, name, kind) for name, kind in features.items())],
    }


def _split_field(config: str) -> dict[str, Any]:
    """The split a record is in: its file's name begins with it.

    The expression also takes the split itself, for mlcroissant applies it twice where a field has references.
    """
    files = {"fileSet": {"@id": _files_of(config)}, "extract": {"fileProperty": "filename"}}
    return {
        **_plain_field(f"{config}/split", "sc:Text"),
        "description": "The split, train or validation.",
        "source": {**files, "transform": {"regex": f"^({'|'.join(ImageNet3D.SPLITS)}).*$"}},
        "references": {"field": {"@id": "splits/name"}},
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
