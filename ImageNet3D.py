"""ImageNet3D: what the data is, how the raw release is read, and the `datasets` builder.

ImageNet3D (Ma et al., NeurIPS 2024, arXiv 2406.09613) annotates the rigid objects of ImageNet21k
pictures with a 2D box, a 3D viewpoint, a distance, a CAD model, a visual quality, the scene's density
and captions. This file stands alone: it needs only the packages that `datasets` brings.

    from ImageNet3D import ImageNet3D

    builder = ImageNet3D(config_name="pose", data_dir="imagenet3d_v1.zip")
    builder.download_and_prepare(num_proc=2)
    train = builder.as_dataset(split="train")
    stream = builder.as_streaming_dataset(split="train")

With `datasets` < 4 it is also a loading script:

    load_dataset("path/to/ImageNet3D.py", "pose", data_dir="imagenet3d_v1.zip", trust_remote_code=True)

The data flows one way: raw tree -> survey (which pictures, in which split) -> pictures with their checked
annotations -> Arrow rows of a config. `processing` writes the published shards from the same functions, so
the rows are the same wherever they are read. Whatever is odd in the release ends in a `Finding`.

The raw release is a zip, or the same tree unpacked, with or without a top folder:

    images/<category>/<image_id>.JPEG            an ImageNet21k picture
    annotations/<category>/<image_id>.npz        key "annotations": object array of dicts, one per object
    lists/<category>_imagenet_train.txt          image ids of the split, one a line; may be empty
    lists/<category>_imagenet_val.txt
    CAD/<category>/<cad_index:02d>.off           meshes, numbered from 01
    captions/category_captions.json              optional; here or beside the tree
    captions/image_captions.json

Imports stand one a line: the script loader of `datasets` < 4 scans them with a regular expression.
"""

from __future__ import annotations

import bisect
import copy
import errno
import functools
import hashlib
import io
import json
import math
import os
import pickle
import posixpath
import re
import stat
import struct
import unicodedata
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, ClassVar, Literal, cast

import datasets
import fsspec
import huggingface_hub
import numpy as np
import PIL.Image
import pyarrow as pa

__version__ = "1.0.0"

# --------------------------------------------------------------------------------------------------------
# What the data is
# --------------------------------------------------------------------------------------------------------

REPOSITORY = "ccvl/ImageNet3D"
RAW_ARCHIVE = "imagenet3d_v1.zip"

# A label id is a position in CATEGORIES, published with every row. Never reorder, rename or insert: the
# categories of a later release go to the end of LATER_CATEGORIES. On the 63 that are known, here with a star,
# an open-vocabulary model may train; it is tested on all the others.
_V1 = """
    aeroplane* air_hammer* airship ambulance ashtray* ax* backpack* barbell* baseball_bat* basket battery
    beaker* bed* bench* bicycle* bicycle_built_for_two bicycle_pump billiard_table blackboard boat*
    bookshelf bottle* bow bowl bowling_pin boxing_glove bucket bumper_car bus* cabinet calculator camcorder
    camera* can cap car* cart cellphone* chain_saw chair clock* coffee_maker* comb computer cone cooker
    cooling_tower* crutch cup desk_lamp diningtable* dishwasher* door dumbbell dune_buggy eraser
    erlenmeyer_flask eyeglasses* fan faucet ferris_wheel* filing_cabinet fire_extinguisher fire_truck
    fish_tank flashlight* fork* forklift french_horn frigate frisbee funnel* garbage_truck glider go_kart
    grinder guitar* hacksaw hair_dryer* hammer* hand_barrow hand_mower harp harvester headphone helmet
    highchair hockey_stick hot_air_balloon* hourglass hovercraft interphone iron jar jinrikisha* kettle key*
    keyboard knife laptop* life_buoy light_bulb* lighter lipstick* magnifier mailbox megaphone micrometer*
    microphone* microwave millwheel motorbike* mouse padlock paintbrush pan* pay_phone pen pencil piano
    pillow* plate pot power_drill printer projector punching_bag racket* radiator recreational_vehicle
    refrigerator* remote_control riding_mower* rifle road_pole* salt_or_pepper_shaker satellite_dish sax*
    school_bus scissors screwdriver segway* sewing_machine shaver* shoe* shopping_cart* shovel* sign* sink
    skate* skateboard slipper snowmobile sofa sombrero* speaker spoon stapler stove suitcase* sundial
    syringe* table_tennis_table tank teapot* telephone toaster toilet* toothbrush* tractor train* trash_bin
    treadmill* tricycle trolleybus trophy trowel tub* tvmonitor unicycle vending_machine violin washer
    washing_machine watch wheelchair whisk wind_turbine* yurt
""".split()
CATEGORIES_V1 = tuple(name.rstrip("*") for name in _V1)
KNOWN_CATEGORIES = frozenset(name.rstrip("*") for name in _V1 if name.endswith("*"))
LATER_CATEGORIES: tuple[str, ...] = ()
CATEGORIES = CATEGORIES_V1 + LATER_CATEGORIES
CATEGORY_IDS: Mapping[str, int] = MappingProxyType({name: i for i, name in enumerate(CATEGORIES)})

# Spellings in the annotation tool and in older scripts -> what the authors call the category now. They are
# told, never merged: nothing says that such a folder holds the same pictures.
OLD_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {
        "billbard_table": "billiard_table",
        "trolley_bus": "trolleybus",
        "tennis_table": "table_tennis_table",
        "babby_buggy": "baby_buggy",
    }
)

OBJECT_STATUS = ("good", "partially", "barely", "bad")

# Name of a split -> how the release's lists call it.
SPLITS: Mapping[str, str] = MappingProxyType({"train": "train", "validation": "val"})

# The three that make an object posed, and all seven of a pose in the order of the columns.
ANGLES = ("azimuth", "elevation", "theta")
POSE_FIELDS = (*ANGLES, "distance", "px", "py", "viewport")

CITATION = """\
@inproceedings{ma2024imagenet3d,
  title     = {ImageNet3D: Towards General-Purpose Object-Level 3D Understanding},
  author    = {Ma, Wufei and Zhang, Guofeng and Liu, Qihao and Zeng, Guanning and Kortylewski, Adam and
               Liu, Yaoyao and Yuille, Alan},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2024}
}
"""

DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "pose": "A row is a posed object.",
        "open_vocab_known": "A row is a posed object of one of the 63 known categories.",
        "open_vocab_unknown": "A row is a posed object of any other category; validation only.",
        "classification": "A row is a picture with its category.",
        "captions": "A row is a picture that has a caption, with all its objects.",
    }
)
CONFIGS = tuple(DESCRIPTIONS)
DEFAULT_CONFIG = "pose"


def known_only(config: str) -> bool | None:
    """True where a config holds known categories only, False where only the others, None where both."""
    return {"open_vocab_known": True, "open_vocab_unknown": False}.get(config)


def config_splits(config: str) -> tuple[str, ...]:
    """The splits a config may have: unknown categories are never trained on."""
    return ("validation",) if config == "open_vocab_unknown" else tuple(SPLITS)


# --------------------------------------------------------------------------------------------------------
# Features
# --------------------------------------------------------------------------------------------------------


def _object_features() -> dict[str, Any]:
    """The columns an object has, each with its unit; all but object_index and bbox may be null.

    In pose the angles are not null: an object without them has no row there.
    """
    value = datasets.Value
    return {
        "object_index": value("int32"),  # position in the annotation file, from 0; a key with image_id
        "bbox": datasets.Sequence(value("float64"), length=4),  # x1, y1, x2, y2 in pixels of the picture
        "azimuth": value("float64"),  # radians, modulo 2π: any finite number, as annotated
        "elevation": value("float64"),  # radians, likewise
        "theta": value("float64"),  # radians, in-plane rotation, likewise
        "distance": value("float64"),  # camera to object, CAD units; <= 0: never placed in depth
        "px": value("float64"),  # where the object's centre projects, pixels
        "py": value("float64"),
        "viewport": value("float64"),  # focal length, pixels
        "cad_index": value("int32"),  # which mesh of the category, from 1
        "object_status": datasets.ClassLabel(names=list(OBJECT_STATUS)),  # visual quality
        "dense": value("bool"),  # whether the scene is dense
    }


def config_features(config: str, categories: Sequence[str] = CATEGORIES) -> datasets.Features:
    """The typed columns of a config.

    Args:
        categories: the names of label ids, `CATEGORIES` first; a release with more has them in
            `Release.categories`.

    Raises:
        ValueError: for a name that is not in `CONFIGS`.
    """
    value, label = datasets.Value, datasets.ClassLabel(names=list(categories))
    image = {"image": datasets.Image()}
    size = {"width": value("int32"), "height": value("int32")}
    if config == "classification":
        text = {"label": label, "image_id": value("string")}
        return datasets.Features({**image, **text, **size, "num_objects": value("int32")})
    if config == "captions":
        text = {name: value("string") for name in ("caption", "category_caption")}
        head = {**image, "image_id": value("string"), "category": label}
        return datasets.Features({**head, **text, **size, "objects": [_object_features()]})
    if config not in CONFIGS:
        raise ValueError(f"unknown config {config!r}; the configs are {', '.join(CONFIGS)}")
    key = {"image_id": value("string"), "object_index": value("int32")}
    kind = {"category": label, "known": value("bool")}
    return datasets.Features({**image, **key, **size, **kind, **_object_features()})


# --------------------------------------------------------------------------------------------------------
# Errors of the whole release
# --------------------------------------------------------------------------------------------------------


class ReleaseError(ValueError):
    """The raw release as a whole cannot be used; the message names the file and the remedy."""


class UnansweredError(ConnectionError):
    """A store failed, also when asked again; the message names the file and the remedy."""


# --------------------------------------------------------------------------------------------------------
# The builder
# --------------------------------------------------------------------------------------------------------

logger = datasets.utils.logging.get_logger(__name__)

CHUNK = 64  # pictures: the unit of num_proc, of shuffling and of an Arrow table; some 7 MB


@dataclass
class ImageNet3DConfig(datasets.BuilderConfig):
    """How to read the raw release.

    Attributes:
        data_dir: the raw release, a folder or a zip; without it the zip is downloaded from the Hub.
        captions: a folder with JSON files of captions, or one such file; without it `captions/` inside or
            beside the raw release is used.
        raw_revision: branch, tag or commit of the Hub repository to download the zip from; by default its
            newest version tag that this code reads, or else main.
        seed: of the order of train.
        corrections: a file of corrections, or several.
    """

    captions: str | None = None
    raw_revision: str | None = None
    seed: int = 0
    corrections: str | Sequence[str] = ()
    fingerprint: str = field(default="", repr=False)
    revision: Revision | None = field(default=None, repr=False)

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """The cache key: names the release's state and this code, so that neither's older rows are served.

        Raises:
            ValueError: for `data_files` or `features`, which `datasets` offers to every builder.
        """
        if self.data_files is not None:
            raise ValueError(
                "data_files is not read; give the raw release, a folder or a zip, as data_dir=PATH"
            )
        if custom_features is not None:
            raise ValueError(
                "features are those of the config; give none, and cast the loaded rows: rows.cast(…)"
            )
        code = hashlib.blake2b(Path(__file__).read_bytes(), digest_size=8).hexdigest()
        if self.data_dir is not None:
            state = fingerprint(RawTree(self.data_dir), self.captions, self.corrections)
        else:
            self.revision = find_revision(self.raw_revision)
            files = {} if self.captions is None else caption_files_of(self.captions)
            state = _fingerprint(self.revision.commit, files, read_corrections(self.corrections))
        self.fingerprint = f"{code}-{state}"
        return super().create_config_id({**config_kwargs, "fingerprint": self.fingerprint}, custom_features)


class ImageNet3D(datasets.ArrowBasedBuilder):
    """Rigid objects of ImageNet21k pictures with 2D boxes, 3D poses, quality labels and captions.

    Configs: `pose` (default), `open_vocab_known`, `open_vocab_unknown`, `classification` and `captions`;
    splits `train` and `validation`. `config_features` names the columns. The raw release that `data_dir`
    names is read in place, zipped or not. See `ImageNet3DConfig` for the options.

    Raises:
        ReleaseError: if `data_dir` is no raw release, or captions are asked for and there are none.
        PermissionError: without `data_dir`, if the Hub refuses the gated zip; says how to get access.
    """

    VERSION = datasets.Version(__version__)
    BUILDER_CONFIG_CLASS = ImageNet3DConfig
    BUILDER_CONFIGS: ClassVar = [
        ImageNet3DConfig(name=name, version=datasets.Version(__version__), description=text)
        for name, text in DESCRIPTIONS.items()
    ]
    DEFAULT_CONFIG_NAME = DEFAULT_CONFIG

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(
            description=DESCRIPTIONS[self.config.name],
            features=config_features(self.config.name),
            homepage="https://imagenet3d.github.io",
            license="cc-by-nc-4.0",
            citation=CITATION,
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        tree = self._raw_tree(dl_manager)
        found = survey(tree, self.config.captions, self.config.seed, self.config.corrections)
        if self.config.data_dir is not None and not self.config.fingerprint.endswith(found.fingerprint):
            raise ReleaseError(f"{tree.path} changed after this builder was made; make a new one")
        if self.config.name == "captions" and not found.has_captions:
            raise ReleaseError(
                f"{tree.path} comes without captions; give captions=FOLDER with JSON files of them"
            )
        self.info.features = config_features(self.config.name, found.release.categories)
        _warn_of_categories(found.release.categories)
        lost = [Finding(entry.reason, entry.picture_file) for entry in found.left_out]
        _warn_of_losses([*found.findings, *lost])
        generators = []
        for split in config_splits(self.config.name):
            chunks = self._chunks(found, split)
            if chunks:
                kwargs = {"release": found.release, "chunks": chunks}
                generators.append(datasets.SplitGenerator(name=split, gen_kwargs=kwargs))
            else:
                logger.warning(f"{self.config.name} has no rows in {split}; the split is left out")
        if not generators:
            raise ReleaseError(f"{tree.path} has no rows for {self.config.name}")
        return generators

    def _raw_tree(self, dl_manager: Any) -> RawTree:
        """The raw release: as given, or downloaded; streaming reads ranges of the remote zip instead."""
        if self.config.data_dir is not None:
            return RawTree(self.config.data_dir)
        revision = self.config.revision
        logger.warning(f"reading {RAW_ARCHIVE} of {REPOSITORY} at {revision.name}, commit {revision.commit}")
        place = {"repo_id": REPOSITORY, "repo_type": "dataset", "filename": RAW_ARCHIVE}
        cached = huggingface_hub.try_to_load_from_cache(**place, revision=revision.commit)
        if isinstance(cached, str):  # whether or not there is a network
            return RawTree(cached)
        url = f"hf://datasets/{REPOSITORY}@{revision.name}/{RAW_ARCHIVE}"
        try:
            path = dl_manager.download(url)
            return RawTree(path, {"token": self.token} if str(path).startswith("hf://") else {})
        except (OSError, ReleaseError, huggingface_hub.errors.HTTPError) as error:  # the last is of httpx
            raise _download_error(url, error) from error

    def _chunks(self, found: Survey, split: str) -> list[tuple[Entry, ...]]:
        """Runs of pictures; an empty list if none has a row."""
        entries = [entry for entry in found.entries[split] if _may_have_rows(self.config.name, entry)]
        if next(read_pictures(found.release, self.config.name, entries, []), None) is None:
            return []
        return [tuple(entries[i : i + CHUNK]) for i in range(0, len(entries), CHUNK)]

    def _generate_tables(
        self, release: Release, chunks: list[tuple[Entry, ...]]
    ) -> Iterator[tuple[tuple[int, int], pa.Table]]:
        findings: list[Finding] = []
        for number, (near, entries) in enumerate(release.fetched_ahead(chunks)):
            pictures = list(read_pictures(near, self.config.name, entries, findings))
            table = rows(self.config.name, pictures, release)
            if len(table):
                yield (number, 0), table
        _warn_of_losses(findings)


@dataclass(frozen=True)
class Revision:
    """A branch, tag or commit of the Hub repository, and the commit that it stands for now."""

    name: str
    commit: str


_VERSION_TAG = re.compile(rf"v?{__version__.partition('.')[0]}((?:\.[0-9]{{1,9}}){{1,3}})")


def find_revision(name: str | None) -> Revision:
    """Which commit to read the raw release from; without network, the one that its cache tells.

    Args:
        name: branch, tag or commit; without it the newest version tag that this code reads, or else main.
    """
    if name is not None and re.fullmatch("[0-9a-f]{40}", name):
        return Revision(name, name)
    try:
        found = huggingface_hub.HfApi().list_repo_refs(REPOSITORY, repo_type="dataset")
        commits = {ref.name: ref.target_commit for ref in (*found.branches, *found.tags)}
    except Exception:  # no network, no access: if the cache has nothing, the download says which
        commits = _cached_commits()
    if name is None:
        versions = {ref: match[1] for ref in commits if (match := _VERSION_TAG.fullmatch(ref))}
        name = max(versions, key=lambda ref: [int(n) for n in versions[ref].split(".")[1:]], default="main")
    if name not in commits:
        with suppress(Exception):  # such as refs/pr/1
            return Revision(name, huggingface_hub.HfApi().dataset_info(REPOSITORY, revision=name).sha or name)
    return Revision(name, commits.get(name, name))


def _cached_commits() -> dict[str, str]:
    """Branch or tag -> commit, of those whose zip is in the cache of huggingface_hub."""
    try:
        repositories = huggingface_hub.scan_cache_dir().repos
    except (huggingface_hub.errors.CacheNotFound, OSError):
        return {}
    return {
        ref: revision.commit_hash
        for repository in repositories
        if (repository.repo_type, repository.repo_id) == ("dataset", REPOSITORY)
        for revision in repository.revisions
        if any(file.file_name == RAW_ARCHIVE for file in revision.files)
        for ref in revision.refs
    }


def _warn_of_categories(categories: Sequence[str]) -> None:
    """Say which categories this code does not know, since their label ids are not published yet."""
    if later := categories[len(CATEGORIES) :]:
        names = ", ".join(map(_later_name, later))
        logger.warning(
            f"categories that this code does not know have labels from {len(CATEGORIES)} on: {names}. Their "
            "ids may change until ImageNet3D.LATER_CATEGORIES has them"
        )


def _warn_of_losses(findings: Iterable[Finding]) -> None:
    """One warning for what is left out; an object without a pose is no loss, the release has such."""
    lost = (
        f for f in findings if f.decision == LEFT_OUT or (f.decision == NO_POSE and f.object_index is None)
    )
    counts = Counter(f.reason for f in lost)
    if counts:
        text = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items()))
        logger.warning(f"left out of the release: {text} (see ImageNet3D.REASONS)")


def _download_error(url: str, error: Exception) -> Exception:
    """What a refused or failed download means, and what to do."""
    causes = _causes(error)
    errors = huggingface_hub.errors
    if any(isinstance(c, errors.GatedRepoError) for c in causes):
        return PermissionError(
            f"{url}: access to ImageNet3D is gated. Accept the terms at "
            f"https://huggingface.co/datasets/{REPOSITORY} while logged in, then run `hf auth login` "
            "or pass token=… here."
        )
    if any(isinstance(c, errors.RevisionNotFoundError) for c in causes):
        return FileNotFoundError(f"{url}: no such revision; name another with raw_revision=…")
    if any(isinstance(c, errors.RepositoryNotFoundError | errors.EntryNotFoundError) for c in causes):
        return FileNotFoundError(
            f"{url}: not found, or hidden from you; log in with `hf auth login`, or download the raw release "
            "yourself and pass data_dir=PATH"
        )
    return ConnectionError(f"{url}: {error}; try again, or download the raw release and pass data_dir=PATH")


# --------------------------------------------------------------------------------------------------------
# Rows
# --------------------------------------------------------------------------------------------------------


def _may_have_rows(config: str, entry: Entry) -> bool:
    """Whether a picture has rows in a config, if its annotation has what they need."""
    if known_only(config) not in (None, entry.known) or entry.split not in config_splits(config):
        return False
    return config != "captions" or entry.captioned


def has_rows(config: str, entry: Entry, annotation: Annotation) -> bool:
    """Whether a picture has rows in a config; tells before the picture itself is read."""
    of_pictures = config in ("classification", "captions")
    return _may_have_rows(config, entry) and (of_pictures or any(o.posed for o in annotation.objects))


def rows(config: str, pictures: Sequence[Picture], release: Release) -> pa.Table:
    """The rows of a config, as an Arrow table of the config's features.

    Args:
        pictures: in order; those without rows in the config add none.
        release: whose category captions and names of label ids are used.
    """
    pictures = [p for p in pictures if has_rows(config, p.entry, p.annotation)]
    labels = {name: label for label, name in enumerate(release.categories)}
    of_picture: dict[str, Callable[[Picture], Any]] = {
        "image_id": lambda p: p.entry.image_id,
        "width": lambda p: p.width,
        "height": lambda p: p.height,
        "category": lambda p: labels[p.entry.category],
        "known": lambda p: p.entry.known,
        "label": lambda p: labels[p.entry.category],
        "num_objects": lambda p: p.annotation.num_objects,
        "caption": lambda p: p.entry.caption,
        "category_caption": lambda p: release.category_captions.get(p.entry.category),
        "objects": lambda p: [_object_values(item) for item in p.annotation.objects],
    }
    schema = pa.schema(list(config_features(config, release.categories).arrow_schema))
    objects: list[dict[str, Any]] = []
    if "azimuth" in schema.names:  # a row is an object
        pairs = [(p, item) for p in pictures for item in p.annotation.objects if item.posed]
        pictures = [p for p, _ in pairs]
        objects = [_object_values(item) for _, item in pairs]

    def column(field: pa.Field) -> pa.Array:
        if field.name == "image":
            return _image_array(pictures)
        if (value := of_picture.get(field.name)) is not None:
            return pa.array([value(p) for p in pictures], field.type)
        return pa.array([values[field.name] for values in objects], field.type)

    return pa.Table.from_arrays([column(field) for field in schema], schema=schema)


def _image_array(pictures: Sequence[Picture]) -> pa.Array:
    """The pictures as `datasets.Image` stores them; the path is the file's name."""
    data = pa.array([p.data for p in pictures], pa.binary())
    names = pa.array([f"{p.entry.stem}.JPEG" for p in pictures], pa.string())
    return pa.StructArray.from_arrays([data, names], ["bytes", "path"])


def _object_values(item: ObjectAnnotation) -> dict[str, Any]:
    """The columns of an object."""
    status = None if item.object_status is None else OBJECT_STATUS.index(item.object_status)
    own = {name: getattr(item, name) for name in ("bbox", *POSE_FIELDS, "cad_index", "dense")}
    return {"object_index": item.index, **own, "object_status": status}


def read_pictures(
    release: Release, config: str, entries: Iterable[Entry], findings: list[Finding]
) -> Iterator[Picture]:
    """The usable pictures with rows in a config; the others end in `findings`."""
    for entry in entries:
        annotation = read_annotation(release, entry, findings)
        if not has_rows(config, entry, annotation):
            continue
        try:
            yield read_picture(release, entry, annotation, findings)
        except Unusable as error:
            findings.append(Finding(error.reason, entry.picture_file, None, error.value))


# --------------------------------------------------------------------------------------------------------
# Survey: which pictures there are, and in which split
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A picture that the release names; nothing of it has been read yet.

    Attributes:
        image_id: "<category>/<file stem>", unique over the release.
        split: "train", "validation", or "" where no list names it.
        size: bytes of the picture's file, 0 where it is missing or past the limit.
        caption: the image-level caption, or None.
        category_captioned: whether there is a category-level caption, which `Release` holds.
        reason: why the picture is left out before it is read, or "".
        position: tells which of two pictures of a category comes first in its list.
    """

    image_id: str
    split: str
    size: int = 0
    caption: str | None = None
    category_captioned: bool = False
    reason: str = ""
    position: int = 0

    @property
    def captioned(self) -> bool:
        """Whether the picture has a caption, its own or its category's."""
        return self.caption is not None or self.category_captioned

    @property
    def category(self) -> str:
        """The folder's category, which is the picture's label."""
        return self.image_id.partition("/")[0]

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return self.image_id.partition("/")[2]

    @property
    def known(self) -> bool:
        """Whether the category is one of the known ones of the open-vocabulary task."""
        return self.category in KNOWN_CATEGORIES

    @property
    def picture_file(self) -> str:
        """Path of the picture inside the tree."""
        return f"images/{self.image_id}.JPEG"

    @property
    def annotation_file(self) -> str:
        """Path of the annotation inside the tree."""
        return f"annotations/{self.image_id}.npz"


@dataclass(frozen=True)
class Release:
    """What is needed to read any picture: small, and the same for every task.

    Attributes:
        tree: where the files are.
        meshes: bytes of the meshes that exist, by path: "CAD/<category>/<cad_index:02d>.off".
        category_captions: category -> text.
        corrections: image id -> the corrections of its annotation, by time.
        categories: the names of label ids: `CATEGORIES`, then those that this code does not know.
    """

    tree: RawTree
    meshes: Mapping[str, int]
    category_captions: Mapping[str, str]
    corrections: Mapping[str, Sequence[Correction]] = field(default_factory=dict)
    categories: tuple[str, ...] = CATEGORIES

    def fetched(self, entries: Iterable[Entry], pictures: bool = True) -> Release:
        """The same release with the files of these pictures at hand; see `RawTree.fetched`.

        Args:
            pictures: whether the pictures are wanted, and not their annotations alone.
        """
        limits: dict[str, int] = {}
        budget = MAX_PICTURE_BYTES  # of all together: a release may name any number of large ones
        for entry in entries:
            limits[entry.annotation_file] = MAX_ANNOTATION_BYTES
            if pictures and 0 < entry.size <= budget:
                limits[entry.picture_file] = MAX_PICTURE_BYTES
                budget -= entry.size
        tree = self.tree.fetched(limits)
        return self if tree is self.tree else replace(self, tree=tree)

    def fetched_ahead(self, groups: Iterable[Sequence[Entry]]) -> Iterator[tuple[Release, Sequence[Entry]]]:
        """Groups of pictures, each with the release that has its files at hand.

        The files of the next group are fetched while the caller is busy with one, so at most two groups are
        held.
        """
        with ThreadPoolExecutor(1) as pool:
            coming = ((group, pool.submit(self.fetched, group)) for group in groups)
            ahead = next(coming, None)
            while ahead is not None:
                group, release = ahead[0], ahead[1].result()
                ahead = next(coming, None)
                yield release, group


@dataclass(frozen=True)
class Survey:
    """The whole release by name.

    Attributes:
        release: what tasks need.
        entries: split -> pictures to read, train in its shuffled order, validation by category and image id.
        left_out: pictures that are named and not read, each with its reason; their objects are counted.
        findings: what was found on the way, apart from `left_out`.
        fingerprint: hexadecimal, of the tree, the captions and the corrections.
        has_captions: whether any picture has a caption, its own or its category's.
        corrections: all that were given, by time.
    """

    release: Release
    entries: Mapping[str, tuple[Entry, ...]]
    left_out: tuple[Entry, ...]
    findings: tuple[Finding, ...]
    fingerprint: str
    has_captions: bool
    corrections: tuple[Correction, ...] = ()


# What the folders of a release hold, each group with what the file is of; other folders may hold anything.
_LAYOUT = re.compile(
    r"images/(?P<picture>[^/]+/[^/]+)\.JPEG|annotations/(?P<annotation>[^/]+/[^/]+)\.npz"
    + "".join(rf"|lists/(?P<{split}>[^/]+)_imagenet_{called}\.txt" for split, called in SPLITS.items())
    + r"|CAD/(?P<mesh>[^/]+)/(?:0[1-9]|[1-9][0-9]{1,8})\.off|(?!images/|annotations/|lists/|CAD/).*",
    re.DOTALL,
)


def _of_kind(names: Iterable[str], *kinds: str) -> Iterator[tuple[str, str, str]]:
    """(path, group of `_LAYOUT`, what it is of) of the files of some kinds."""
    matches = map(_LAYOUT.fullmatch, names)
    return ((m[0], m.lastgroup, m[m.lastgroup]) for m in matches if m and m.lastgroup in kinds)


def survey(
    tree: RawTree, captions: str | None = None, seed: int = 0, corrections: str | Sequence[str] = ()
) -> Survey:
    """Read names and lists, and nothing else, of a raw tree; with corrections, the annotations they speak of.

    Args:
        captions: a folder with captions; without it they are looked for inside and beside the tree.
        seed: of the order of train.
        corrections: files of corrections, which every annotation that is read will have.

    Raises:
        ReleaseError: if captions are given and cannot be read.
        CorrectionError: if any correction is wrong, or made for another release.
    """
    listing = tree.listing()
    files = caption_files(tree, listing, captions)
    findings = [*listing.findings, *_name_findings(listing.sizes)]
    unexpected = (name for name in listing.sizes if not _LAYOUT.fullmatch(name))
    findings += [Finding("file_unexpected", name) for name in sorted(unexpected)]
    meshes = {name: listing.sizes[name] for name, _, _ in sorted(_of_kind(listing.sizes, "mesh"))}
    later = _later_categories(tree, listing)
    findings += [Finding("category_unknown", f"images/{name}", None, _of_later(name)) for name in later]
    categories = (*CATEGORIES, *later)
    listed, left_out = _read_lists(tree, listing, findings)
    left_out += _unlisted(listing, {entry.image_id for entry in listed + left_out})
    texts = read_captions(files, {entry.image_id for entry in listed + left_out}, categories)
    findings += texts.findings
    entries = {
        split: tuple(
            replace(
                entry,
                size=_size(listing, entry.picture_file),
                caption=texts.by_picture.get(entry.image_id),
                category_captioned=entry.category in texts.by_category,
            )
            for entry in in_order((e for e in listed if e.split == split), split, seed)
        )
        for split in SPLITS
    }
    corrected = read_corrections(corrections)
    release = Release(tree, meshes, texts.by_category, _of_pictures(corrected), categories)
    _check_corrections(release, (entry for of_split in entries.values() for entry in of_split))
    has_captions = any(entry.captioned for of_split in entries.values() for entry in of_split)
    whole = _fingerprint(listing.fingerprint, files, corrected)
    return Survey(release, entries, tuple(left_out), tuple(findings), whole, has_captions, corrected)


_MOST_LATER_CATEGORIES = 1000


def _later_categories(tree: RawTree, listing: Listing) -> list[str]:
    """Categories that the release has and this code does not know, sorted: those with a list or a mesh."""
    found = _of_kind(listing.sizes, *SPLITS, "mesh")
    named = {category for name, kind, category in found if kind == "mesh" or listing.sizes[name]}
    later = sorted(name for name in named - CATEGORY_IDS.keys() if _is_plain_name(name))
    if len(later) > _MOST_LATER_CATEGORIES:
        raise ReleaseError(f"{tree.path}: {len(later)} unknown categories; is this a release of ImageNet3D?")
    return later


def _later_name(category: str) -> str:
    """A category that this code does not know, with what the authors call it now if that is known."""
    now = OLD_SPELLINGS.get(category)
    return f"{category} (an old spelling of {now})" if now else shown(category)


def _of_later(category: str) -> str:
    """What there is to say of a category that this code does not know."""
    rename = "kept apart; rename it, or " if category in OLD_SPELLINGS else ""
    return f"{_later_name(category)}: {rename}append it to LATER_CATEGORIES before this is published"


def fingerprint(tree: RawTree, captions: str | None = None, corrections: str | Sequence[str] = ()) -> str:
    """The fingerprint of a survey, without the survey.

    Args:
        captions, corrections: as for `survey`.

    Raises:
        ReleaseError: if captions or corrections are given and cannot be read.
    """
    listing = tree.listing()
    files = caption_files(tree, listing, captions)
    return _fingerprint(listing.fingerprint, files, read_corrections(corrections))


def _fingerprint(tree: str, captions: Mapping[str, bytes], corrections: Sequence[Correction]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, data in sorted(captions.items()):
        digest.update(f"{name}\0{len(data)}\n".encode("utf-8", "surrogateescape") + data)
    parts = [tree, digest.hexdigest() if captions else "no-captions"]
    if corrections:
        parts.append(hashlib.blake2b(corrections_text(corrections).encode(), digest_size=16).hexdigest())
    return "-".join(parts)


def _size(listing: Listing, name: str) -> int:
    """Bytes of a picture, for planning; a zip may claim any number, and one past the limit is not written."""
    size = listing.sizes.get(name, 0)
    return size if size <= MAX_PICTURE_BYTES else 0


def in_order(entries: Iterable[Entry], split: str, seed: int) -> list[Entry]:
    """Entries in the published order: train shuffled by a keyed hash, validation by category and image id.

    A hash of seed and image id needs no generator whose stream may change between numpy versions, and
    adding a picture moves no other.
    """
    if split != "train":
        return sorted(entries, key=lambda e: (e.category, e.stem))

    def position(entry: Entry) -> bytes:
        return hashlib.blake2b(f"{seed}/{entry.image_id}".encode(), digest_size=16).digest()

    return sorted(entries, key=position)


_LISTS_AT_ONCE = 100


def _read_lists(tree: RawTree, listing: Listing, findings: list[Finding]) -> tuple[list[Entry], list[Entry]]:
    """Entries to read, and entries left out, as the lists name them."""
    ids: dict[str, list[tuple[str, str]]] = {split: [] for split in SPLITS}
    lists = sorted(_of_kind(listing.sizes, *SPLITS))
    for start in range(0, len(lists), _LISTS_AT_ONCE):
        batch = lists[start : start + _LISTS_AT_ONCE]
        near = tree.fetched({name: MAX_LIST_BYTES for name, _, _ in batch})
        for name, split, category in batch:
            ids[split] += [(category, stem) for stem in _read_list(near, name, findings)]
    held_out = set(ids["validation"])
    listed: list[Entry] = []
    left_out: list[Entry] = []
    for split, keys in ids.items():
        for position, (category, stem) in enumerate(keys):
            reason = ""
            if not (_is_plain_name(stem) and _is_plain_name(category)):
                reason = "list_bad_id"
            elif split == "train" and (category, stem) in held_out:
                reason = "list_both_splits"
            entry = Entry(f"{category}/{stem}", split, reason=reason, position=position)
            (left_out if reason else listed).append(entry)
    return listed, left_out


def _read_list(tree: RawTree, name: str, findings: list[Finding]) -> list[str]:
    """The image ids of one list, each once, in its order."""
    try:
        text = tree.read(name, MAX_LIST_BYTES, "list_not_text").decode("utf-8")
    except UnicodeDecodeError as error:
        findings.append(Finding("list_not_text", name, None, shown(str(error))))
        return []
    except Unusable as error:
        findings.append(Finding(error.reason, name, None, error.value))
        return []
    if text.startswith("\ufeff"):
        findings.append(Finding("list_bom", name))
        text = text.removeprefix("\ufeff")
    if "\r" in text:
        findings.append(Finding("list_crlf", name))
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [line.strip(" \t") for line in text.rstrip("\n").split("\n")] if text.strip() else []
    counts = Counter(lines)
    if blank := counts.pop("", 0):
        findings.append(Finding("list_blank_line", name, None, str(blank)))
    findings += [Finding("list_duplicate", name, None, shown(stem)) for stem, n in counts.items() if n > 1]
    return list(counts)


def _is_plain_name(stem: str) -> bool:
    """Whether a list's image id is the name of a file in its folder, and nothing that walks elsewhere."""
    return stem.isprintable() and "/" not in stem and "\\" not in stem and stem not in (".", "..")


def _unlisted(listing: Listing, listed: set[str]) -> list[Entry]:
    """Pictures and annotations that no list names."""
    there = {image_id for _, _, image_id in _of_kind(listing.sizes, "picture", "annotation")}
    return [Entry(image_id, "", reason="picture_unlisted") for image_id in sorted(there - listed)]


def _name_findings(sizes: Mapping[str, int]) -> Iterator[Finding]:
    """Names that are one name on a file system that folds case or Unicode forms."""
    seen: dict[str, str] = {}
    for name in sorted(sizes):
        folded = name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            yield Finding("name_collision", name, None, shown(seen[folded]))
        seen[folded] = name


# --------------------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A picture of the release, checked, with its annotation.

    Attributes:
        entry: its names, split and caption.
        data: the file's bytes; untouched, but for an orientation tag set to 1.
        width, height: the stored picture's own, in pixels.
        annotation: what is annotated in it.
    """

    entry: Entry
    data: bytes
    width: int
    height: int
    annotation: Annotation


def read_picture(release: Release, entry: Entry, annotation: Annotation, findings: list[Finding]) -> Picture:
    """Read and check one picture, without decoding its pixels.

    Raises:
        Unusable: with a `picture_…` or `member_…` code, if the picture cannot be used.
    """
    name = entry.picture_file
    try:
        data = release.tree.read(name, MAX_PICTURE_BYTES, "picture_too_large")
    except FileNotFoundError:
        raise Unusable("picture_missing") from None
    header = read_picture_header(data)
    if header.orientation != 1:
        data = with_upright_tag(data, header)
        findings.append(Finding("picture_orientation", name, None, shown(header.orientation)))
    if header.kind != "JPEG":
        findings.append(Finding("picture_format", name, None, header.kind))
    if header.mode != "RGB":
        findings.append(Finding("picture_mode", name, None, header.mode))
    annotated = (annotation.width, annotation.height)
    if None not in annotated and annotated != (header.width, header.height):
        value = "{}x{}, annotated {}x{}".format(header.width, header.height, *annotated)
        findings.append(Finding("picture_size_differs", name, None, shown(value)))
    note_boxes(entry, annotation, header.width, header.height, findings)
    return Picture(entry, data, header.width, header.height, annotation)


def note_boxes(
    entry: Entry, annotation: Annotation, width: int, height: int, findings: list[Finding]
) -> None:
    """Say which boxes leave the picture; they are kept as annotated."""
    for item in annotation.objects:
        x1, y1, x2, y2 = item.bbox
        left, right, top, bottom = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
        note = _Notes(entry.annotation_file, item.index, findings)
        text = f"{x1:g}, {y1:g}, {x2:g}, {y2:g} in {width}x{height}"
        if left >= width or top >= height or right <= 0 or bottom <= 0:
            note("bbox_outside", text)
        elif left < 0 or top < 0 or right > width or bottom > height:
            note("bbox_leaves_picture", text)


@dataclass(frozen=True)
class PictureHeader:
    """What a picture says of itself: kind JPEG, PNG or WEBP, Pillow's mode, EXIF orientation (1 if none)."""

    kind: str
    width: int
    height: int
    mode: str
    orientation: int


def read_picture_header(data: bytes) -> PictureHeader:
    """Format, size, mode and orientation of a picture whose structure reaches its end; no pixel is decoded.

    Raises:
        Unusable: with a `picture_…` code.
    """
    if not data:
        raise Unusable("picture_empty")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and not _REACHES_END["WEBP"](data):
        # Pillow would only say that it cannot read it.
        raise Unusable("picture_truncated", f"{len(data)} bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning)  # of odd EXIF blocks
            source = io.BytesIO(_png_metadata(data) if data.startswith(_PNG_SIGNATURE) else data)
            with PIL.Image.open(source, formats=("JPEG", "PNG", "WEBP")) as image:
                kind = "JPEG" if image.format == "MPO" else str(image.format)
                header = PictureHeader(kind, *image.size, image.mode, _orientation(image))
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
        raise Unusable("picture_too_large", shown(str(error))) from error
    except Exception as error:  # Pillow's readers meet damaged bytes with many kinds of error
        raise Unusable("picture_unreadable", shown(f"{type(error).__name__}: {error}")) from error
    if header.width * header.height > MAX_PICTURE_PIXELS:  # whatever Pillow's own limit was set to
        raise Unusable("picture_too_large", f"{header.width}x{header.height}")
    if not _REACHES_END[header.kind](data):
        raise Unusable("picture_truncated", f"{len(data)} bytes")
    return header


def _orientation(image: PIL.Image.Image) -> Any:
    """By which `datasets` turns a picture: the EXIF tag, or else the one in the XMP packet."""
    exif = PIL.Image.Image.getexif(image)  # a PNG's own method decodes the pixels first
    if (tag := PIL.Image.ExifTags.Base.Orientation) in exif:
        return exif[tag]
    # The newest Pillow looks here too. A build with an older one must not leave it to the readers.
    packet = _XMP_ORIENTATION.search(image.info.get("xmp") or b"")
    return int(packet[2]) if packet else 1


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of each segment's payload up to the first scan (ITU-T T.81, annex B)."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, end
        if marker == 0xDA:
            return
        position = end


def _jpeg_reaches_end(data: bytes) -> bool:
    """Whether the end marker follows the first scan; a thumbnail's own, in the EXIF block, does not count."""
    scans = [end for marker, _, end in _jpeg_segments(data) if marker == 0xDA]
    return bool(scans) and data.rfind(b"\xff\xd9") >= scans[0]


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each whole chunk's data."""
    position = 8
    while position + 12 <= len(data):
        start = position + 8
        end = start + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            return
        yield data[position + 4 : start], start, end
        position = end + 4


def _png_metadata(data: bytes) -> bytes:
    """A PNG without its pixels: what stands before them, and the EXIF and XMP that may also follow them."""
    parts, before = [_PNG_SIGNATURE], True
    for name, start, end in _png_chunks(data):
        before = before and name != b"IDAT"
        if before or name in (b"eXIf", b"iTXt", b"tEXt", b"zTXt"):
            parts.append(data[start - 8 : end + 4])
    return b"".join([*parts, _PNG_END])


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(type, start, end) of each chunk of a WebP file."""
    position = 12
    while position + 8 <= len(data):
        start = position + 8
        end = start + int.from_bytes(data[position + 4 : start], "little")
        yield data[position : position + 4], start, end
        position = end + end % 2


_REACHES_END: Mapping[str, Callable[[bytes], bool]] = {
    "JPEG": _jpeg_reaches_end,
    "PNG": lambda data: {b"IDAT", b"IEND"} <= {kind for kind, _, _ in _png_chunks(data)},
    "WEBP": lambda data: len(data) >= 8 + int.from_bytes(data[4:8], "little"),
}


def with_upright_tag(data: bytes, header: PictureHeader) -> bytes:
    """The same file with its orientation tag set to 1, and nothing else changed.

    In a PNG the checksum of the tag's chunk follows.

    Raises:
        Unusable: `picture_orientation_stuck` if the tag is not where the formats put it.
    """
    changed = bytearray(data)
    for start, end in _metadata_blocks(data, header.kind):
        _set_exif_orientation(changed, start, end)
        _set_xmp_orientation(changed, start, end)
        if header.kind == "PNG":
            changed[end : end + 4] = zlib.crc32(changed[start - 4 : end]).to_bytes(4, "big")
    upright = bytes(changed)
    if read_picture_header(upright).orientation != 1:
        raise Unusable("picture_orientation_stuck", shown(header.orientation))
    return upright


def _metadata_blocks(data: bytes, kind: str) -> list[tuple[int, int]]:
    """(start, end) of the blocks that hold EXIF or XMP."""
    if kind == "JPEG":
        return [(start, end) for marker, start, end in _jpeg_segments(data) if marker == 0xE1]
    chunks = _png_chunks(data) if kind == "PNG" else _riff_chunks(data)
    return [(start, end) for name, start, end in chunks if name in (b"eXIf", b"iTXt", b"EXIF", b"XMP ")]


def _set_exif_orientation(data: bytearray, start: int, end: int) -> None:
    """Set tag 0x0112 of the first directory (TIFF 6.0, section 2) to 1, if this block is EXIF."""
    tiff = start + 6 if data[start : start + 6] == b"Exif\0\0" else start
    orders: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
    order = orders.get(bytes(data[tiff : tiff + 4]))
    if order is None:
        return

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)

    directory = tiff + number(tiff + 4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > end:
            return
        if number(entry, 2) == 0x0112:
            size = {1: 1, 3: 2, 4: 4}.get(number(entry + 2, 2), 2)  # byte, short or long
            data[entry + 8 : entry + 8 + size] = (1).to_bytes(size, order)


_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>))([0-9])")


def _set_xmp_orientation(data: bytearray, start: int, end: int) -> None:
    """Pillow, and so `datasets`, also turns a picture by the orientation in its XMP packet."""
    for match in list(_XMP_ORIENTATION.finditer(bytes(data[start:end]))):
        data[start + match.start(2)] = ord("1")


# --------------------------------------------------------------------------------------------------------
# Annotations
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ObjectAnnotation:
    """One object as annotated; values are the release's own, only their Python type is settled.

    Every field but `index` and `bbox` is None where the release has none, or one that its column cannot hold.
    """

    index: int  # position in the annotation file, from 0
    bbox: tuple[float, float, float, float]  # x1, y1, x2, y2; pixels of the stored picture; finite, any order
    azimuth: float | None = None  # radians, any finite number: meant modulo 2π
    elevation: float | None = None  # radians, likewise
    theta: float | None = None  # radians, in-plane rotation, likewise
    distance: float | None = None  # camera to object, units of the CAD model; <= 0: never placed in depth
    px: float | None = None  # where the object's centre projects, pixels
    py: float | None = None
    viewport: float | None = None  # focal length, pixels; a camera only where > 0
    cad_index: int | None = None  # mesh of the category, from 1 if it is one
    object_status: str | None = None  # one of OBJECT_STATUS
    dense: bool | None = None  # whether the scene is dense
    ignored: bool = False  # the old ignore flag was above 0

    @property
    def posed(self) -> bool:
        """Whether the three angles are there; the other fields of a pose may each be None."""
        return None not in (self.azimuth, self.elevation, self.theta)


@dataclass(frozen=True)
class Annotation:
    """What one annotation file says.

    Attributes:
        num_objects: all objects of the file, usable or not; None where the file cannot be read.
        objects: those with a usable box.
        height, width: of the picture, as annotated; None where absent.
        unknown_keys: how many objects have a key that is none of `OBJECT_KEYS`, by its name as `shown`.
    """

    num_objects: int | None
    objects: tuple[ObjectAnnotation, ...] = ()
    height: int | None = None
    width: int | None = None
    unknown_keys: Mapping[str, int] = field(default_factory=dict)


# The documented keys of an object's dict. `annotator` names a person: its value is never looked at.
OBJECT_KEYS = frozenset(
    (*POSE_FIELDS, "bbox", "class", "height", "width", "principal", "focal", "cad_index", "object_status")
) | {"dense", "ignore", "annotator"}


class _Inert:
    """Base of the stand-ins for numpy's types: a pickle can set no attribute on them and call nothing."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError(f"state for {type(self).__name__}")


class _Dtype(_Inert):
    """Stands for numpy.dtype: takes the codes of numbers, text and objects, and no others."""

    __slots__ = ("code",)
    _CODES: ClassVar = re.compile(r"[<>|=]?(?:O8?|b1|i[1248]|u[1248]|f(?:[248]|16)|[US][0-9]{1,4})")

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        if not isinstance(code, str) or not self._CODES.fullmatch(code):
            raise pickle.UnpicklingError(f"dtype {shown(code)}")
        self.code = code

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("dtype state")
        if any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("structured dtype")
        self.code = state[1] + self.code.lstrip("<>|=")

    def values(self, data: object, count: int) -> list[Any]:
        """Python values of `count` items that lie in `data`."""
        if not isinstance(data, bytes) or "O" in self.code:
            raise pickle.UnpicklingError("array data")
        if self.code == "<f16":
            return _from_long_doubles(data, count)
        dtype = np.dtype(self.code)
        if len(data) != count * dtype.itemsize:
            raise pickle.UnpicklingError("array size")
        if dtype.itemsize == 0 and count == 1:  # a text of no letters
            return [np.zeros((), dtype).item()]
        return np.frombuffer(data, dtype, count).tolist() if count else []


def _from_long_doubles(data: bytes, count: int) -> list[float]:
    """Numbers of x86's 80 bits in 16 bytes, as float64; numpy itself reads them on such machines alone."""
    if len(data) != count * 16:
        raise pickle.UnpicklingError("array size")
    numbers = []
    for mantissa, exponent in struct.iter_unpack("<QH6x", data):
        sign, power = -1 if exponent >> 15 else 1, exponent & 0x7FFF
        if power == 0x7FFF:
            numbers.append(sign * (math.inf if mantissa == 2**63 else math.nan))
            continue
        try:
            numbers.append(sign * math.ldexp(mantissa, power - 16383 - 63))
        except OverflowError:
            numbers.append(sign * math.inf)
    return numbers


class _Array(_Inert):
    """Stands for numpy.ndarray: a shape, a flat list of Python values, and the code of their numpy type."""

    __slots__ = ("code", "items", "shape")
    is_scalar: ClassVar = False

    def __init__(self, shape: tuple[int, ...] = (0,), items: Sequence[Any] = (), code: str = "") -> None:
        self.shape = shape
        self.items = list(items)
        self.code = code

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5 or not isinstance(state[1], tuple):
            raise pickle.UnpicklingError("array state")
        _, shape, dtype, _, data = state
        if len(shape) > 64 or type(dtype) is not _Dtype:  # numpy's own limit of dimensions
            raise pickle.UnpicklingError("array state")
        if not all(type(n) is int and 0 <= n <= MAX_ANNOTATION_BYTES for n in shape):
            raise pickle.UnpicklingError("array shape")
        count = math.prod(shape)
        if dtype.code.endswith(("O", "O8")):
            if type(data) is not list or len(data) != count:
                raise pickle.UnpicklingError("object array")
            self.items = data
        else:
            self.items = dtype.values(data, count)
        self.shape, self.code = shape, dtype.code


class _Scalar(_Array):
    """Stands for a number or text of numpy."""

    __slots__ = ()
    is_scalar: ClassVar = True


class _Global(_Inert):
    """A name that a pickle may mention, and call if `function` is given."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        self.function = function

    def __call__(self, *args: object) -> Any:
        if self.function is None:
            raise pickle.UnpicklingError("a type is called")
        return self.function(*args)


_NDARRAY = _Global()


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError("a subclass of ndarray")
    return _Array()


def _scalar(dtype: object, data: object = b"") -> _Scalar:
    if not isinstance(dtype, _Dtype):
        raise pickle.UnpicklingError("scalar")
    return _Scalar((), dtype.values(data, 1), dtype.code)


_GLOBALS: Mapping[tuple[str, str], _Global] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Global(_Dtype),
    # numpy 1 wrote numpy.core, numpy 2 writes numpy._core
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Global(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Global(_scalar) for core in ("core", "_core")},
}


class ForbiddenPickle(pickle.UnpicklingError):
    """A pickle asks for something that annotations have no need of."""


class AnnotationUnpickler(pickle._Unpickler):
    """Reads plain data and numpy arrays, and executes nothing.

    Names resolve to the inert stand-ins above, so no code of numpy or of anything else is reached. Opcodes
    are those that `numpy.savez` of version 1 or 2 writes for such data. The base is the pure Python reader,
    because the compiled one lets a file of 20 bytes claim gigabytes for its memo.
    """

    # Members of the base that type checkers do not know of, for it is not documented.
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    load_build: Callable[[], None]
    load_reduce: Callable[[], None]
    pop_mark: Callable[[], list[Any]]
    _file_read: Callable[[int], bytes]
    _file_readline: Callable[[], bytes]

    _OPCODES = (
        "PROTO FRAME STOP MARK MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET NONE NEWTRUE NEWFALSE BININT "
        "BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINBYTES SHORT_BINBYTES EMPTY_TUPLE "
        "TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS GLOBAL "
        "STACK_GLOBAL REDUCE BUILD"
    )
    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        code: pickle._Unpickler.dispatch[code]
        for code in (getattr(pickle, name)[0] for name in _OPCODES.split())
    }

    _unpacked = 0  # bytes of array data so far

    def load(self) -> Any:
        """What the pickle holds; as of the base, which spends a third of its time on cutting frames out."""
        self.read, self.readline = self._file_read, self._file_readline
        self.metastack: list[list[Any]] = []
        self.stack: list[Any] = []
        self.proto = 0
        self.append = self.stack.append
        dispatch = self.dispatch
        try:
            while code := self.read(1):
                dispatch[code[0]](self)
        except pickle._Stop as stop:  # type: ignore[attr-defined]  # not documented either
            return stop.value
        raise EOFError("the pickle has no end")

    def _frame(self) -> None:
        """A frame only says how much may be read at once."""
        if int.from_bytes(self.read(8), "little") > MAX_ANNOTATION_BYTES:
            raise pickle.UnpicklingError("frame is too long")

    def find_class(self, module: str, name: str) -> _Global:
        """The stand-in of a name; ForbiddenPickle for any other."""
        if (known := _GLOBALS.get((module, name))) is None:
            raise ForbiddenPickle(f"{module}.{name}")
        return known

    def _reduce(self) -> None:
        self._charge()
        self.load_reduce()

    def _build(self) -> None:
        self._charge()
        self.load_build()

    def _charge(self) -> None:
        """Count array data, the last argument: by its memo a file can unpack one megabyte 100,000 times."""
        arguments = self.stack[-1]
        data = arguments[-1] if type(arguments) is tuple and arguments else None
        self._unpacked += len(data) if type(data) is bytes else 0
        if self._unpacked > MAX_ANNOTATION_BYTES:
            raise pickle.UnpicklingError("array data is repeated")

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._fill(items[::2], items[1::2])

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key], [value])

    def _fill(self, keys: Sequence[object], values: Sequence[object]) -> None:
        """Text keys only: chosen integers would all fall into one hash bucket and take quadratic time."""
        keys = [key if type(key) is str else _single(key) for key in keys]
        if type(self.stack[-1]) is not dict or not all(type(key) is str for key in keys):
            raise pickle.UnpicklingError("dict key")
        self.stack[-1].update(zip(keys, values, strict=True))

    dispatch[pickle.FRAME[0]] = _frame
    dispatch[pickle.SETITEMS[0]] = _set_items
    dispatch[pickle.SETITEM[0]] = _set_item
    dispatch[pickle.REDUCE[0]] = _reduce
    dispatch[pickle.BUILD[0]] = _build


_NPY_HEADER = re.compile(
    rb"\{'descr': '([^']{1,20})', 'fortran_order': (?:False|True), "
    rb"'shape': \(((?:\d{1,9}(?:,|, \d{1,9}))?)\), \} *\n"
)


def read_annotation_bytes(data: bytes) -> list[Any]:
    """The raw objects of an .npz file, without executing anything.

    Returns:
        What the array "annotations" holds, one item an object; numpy's values are inert stand-ins. Of two
        dimensions row by row; without dimensions, the one object or the list in it.

    Raises:
        Unusable: with an `annotation_…` code.
    """
    npy = _array_member(data)
    start = 10 if npy[6:7] == b"\x01" else 12  # magic, version, then a length of 2 or 4 bytes
    length = int.from_bytes(npy[8:start], "little")
    header = _NPY_HEADER.fullmatch(npy[start : start + length])
    if not npy.startswith(b"\x93NUMPY") or npy[6:8] not in (b"\x01\0", b"\x02\0", b"\x03\0") or not header:
        raise Unusable("annotation_not_array", "no .npy array of at most two dimensions")
    shape = tuple(int(n) for n in header[2].rstrip(b",").split(b",") if n)
    count = math.prod(shape)
    if count > MAX_OBJECTS:
        raise Unusable("annotation_too_large", f"{count} objects")
    if header[1] != b"|O":
        if count == 0:
            return []  # numpy's array of an empty list is of floats
        raise Unusable("annotation_not_array", f"array of {shown(header[1].decode('latin-1'))}")
    try:
        array = AnnotationUnpickler(io.BytesIO(npy[start + length :])).load()
    except ForbiddenPickle as error:
        raise Unusable("annotation_forbidden", shown(str(error))) from error
    except KeyError as error:  # an opcode outside the list
        raise Unusable("annotation_forbidden", f"opcode {shown(str(error))}") from error
    except Exception as error:  # hostile bytes fail in many ways, all of them this one finding
        raise Unusable("annotation_not_array", shown(f"{type(error).__name__}: {error}")) from error
    if type(array) is not _Array or array.shape != shape or len(array.items) != count:
        raise Unusable("annotation_not_array", "another array than the header says")
    return array.items if shape else _without_dimensions(array.items[0])


def _without_dimensions(only: object) -> list[Any]:
    """The objects of an array that has no dimensions: one object, or a list of them."""
    items = only.items if type(only) is _Array else only
    if type(items) is dict:
        return [items]
    if not isinstance(items, (list, tuple)):
        raise Unusable("annotation_not_array", f"an array of {shown(only)}")
    if len(items) > MAX_OBJECTS:
        raise Unusable("annotation_too_large", f"{len(items)} objects")
    return list(items)


def _array_member(data: bytes) -> bytes:
    """annotations.npy of an .npz."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "annotations.npy" not in archive.NameToInfo:
                raise Unusable("annotation_not_array", "no array 'annotations'")
            info = archive.getinfo("annotations.npy")
            if reason := _member_problem(info):
                raise Unusable("annotation_not_npz", reason)
            with archive.open(info) as member:
                npy = member.read(MAX_ANNOTATION_BYTES + 1)
    except Unusable:
        raise
    except Exception as error:  # zipfile meets damaged bytes with many kinds of error
        raise Unusable("annotation_not_npz", shown(f"{type(error).__name__}: {error}")) from error
    if len(npy) > MAX_ANNOTATION_BYTES:
        raise Unusable("annotation_too_large", f"more than {MAX_ANNOTATION_BYTES} bytes unpacked")
    return npy


def read_annotation(release: Release, entry: Entry, findings: list[Finding]) -> Annotation:
    """Read and check one annotation file; what is odd with it or with single objects goes to `findings`.

    Where nothing of the file can be used, how many objects there are is unknown; the picture is there all the
    same.
    """
    try:
        raw = read_raw_objects(release, entry)
    except Unusable as error:
        findings.append(Finding(error.reason, entry.annotation_file, None, error.value))
        return Annotation(None)
    return check_objects(release, entry, raw, findings)


def read_raw_objects(release: Release, entry: Entry) -> list[Any]:
    """What one annotation file holds, unchecked; see `read_annotation_bytes`.

    Raises:
        Unusable: with an `annotation_…` or `member_…` code, if nothing of the file can be used.
    """
    try:
        data = release.tree.read(entry.annotation_file, MAX_ANNOTATION_BYTES, "annotation_too_large")
    except FileNotFoundError:
        raise Unusable("annotation_missing") from None
    return read_annotation_bytes(data)


def check_objects(
    release: Release, entry: Entry, raw: Iterable[object], findings: list[Finding]
) -> Annotation:
    """The annotation that raw objects come to; what is odd with them goes to `findings`."""
    raw = [_single(item) for item in raw]
    left_out: set[int] = set()
    if corrections := release.corrections.get(entry.image_id):
        raw, left_out = _with_corrections(raw, corrections, entry.annotation_file, findings)
    objects: list[ObjectAnnotation] = []
    sizes: list[tuple[int | None, int | None]] = []
    for index, item in enumerate(raw):
        if index in left_out:
            continue
        note = _Notes(entry.annotation_file, index, findings)
        if (checked := _check_object(item, entry.category, release.meshes, note)) is not None:
            objects.append(checked)
            sizes.append((_check_side(item, "height", note), _check_side(item, "width", note)))
    if not raw:
        findings.append(Finding("annotation_empty", entry.annotation_file))
    height, width = sizes[0] if sizes else (None, None)
    return Annotation(len(raw), tuple(objects), height, width, _unknown_keys(raw))


_KEYS_PER_FILE = 100  # a hostile file may name any number


def _unknown_keys(items: Iterable[object]) -> dict[str, int]:
    """How many objects have a key that nobody knows, by its name; the values are not looked at."""
    counts: Counter[str] = Counter()
    for item in items:
        for key in item.keys() - OBJECT_KEYS if type(item) is dict else ():
            name = shown(key)
            counts[name if name in counts or len(counts) < _KEYS_PER_FILE else "(others)"] += 1
    return dict(sorted(counts.items()))


@dataclass(frozen=True, slots=True)
class _Notes:
    """Writes findings about one object."""

    file: str
    index: int
    findings: list[Finding]

    def __call__(self, reason: str, value: object = "") -> None:
        self.findings.append(Finding(reason, self.file, self.index, shown(value)))


def _check_object(
    item: object, category: str, meshes: Mapping[str, int], note: _Notes
) -> ObjectAnnotation | None:
    """One object's dict as an annotation, or None if it is left out."""
    if type(item) is not dict:
        note("object_not_dict", item)
        return None
    item = {key: _single(value) for key, value in item.items() if key in OBJECT_KEYS}
    if (bbox := _check_bbox(item, note)) is None:
        return None
    named = item.get("class")
    if named is not None and _text(named) != category:
        note("class_differs", named)
    pose = _check_pose(item, note)
    status = _check_word(item, "object_status", _STATUS_WORDS, "status_unknown", note)
    dense = _check_word(item, "dense", _DENSITY_WORDS, "density_unknown", note)
    ignored = _check_ignore(item, note)
    cad_index = _check_cad_index(item, category, meshes, note)
    return ObjectAnnotation(note.index, bbox, **pose, cad_index=cad_index, object_status=status, dense=dense,
                            ignored=ignored)  # fmt: skip


_NESTED_AT_MOST = 8


def _single(value: object) -> object:
    """What an array, list or tuple of one value holds, such as the 0-d arrays of `dict(numpy.load(…))`."""
    for _ in range(_NESTED_AT_MOST):
        items = value.items if isinstance(value, _Array) else value
        if not isinstance(items, (list, tuple)) or len(items) != 1:
            break
        value = items[0]
    return value


def _text(value: object) -> str | None:
    """A word of the release; numpy's text of bytes is ASCII."""
    value = value.decode("ascii", "replace") if type(value) is bytes else value
    return value if type(value) is str else None


def _check_bbox(item: dict[str, Any], note: _Notes) -> tuple[float, float, float, float] | None:
    """Four finite numbers, as annotated: an array of shape (4,), (1, 4) or (4, 1), a list or a tuple."""
    raw = item.get("bbox")
    if raw is None:
        note("bbox_missing")
        return None
    items = raw
    if type(raw) is _Array:
        items = raw.items if 4 in raw.shape else None
    four = items if type(items) in (list, tuple) and len(items) == 4 else ()
    box = [number for value in four if (number := _number(_single(value))) is not None]
    if len(box) != 4:
        note("bbox_wrong_type", raw)
        return None
    x1, y1, x2, y2 = box
    text = f"{x1:g}, {y1:g}, {x2:g}, {y2:g}"
    if not all(map(math.isfinite, box)):
        note("bbox_not_finite", text)
        return None
    if x2 <= x1 or y2 <= y1:
        note("bbox_inverted", text)
    return x1, y1, x2, y2


def _check_pose(item: dict[str, Any], note: _Notes) -> dict[str, float | None]:
    """The seven fields of a pose, as annotated; null where absent, not a number or not finite."""
    pose: dict[str, float | None] = {}
    for name in POSE_FIELDS:
        raw, kind = item.get(name), "pose" if name in ANGLES else "place"
        number = _number(raw)
        pose[name] = number if number is not None and math.isfinite(number) else None
        if raw is not None and pose[name] is None:
            value = f"{name} = {shown(raw if number is None else number)}"
            note(f"{kind}_wrong_type" if number is None else f"{kind}_not_finite", value)
    _note_absent(item, note)
    angles = {name: angle for name in ANGLES if (angle := pose[name]) is not None}
    outside = {name: angle for name, angle in angles.items() if not 0 <= angle <= 2 * math.pi}
    if outside:
        note("angle_outside_range", ", ".join(f"{name} = {angle:g}" for name, angle in outside.items()))
    if any(abs(angle) > 4 * math.pi for angle in outside.values()):
        note("angle_beyond_two_turns", ", ".join(f"{name} = {angle:g}" for name, angle in outside.items()))
    if (viewport := pose["viewport"]) is not None and viewport <= 0:
        note("viewport_not_positive", viewport)
    return pose


def _note_absent(item: dict[str, Any], note: _Notes) -> None:
    """Say which fields of a pose are not there."""
    absent = [name for name in POSE_FIELDS if item.get(name) is None]
    angles = [name for name in absent if name in ANGLES]
    if len(absent) == len(POSE_FIELDS):
        note("pose_missing")
    elif angles:
        note("pose_incomplete", "without " + ", ".join(angles))
    else:
        absent += ["cad_index"] * (item.get("cad_index") is None)
        if absent:
            note("place_missing", "without " + ", ".join(absent))


_STATUS_WORDS = {f"{start}{word}": word for word in OBJECT_STATUS for start in ("status_", "")}
_DENSITY_WORDS = {f"{start}{word}": word == "yes" for word in ("yes", "no") for start in ("dense_", "")}


def _check_word(item: dict[str, Any], key: str, words: Mapping[str, Any], reason: str, note: _Notes) -> Any:
    """What one of the release's words stands for, whatever its case; None, with a note, for another word."""
    raw = item.get(key)
    if raw is None or (type(raw) is bool and raw in words.values()):
        return raw
    text = _text(raw)
    word = text.strip().lower() if text is not None and len(text) < 100 else ""
    if word not in words:
        note(reason, raw)
    return words.get(word)


def _check_ignore(item: dict[str, Any], note: _Notes) -> bool:
    if (raw := item.get("ignore")) is None:
        return False
    ignore = float(raw) if type(raw) is bool else _number(raw)
    if ignore is None or not 0 <= ignore < math.inf:
        note("ignore_invalid", raw if ignore is None else ignore)
        return False
    if ignore > 0:
        note("ignore_set", ignore)
    return ignore > 0


def _check_side(item: dict[str, Any], name: str, note: _Notes) -> int | None:
    """The picture's height or width, as annotated."""
    if (raw := _single(item.get(name))) is None:
        return None
    side = _whole_number(raw)
    if side is None or side < 1:
        number = _number(raw)
        note("size_invalid", f"{name} = {shown(raw if number is None else number)}")
        return None
    return side


def _check_cad_index(
    item: dict[str, Any], category: str, meshes: Mapping[str, int], note: _Notes
) -> int | None:
    if (raw := item.get("cad_index")) is None:
        return None
    index = _whole_number(raw)
    if index is None or not -(2**31) <= index < 2**31:
        note("cad_index_invalid", raw)
        return None
    if f"CAD/{category}/{index:02d}.off" not in meshes:
        note("cad_mesh_missing", index)
    return index


def _number(value: object) -> float | None:
    """A Python or numpy number as float64, which holds float32 and integers below 2**53 exactly.

    Text and booleans are none.
    """
    if type(value) is float:
        return value
    return float(value) if type(value) is int and value.bit_length() < 1000 else None


def _whole_number(value: object) -> int | None:
    number = _number(value)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


# --------------------------------------------------------------------------------------------------------
# Corrections
# --------------------------------------------------------------------------------------------------------

# What a correction may change: to which numbers, both ends among them where they are True.
_NEW_NUMBERS: Mapping[str, tuple[float, float, bool]] = {
    **dict.fromkeys(ANGLES, (-4 * math.pi, 4 * math.pi, True)),  # past it they are degrees by mistake
    "distance": (0, 1e6, False),
    "px": (-1e6, 1e6, True),
    "py": (-1e6, 1e6, True),
    "viewport": (0, 1e9, False),
}
CORRECTED_FIELDS = (*POSE_FIELDS, "cad_index", "bbox", "object_status", "dense")
CORRECTION_OPERATIONS = ("set", "leave_out", "take_back", "add")
MAX_CORRECTION_BYTES = 2**16  # of a line
_MAX_WHY, _MAX_WHO = 2000, 100  # letters
_WHEN = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LARGEST = float(np.finfo(np.float64).max)


class CorrectionError(ReleaseError):
    """Corrections cannot be applied; the message names every line that is wrong, and the remedy."""


@dataclass(frozen=True, slots=True)
class Correction:
    """One line of a file of corrections; docs/corrections.md says what may stand there.

    Attributes:
        operation: of `CORRECTION_OPERATIONS`.
        image_id, object_index: the object; of `add`, the next index of its picture that is free.
        when: ISO 8601, UTC, ending in Z.
        why: in words.
        who: a name that the person chose to publish, or None.
        old: of `set`, the release's values, as columns have them but for labels, which are words.
        new: of `set` and `add`, by name; of `set` the same names as `old`.
        reviewed: whether it repeats one of two readings that the person saw side by side.
        file, line: where it stands, for errors.
    """

    operation: str
    image_id: str
    object_index: int
    when: str
    why: str
    who: str | None = None
    old: Mapping[str, Any] = field(default_factory=dict)
    new: Mapping[str, Any] = field(default_factory=dict)
    reviewed: bool = False
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    def to_json(self) -> str:
        """The line, in the one form that is published."""
        names = ("operation", "image_id", "object_index", "old", "new", "who", "when", "why", "reviewed")
        values = {name: getattr(self, name) for name in names}
        said = {key: v for key, v in values.items() if key == "object_index" or v not in (None, {}, False)}
        return json.dumps(said, ensure_ascii=False)

    @property
    def time(self) -> datetime:
        """When, in UTC."""
        return datetime.fromisoformat(self.when)

    @property
    def order(self) -> tuple[datetime, str]:
        """By time; of the same time by their text, so that the order of lines does not matter."""
        return self.time, self.to_json()


def read_corrections(paths: str | Sequence[str]) -> tuple[Correction, ...]:
    """The corrections of files of JSON lines, by time, each once; nothing is held against a release yet.

    Args:
        paths: local or any fsspec URLs.

    Raises:
        CorrectionError: if a file is missing, or any line is none; all such lines are named.
    """
    found: dict[str, Correction] = {}
    problems: list[str] = []
    for path in [paths] if isinstance(paths, str | os.PathLike) else paths:
        fs, location = fsspec.core.url_to_fs(os.fspath(path))
        with _named_errors(str(path), fs):
            data = _content(fs, location)
        if data is None:
            raise CorrectionError(f"{path}: no such file of corrections")
        for number, line in enumerate(data.split(b"\n"), 1):
            try:
                if line.strip():
                    correction = replace(parse_correction(line), file=str(path), line=number)
                    found.setdefault(correction.to_json(), correction)
            except ValueError as error:
                problems.append(f"{path}, line {number}: {error}")
    if problems:
        raise _correction_error(problems)
    return tuple(sorted(found.values(), key=lambda correction: correction.order))


def corrections_text(corrections: Iterable[Correction]) -> str:
    """The file that is published, whatever order the corrections stood in."""
    ordered = sorted(corrections, key=lambda correction: correction.order)
    return "".join(f"{correction.to_json()}\n" for correction in ordered)


def _correction_error(problems: Sequence[str]) -> CorrectionError:
    return CorrectionError("\n".join([f"{len(problems)} corrections cannot be applied:", *problems]))


def parse_correction(line: bytes | str) -> Correction:
    """One line of a file of corrections, checked as far as it can be without the release.

    Raises:
        ValueError: says what is wrong with it, and the remedy.
    """
    if len(line) > MAX_CORRECTION_BYTES:
        raise ValueError(f"longer than {MAX_CORRECTION_BYTES} bytes; a line is one correction")
    try:
        values = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({shown(str(error))}); write one object on a line") from error
    if type(values) is not dict:
        raise ValueError("not a JSON object; write {…} with the keys of docs/corrections.md")
    operation = values.get("operation")
    if operation not in CORRECTION_OPERATIONS:
        raise ValueError(f"operation is {shown(operation)}; write one of {', '.join(CORRECTION_OPERATIONS)}")
    needed = ["operation", "image_id", "object_index", "when", "why"]
    needed += {"set": ["old", "new"], "add": ["new"]}.get(operation, [])
    if missing := [name for name in needed if name not in values]:
        raise ValueError(f"lacks {', '.join(missing)}; {operation} needs them")
    if unknown := sorted(values.keys() - {*needed, "who", "reviewed"}):
        allowed = ", ".join([*needed, "who", "reviewed"])
        raise ValueError(f"unknown key {shown(unknown[0])}; the keys of {operation} are {allowed}")
    problems = [text for name, value in values.items() if (text := _key_problem(name, value))]
    problems += _changes_problems(operation, values.get("old", {}), values.get("new", {}))
    if problems:
        raise ValueError("; ".join(problems))
    for name in ("old", "new"):
        given = values.get(name, {})
        values[name] = {key: _as_column(key, given[key]) for key in CORRECTED_FIELDS if key in given}
    return Correction(**{**values, "object_index": int(values["object_index"])})


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(values := dict(pairs)) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def _key_problem(name: str, value: Any) -> str | None:
    """What is wrong with a key's value, but for old and new."""
    if name == "image_id":
        is_id = type(value) is str and re.fullmatch("[^/]+/[^/]+", value) and not _CONTROL.search(value)
        return None if is_id else f"image_id is {shown(value)}; write <category>/<file stem>"
    if name == "object_index" and not (_is_whole(value) and 0 <= value < MAX_OBJECTS):
        return f"object_index is {shown(value)}; write a whole number from 0 to {MAX_OBJECTS - 1}"
    if name == "reviewed" and type(value) is not bool:
        return f"reviewed is {shown(value)}; write true, or leave it out"
    if name == "when":
        try:
            datetime.fromisoformat(value if type(value) is str and _WHEN.fullmatch(value) else "")
        except ValueError:
            return f"when is {shown(value)}; write a time in UTC such as 2026-11-28T09:30:00Z"
    if name in ("why", "who") and not (name == "who" and value is None):
        most = _MAX_WHY if name == "why" else _MAX_WHO
        if type(value) is not str or not value.strip() or len(value) > most or _CONTROL.search(value):
            return f"{name} is {shown(value)}; write a line of at most {most} letters"
    return None


def _changes_problems(operation: str, old: Any, new: Any) -> Iterator[str]:
    """What is wrong with the values."""
    if type(old) is not dict or type(new) is not dict:
        yield "old and new are objects of names and values"
    elif operation == "set" and (old.keys() != new.keys() or not new):
        yield "old and new have different fields, or none; write the same fields in both"
    elif operation == "add" and "bbox" not in new:
        yield "an object that is added needs a bbox"
    else:
        for name, value in new.items():
            if name not in CORRECTED_FIELDS:
                yield f"unknown field {shown(name)}; the fields are {', '.join(CORRECTED_FIELDS)}"
            elif not may_be_new(name, value):
                yield f"{name} is {shown(value)}; write {_wanted(name)}"
            elif name in old and not _may_be_old(name, old[name]):
                yield f"old {name} is {shown(old[name])}, which no release has; write {_wanted(name)}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _is_whole(value: Any) -> bool:
    """Whether JSON Schema takes it for an integer."""
    return _is_number(value) and value == int(value)


def may_be_new(name: str, value: Any) -> bool:
    """Whether a correction may give a field this value, of JSON."""
    if name == "bbox":
        four = type(value) is list and len(value) == 4 and all(_is_number(v) and abs(v) <= 1e6 for v in value)
        return four and value[0] < value[2] and value[1] < value[3]
    if value is None:
        return True
    if name == "cad_index":
        return _is_whole(value) and 1 <= value < 2**31
    if name == "object_status":
        return value in OBJECT_STATUS
    if name == "dense":
        return type(value) is bool
    low, high, closed = _NEW_NUMBERS[name]
    return _is_number(value) and (low <= value <= high if closed else low < value <= high)


def _may_be_old(name: str, value: Any) -> bool:
    """Whether a release may have a value, of whatever size."""
    if value is None or name in ("object_status", "dense"):
        return value is None or may_be_new(name, value)
    if name == "bbox":
        return type(value) is list and len(value) == 4 and all(map(_is_number, value))
    return _is_whole(value) if name == "cad_index" else _is_number(value)


def _wanted(name: str) -> str:
    """The values that a correction may give a field, in words."""
    if name in _NEW_NUMBERS:
        low, high, closed = _NEW_NUMBERS[name]
        unit = ", in radians" if name in ANGLES else ""
        return f"null or a number {'from' if closed else 'above'} {low:g} to {high:g}{unit}"
    return {
        "cad_index": "null or a whole number from 1",
        "bbox": "four numbers of at most 1e6, x1 < x2 and y1 < y2",
        "object_status": f"null or one of {', '.join(OBJECT_STATUS)}",
        "dense": "true, false or null",
    }[name]


def _as_column(name: str, value: Any) -> Any:
    """A value of JSON with the type of its column."""
    if value is None:
        return None
    if name == "bbox":
        return [float(v) for v in value]
    if name == "cad_index":
        return int(value)
    return float(value) if name in _NEW_NUMBERS else value


def _of_pictures(corrections: Iterable[Correction]) -> dict[str, tuple[Correction, ...]]:
    """Image id -> its corrections, in their order."""
    pictures: dict[str, list[Correction]] = {}
    for correction in corrections:
        pictures.setdefault(correction.image_id, []).append(correction)
    return {image_id: tuple(found) for image_id, found in pictures.items()}


def _check_corrections(release: Release, entries: Iterable[Entry]) -> None:
    """Hold a release's corrections against its annotations.

    Raises:
        CorrectionError: names all lines that speak of other objects or other values than the release's.
    """
    pictures = release.corrections
    named = [entry for entry in entries if entry.image_id in pictures]
    wrong: list[tuple[Correction, str]] = []
    for start in range(0, len(named), CHUNK):
        near = release.fetched(named[start : start + CHUNK], pictures=False)
        for entry in named[start : start + CHUNK]:
            corrections = pictures[entry.image_id]
            try:
                raw = [_single(item) for item in read_raw_objects(near, entry)]
            except Unusable as error:
                wrong += [(c, f"its annotation cannot be used: {error.reason}") for c in corrections]
            else:
                wrong += _wrong_corrections(raw, corrections, release.meshes)
    for image_id in pictures.keys() - {entry.image_id for entry in named}:
        wrong += [(c, "no list of the release names the picture") for c in pictures[image_id]]
    if wrong:
        wrong.sort(key=lambda pair: (pair[0].file, pair[0].line))
        said = "{0.file}, line {0.line}: {1}, object {0.object_index}: {2}"
        raise _correction_error([said.format(c, shown(c.image_id), why) for c, why in wrong])


def _wrong_corrections(
    raw: Sequence[object], corrections: Sequence[Correction], meshes: Mapping[str, int]
) -> Iterator[tuple[Correction, str]]:
    """The corrections of one picture that do not fit its annotation, each with the reason and the remedy."""
    items = list(raw)
    for correction in sorted(corrections, key=lambda c: c.object_index):
        if correction.operation == "add":
            if correction.object_index == len(items):
                items.append(_raw_values(correction.new))
            else:
                yield correction, f"an object that is added gets the next free index, {len(items)} here"
    for correction in corrections:
        if correction.operation != "add" and correction.object_index >= len(items):
            yield correction, f"there is no such object; the picture has {len(items)}"
        elif correction.operation == "set":
            item = items[correction.object_index]
            if type(item) is not dict:
                yield correction, "the release has no values there that could be corrected"
                continue
            values = object_values(item, correction.image_id.partition("/")[0], meshes)
            for name, old in correction.old.items():
                if old != values[name]:
                    said = f"old {name} is {json.dumps(old)}, and the release has {json.dumps(values[name])}"
                    yield correction, f"{said}; it was made for another release: look at the object again"


def object_values(item: dict[str, Any], category: str, meshes: Mapping[str, int]) -> dict[str, Any]:
    """What the release says of an object, as corrections name it: null where that cannot be used."""
    quiet = _Notes("", 0, [])
    box = _check_bbox({"bbox": _single(item.get("bbox"))}, quiet)
    checked = _check_object({**item, "bbox": box or (0.0, 0.0, 1.0, 1.0)}, category, meshes, quiet)
    values = {name: getattr(checked, name) for name in CORRECTED_FIELDS}
    return {**values, "bbox": list(box) if box else None}


def _raw_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of columns as a release's annotation has them."""
    raw = dict(values)
    if raw.get("object_status") is not None:
        raw["object_status"] = f"status_{raw['object_status']}"
    if raw.get("dense") is not None:
        raw["dense"] = "dense_yes" if raw["dense"] else "dense_no"
    return raw


def _with_corrections(
    raw: Sequence[Any], corrections: Sequence[Correction], file: str, findings: list[Finding]
) -> tuple[list[Any], set[int]]:
    """A picture's raw objects with its corrections, and the indices of those that are left out.

    Args:
        corrections: in their order; the later wins, field by field.
        findings: get a note for each.
    """
    items = list(raw)
    left_out: set[int] = set()
    added = sorted((c for c in corrections if c.operation == "add"), key=lambda c: c.object_index)
    items += [_raw_values(correction.new) for correction in added]
    last: dict[tuple[int, str], tuple[Any, str | None]] = {}  # what was said of a field, and by whom
    for correction in corrections:
        index = correction.object_index
        note = _Notes(file, index, findings)
        if correction.operation == "set":
            items[index] = {**items[index], **_raw_values(correction.new)}
        elif correction.operation != "add":
            (left_out.add if correction.operation == "leave_out" else left_out.discard)(index)
        note("corrected", f"{correction.when} {correction.operation} {', '.join(correction.new)}".strip())
        said = correction.new or {"left out": correction.operation}
        overruled = [
            name
            for name, value in said.items()
            if (index, name) in last
            and last[index, name][0] != value
            and (correction.who is None or last[index, name][1] != correction.who)
        ]
        if overruled:
            note("correction_overruled", f"{', '.join(overruled)} at {correction.when}")
        last.update({(index, name): (value, correction.who) for name, value in said.items()})
    findings += [Finding("corrected_left_out", file, index) for index in sorted(left_out)]
    return items, left_out


# --------------------------------------------------------------------------------------------------------
# Captions
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Captions:
    """The captions that were released apart.

    Attributes:
        by_picture: "<category>/<file stem>" -> text, in which <obj0>, <obj1>… stand for objects.
        by_category: category -> text.
        findings: captions that are not text, of nothing in the release, or of what has one already.
    """

    by_picture: Mapping[str, str]
    by_category: Mapping[str, str]
    findings: tuple[Finding, ...] = ()


_JSON_FILE = re.compile(r".*\.(?:json|jsonl|ndjson)", re.DOTALL | re.IGNORECASE)


def caption_files_of(folder: str) -> dict[str, bytes]:
    """Path -> bytes of the JSON files with captions that a path or fsspec URL, of a folder or of one, has.

    The path stands for itself: it begins with `captions/`, whatever the folder is called.

    Raises:
        ReleaseError: if there is none, or one cannot be read.
    """
    fs, location = fsspec.core.url_to_fs(os.fspath(folder))
    with _named_errors(folder, fs):
        one = _content(fs, location) if _JSON_FILE.fullmatch(location) else None
        files = _json_files(fs, location, inner=True) if one is None else {posixpath.basename(location): one}
    if not files:
        raise ReleaseError(f"{folder}: no .json or .jsonl file with captions is there")
    return {f"captions/{name}": data for name, data in files.items()}


def caption_files(tree: RawTree, listing: Listing, folder: str | None) -> dict[str, bytes]:
    """Path -> bytes of JSON files with captions: in a folder, or in `captions/` of the tree and beside it.

    Paths are those inside the tree; beside it they begin with `../`. The tree's own go first.

    Args:
        folder: path or fsspec URL of a folder, or of one file; the tree is not looked at then.

    Raises:
        ReleaseError: if a given folder has no such file, or a file of the tree cannot be read.
    """
    if folder is not None:
        return caption_files_of(folder)
    files = {}
    for name in sorted(listing.sizes):
        hidden = "/." in name  # what macOS and editors put beside a file
        if name.startswith("captions/") and _JSON_FILE.fullmatch(name) and not hidden:
            try:
                files[name] = tree.read(name, MAX_CAPTIONS_BYTES, "caption_wrong_type")
            except Unusable as error:
                raise ReleaseError(f"{tree.path}: {shown(name)}: {REASONS[error.reason].rule}") from error
    return files | {f"../{name}": data for name, data in tree.captions_beside().items()}


def _json_files(
    fs: fsspec.AbstractFileSystem, folder: str, part: str = "", inner: bool = False
) -> dict[str, bytes]:
    """Path below a folder -> bytes of its JSON files that are not hidden; none where there is no folder.

    Args:
        part: what the names of the files have in them.
        inner: whether the folders in it are looked into, as there may be one a split; but no deeper.
    """
    try:
        items = sorted((item["name"].rstrip("/"), item["type"]) for item in fs.ls(folder, detail=True))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    contents: dict[str, bytes] = {}
    for path, kind in items:
        name = posixpath.basename(path)
        if name.startswith("."):
            continue
        if kind == "directory":
            below = _json_files(fs, path, part) if inner and path != folder.rstrip("/") else {}
            contents |= {f"{name}/{file}": data for file, data in below.items()}
        elif _JSON_FILE.fullmatch(name) and part in name.lower():
            with _named_errors(path, fs):
                data = _content(fs, path)
            contents |= {} if data is None else {name: data}
    return contents


def _content(fs: fsspec.AbstractFileSystem, path: str) -> bytes | None:
    """The bytes of a file; None if there is none. Asking first does not do: stores that fail say no."""
    try:
        return fs.cat_file(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except io.UnsupportedOperation as error:
        raise ReleaseError(
            f"{path}: a pipe, which can be read only once; write it to a file first"
        ) from error


def read_captions(
    files: Mapping[str, bytes], image_ids: Collection[str], categories: Collection[str]
) -> Captions:
    """What captions files say of these pictures and categories, in whatever form of JSON.

    A file is a dict of texts, a list of records, or JSON lines. What a text belongs to is told by values, not
    by names of fields: a category, an image id with or without .JPEG, a path that ends so, or its stem if
    that is unique. The caption is the text of the field called caption; where there is none, the longest of
    the texts that have a space in them.

    Args:
        files: path -> bytes; of two captions for one picture or category the first is used.

    Raises:
        ReleaseError: if a file is not JSON.
    """
    names = _CaptionNames(image_ids, categories)
    by_picture: dict[str, str] = {}
    by_category: dict[str, str] = {}
    findings: list[Finding] = []
    for file, data in files.items():
        content, twice = _parsed_json(file, data)
        findings += [Finding("caption_conflict", shown(file), None, shown(key)) for key in twice]
        for could_name, texts in _caption_records(content, names):
            reason, key, text = names.caption(could_name, texts)
            if not reason:
                known = by_category if key in names.categories else by_picture
                reason = "caption_conflict" if known.setdefault(key, text) != text else ""
            if reason:
                findings.append(Finding(reason, shown(file), None, shown(key)))
    return Captions(by_picture, by_category, tuple(findings))


def _parsed_json(file: str, data: bytes) -> tuple[Any, list[str]]:
    """A file's content, a list if it is JSON lines; and keys that have a second value, which is not in it."""
    twice: list[str] = []

    def first_values(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        twice.extend(key for key, value in pairs if values.setdefault(key, value) != value)
        return values

    try:
        try:
            return json.loads(data, object_pairs_hook=first_values), twice
        except json.JSONDecodeError:
            lines = data.decode(json.detect_encoding(data)).split("\n")  # a text may hold any other line end
            if len(lines) < 2:
                raise
            twice.clear()
            records = [json.loads(line, object_pairs_hook=first_values) for line in lines if line.strip()]
            return records, twice
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{shown(file)}: not JSON ({shown(str(error))})") from error


# Values that may name what a text is of, and those among which the text is.
_CaptionRecord = tuple[list[Any], list[Any]]


def _caption_records(content: Any, names: _CaptionNames) -> Iterator[_CaptionRecord]:
    """The records of a file, in whatever form."""
    if isinstance(content, dict) and isinstance(content.get("caption"), str):
        content = [content]  # JSON lines of one line
    for item in content if isinstance(content, list) else [content]:
        if isinstance(item, dict) and (item is content or len(item) == 1):
            yield from _captions_by_key(item, names)
        elif isinstance(item, dict):
            yield _fields(item)
        else:
            values = item if isinstance(item, list) else [item]
            yield values, values


def _captions_by_key(
    content: Mapping[str, Any], names: _CaptionNames, category: str = ""
) -> Iterator[_CaptionRecord]:
    """The records of a dict whose keys name what the texts are of; a stem may be of the given category."""
    for key, value in content.items():
        name = key
        if category and "/" not in key:
            name = names.image(key, [category]) or f"{category}/{key}"
        if isinstance(value, list) and value and isinstance(value[0], dict):  # {"data": [record, …]}
            yield from _caption_records(value, names)
        elif isinstance(value, dict) and names.is_group(key, value):
            yield from _captions_by_key(value, names, key if key in names.categories else "")
        elif isinstance(value, dict):
            yield [name], _fields(value)[1]
        else:
            yield [name], value if isinstance(value, list) else [value]


def _fields(record: Mapping[str, Any]) -> _CaptionRecord:
    """The values of a record; "train" is a split, and no category, where the record says so."""
    fields = [(key.lower(), value) for key, value in record.items() if key.lower() != "split"]
    fields.sort(key=lambda item: item[0] not in ("category", "class"))
    flat = [(key, part) for key, value in fields for part in (value if isinstance(value, list) else [value])]
    called = {key for key, _ in flat if key in ("caption", "captions")} or {
        key for key, part in flat if "caption" in key and isinstance(part, str)
    }
    could_name = [part for key, part in flat if key not in called]
    return could_name, [part for key, part in flat if key in called or not called]


class _CaptionNames:
    """Finds what a caption is of."""

    _FILE = r"\S+\.jpe?g|n\d{8}_\d+"
    # What names a picture, also one that the release has not.
    _OF_PICTURE = re.compile(rf"{_FILE}|[^\s/]+/[^\s/]+", re.IGNORECASE)
    _OF_FILE = re.compile(_FILE, re.IGNORECASE)

    def __init__(self, image_ids: Collection[str], categories: Collection[str]) -> None:
        self.categories = frozenset(categories)
        self._image_ids = frozenset(image_ids)
        stems = Counter(image_id.partition("/")[2] for image_id in self._image_ids)
        self._stems = {i.partition("/")[2]: i for i in self._image_ids if stems[i.partition("/")[2]] == 1}

    def image(self, text: str, categories: Sequence[str] = ()) -> str | None:
        """The image id that a text, or a path's end, stands for; a stem may be of one of some categories."""
        *folders, stem = re.sub(r"\.jpe?g$", "", text, flags=re.IGNORECASE).split("/")
        name = "/".join((*folders[-1:], stem))
        if not self.categories.isdisjoint(folders[-1:]):
            return name if name in self._image_ids else None
        candidates = (name, *(f"{category}/{stem}" for category in categories))
        return next((c for c in candidates if c in self._image_ids), self._stems.get(stem))

    def is_group(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether a dict's keys name what its texts are of, and its own key does not: a split, a category."""
        if self._names_picture(key):
            return False
        if any(self._OF_PICTURE.fullmatch(inner) or self.image(inner, [key]) for inner in values):
            return True
        return key not in self.categories and sum(map(self.categories.__contains__, values)) * 2 > len(values)

    def _names_picture(self, text: str) -> bool:
        return bool(self._OF_PICTURE.fullmatch(text) or self.image(text))

    def caption(self, could_name: Sequence[Any], texts: Sequence[Any]) -> tuple[str, str, str]:
        """(reason code or "", image id or category, text) of a record."""
        could_name = [value for value in could_name if isinstance(value, str)]
        categories = [text for text in could_name if text in self.categories]
        images = {text: image for text in could_name if (image := self.image(text, categories))}
        of_pictures = [text for text in could_name if self._OF_PICTURE.fullmatch(text)]
        own = (list(images) or of_pictures or categories)[:1]
        texts = [value for value in texts if isinstance(value, str)]
        rest = [text for text in texts if text not in own]
        if len(texts) > 1:  # beside others what names a picture is no caption
            rest = [t for t in rest if not self._OF_FILE.fullmatch(t) and not self.image(t, categories)]
        rest = [text for text in rest if text not in categories] or rest  # "bed" may be what a bed's says
        shortest = min(could_name or texts, key=len, default="")
        if not rest or not all(map(is_unicode, (*own, *rest))):
            return "caption_wrong_type", own[0] if own else shortest, ""
        key = images[own[0]] if images else own[0] if own else ""
        if not images and key not in self.categories:
            return "caption_without_picture", key or shortest, ""
        return "", key, max(rest, key=lambda text: (" " in text.strip(), len(text)))


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold a text: JSON lets one half of a surrogate pair stand alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --------------------------------------------------------------------------------------------------------
# The raw tree: a folder or a zip
# --------------------------------------------------------------------------------------------------------

TREE_FOLDERS = ("lists", "images", "annotations", "CAD", "captions")  # lists name what the others may have


@dataclass(frozen=True)
class Listing:
    """All files of a tree.

    Attributes:
        sizes: path inside the tree -> bytes.
        fingerprint: hexadecimal; changes when any file is added, removed or changed.
        findings: members that cannot be used.
    """

    sizes: Mapping[str, int]
    fingerprint: str
    findings: tuple[Finding, ...] = ()


@contextmanager
def _named_errors(where: str, fs: fsspec.AbstractFileSystem) -> Iterator[None]:
    """Name the file and the remedy where a store only says how it failed."""
    try:
        yield
    except (FileNotFoundError, Unusable, ReleaseError, UnansweredError):
        raise
    except Exception as error:
        if _is_local(fs):
            raise
        if isinstance(error, _NoRangesError):
            raise ReleaseError(
                f"{where}: {error}; download it first, then give the path of the file"
            ) from error
        _, remedy = _ANSWERS.get(_status(error) or 0, _OTHER_ANSWER)
        raise UnansweredError(
            f"{where}: {shown_error(error)}; also when asked again. {remedy}, then run the same "
            "command again to go on"
        ) from error


class _NoRangesError(OSError):
    """A server that only gives whole files."""


# What a server means by its answer, and what to do.
_ANSWERS: Mapping[int, tuple[str, str]] = {
    401: ("asks who you are", "Check the credentials, or ask for a new address if it is a signed one"),
    403: ("refuses you", "Check the credentials, or ask for a new address if it is a signed one"),
    404: ("has no such file", "Check the address"),
    410: ("has no such file any more", "Check the address"),
    429: ("has had too many requests", "Wait a few minutes"),
    **dict.fromkeys(range(500, 600), ("failed", "The server is out of order; wait a while")),
}
_OTHER_ANSWER = "failed", "Check the connection and the credentials"


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error of a file system; None where no server has answered."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        for status in (getattr(cause, "status", None), getattr(response, "status_code", None)):
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """An error, and those behind it."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    return causes


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return "file" in np.atleast_1d(fs.protocol)


class RawTree:
    """The raw release, read in place: a folder, or a zip that is never unpacked.

    Instances are small and can be sent to other processes; each process opens the zip for itself.

    Args:
        path: a folder or a .zip, local or any fsspec URL, with or without the top folder.
        storage_options: for the fsspec file system.

    Raises:
        ReleaseError: if there is no such tree, or the zip is cut off or holds none.
    """

    def __init__(self, path: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.path = os.fspath(path)
        if not is_unicode(self.path) or "\0" in self.path:
            raise ReleaseError(
                f"{self.path!a}: is no UTF-8, which not all libraries can open; rename the folder"
            )
        self.storage_options = dict(storage_options or {})
        self._made: tuple[int, fsspec.AbstractFileSystem] | None = None
        self._fetched: Mapping[str, bytes | None] = {}
        try:
            self._location = fsspec.core.url_to_fs(self.path, **self.storage_options)[1]
        except (ImportError, ValueError) as error:  # a package or protocol that is not there
            raise ReleaseError(f"{self.path}: {error}") from error
        self._is_local = _is_local(self._fs)
        self._fs.invalidate_cache()  # what it listed before may have changed
        info = self._found()
        self.is_archive = info["type"] == "file"
        if self.is_archive:
            self._size, self._state = info["size"], _state(info)
            if self._size is None:
                raise ReleaseError(f"{self.path}: the server does not say how large it is; download it first")
        with self._named_errors(""):
            self._top = self._find_top_member() if self.is_archive else self._find_top_folder()

    @property
    def taken(self) -> str:
        """The folder with images/ that is read, in words: it may lie below the given path."""
        return f"{self.path}: {shown(self._top) or 'the top'} in the zip" if self.is_archive else self._top

    @property
    def _fs(self) -> fsspec.AbstractFileSystem:
        """The file system, made anew in each process: connections to a store do not survive a fork."""
        if self._made is None or self._made[0] != os.getpid():
            self._made = os.getpid(), fsspec.core.url_to_fs(self.path, **self.storage_options)[0]
        return self._made[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": None, "_fetched": {}}

    def _found(self) -> Mapping[str, Any]:
        """What the file system says of the path: a folder or a file."""
        message = f"{self.path}: no such folder or zip; give the raw release, zipped or unpacked"
        try:
            info = self._fs.info(self._location)
        except Exception as error:  # packages for stores fail in ways of their own
            raise ReleaseError(self._why_not_found(error, message)) from error
        if self._is_local:  # where it may also be a link, or a pipe
            info = {**info, "type": "directory" if self._fs.isdir(self._location) else info["type"]}
            if info["type"] != "directory" and not self._fs.isfile(self._location):
                raise ReleaseError(message)
        return info

    def _why_not_found(self, error: Exception, message: str) -> str:
        """What it means that a file system cannot say what the path is."""
        if (status := _status(error)) is not None:
            said, remedy = _ANSWERS.get(status, _OTHER_ANSWER)
            return f"{self.path}: the server {said} (HTTP {status}). {remedy}"
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        if missing and "http" not in np.atleast_1d(self._fs.protocol):  # which says so of all that fails
            return message
        text = shown_error(error.__cause__ or error)
        return f"{self.path}: cannot be read ({text}). Check the address, the connection and the credentials"

    def _named_errors(self, name: str) -> AbstractContextManager[None]:
        """Name the file and the remedy where a store only says how it failed."""
        return _named_errors(f"{self.path}: {name}" if name else self.path, self._fs)

    def _find_top_folder(self) -> str:
        """The folder that holds images/: the path itself, or the only folder in it that does."""
        if self._fs.isdir(f"{self._location}/images"):
            return self._location
        folders = [
            item["name"] for item in self._fs.ls(self._location, detail=True) if item["type"] == "directory"
        ]
        tops = [name for name in folders if self._fs.isdir(f"{name}/images")]
        if len(tops) == 1:
            return tops[0].rstrip("/")
        raise ReleaseError(
            f"{self.path}: {_described(tops)}; give the folder that holds images/, annotations/ and lists/"
        )

    def _find_top_member(self) -> str:
        names = [info.filename for info in self.archive.infolist() if not _is_unsafe(info)]
        tops = {match[1] for name in names if (match := _PICTURE_MEMBER.fullmatch(name))}
        tops = {top for top in tops if not top.startswith(_OF_MACOS)}
        if len(tops) == 1:
            return tops.pop()
        for pattern, odd in _ODD_NAMES if not tops else ():
            if any(re.match(pattern, info.orig_filename) for info in self.archive.infolist()):
                raise ReleaseError(f"{self.path}: was made with {odd}; unpack it and give the folder")
        other = "" if tops else self._other_kind()  # a tar may end with a zip of its own, the last annotation
        raise ReleaseError(
            f"{self.path}: {other or f'{_described(tops)} in the zip; it must hold one tree of the release'}"
        )

    @property
    def archive(self) -> zipfile.ZipFile:
        """The zip, opened once a process."""
        try:
            return _open_archive(os.getpid(), self._fs, self._location, self._size, self._state)
        except ReleaseError:
            raise
        except _ZIP_ERRORS as error:
            damaged = f"not a whole zip file ({shown(str(error))}); download the release again"
            raise ReleaseError(f"{self.path}: {self._other_kind() or damaged}") from error

    def _other_kind(self) -> str:
        """What a file is if not a zip, and what to do; "" where its beginning does not tell."""
        with self._named_errors(""):
            head = self._fs.cat_file(self._location, start=0, end=min(self._size, 512)) if self._size else b""
        for begins, at, kind in _OTHER_ARCHIVES:
            if head[at:].startswith(begins):
                return f"is {kind}, not a zip; unpack it and give the folder"
        if head.startswith(b"PK\x07\x08") or re.search(r"\.z(?:ip\.)?[0-9]+$", self._location):
            return _IN_PARTS
        return ""

    def read(self, name: str, limit: int, too_large: str) -> bytes:
        """The bytes of one file.

        Args:
            name: path inside the tree, such as `lists/bed_imagenet_val.txt`.
            limit: bytes; a larger file is not read further.
            too_large: the reason code of a larger file.

        Raises:
            FileNotFoundError: if there is no such file.
            Unusable: past the limit, or with a `member_…` code for a zip member that cannot be read.
            UnansweredError: if a store fails for good.
        """
        with self._named_errors(name):
            data = self._read_member(name, limit) if self.is_archive else self._read_file(name, limit)
        if len(data) > limit:
            raise Unusable(too_large, f"more than {limit} bytes")
        return data

    def _read_file(self, name: str, limit: int) -> bytes:
        if (data := self._fetched.get(name)) is not None:
            return data
        path = f"{self._top}/{name}"
        if self._is_local:
            return _read_local_file(path, limit)
        info = self._fs.info(path)
        if info["type"] != "file":
            raise FileNotFoundError(name)
        end = min(info["size"], limit + 1)
        return self._fs.cat_file(path, start=0, end=end) if end else b""  # no store gives an empty range

    def _read_member(self, name: str, limit: int) -> bytes:
        try:
            info = self.archive.getinfo(self._top + name)
        except KeyError:
            raise FileNotFoundError(name) from None
        if info.filename in _conflicts(self.archive):
            raise Unusable("member_conflict")
        if reason := _member_problem(info):
            raise Unusable(reason)
        if not 0 <= info.header_offset < self.archive.start_dir:  # seeking there is an error of the disk
            raise Unusable("member_damaged", "it begins outside the zip")
        archive = self.archive
        if not self._is_local:
            near = self if name in self._fetched else self.fetched({name: limit})
            data = near._fetched[name] or b""
            archive = copy.copy(archive)
            file = _RemoteFile(self._fs, self._location, self._size, info.header_offset, data)
            # zipfile reads and seeks, no more; type checkers want all of IO, which no class of io itself is.
            archive.fp = cast("IO[bytes]", file)
        try:
            with archive.open(info) as member:
                return member.read(limit + 1)
        except _ZIP_ERRORS as error:
            raise Unusable("member_damaged", shown(str(error))) from error

    def fetched(self, limits: Mapping[str, int]) -> RawTree:
        """The same tree with some files at hand, which are fetched side by side if it is on a store.

        On a disk the system is told that they will be read: it then fetches them side by side as well, unless
        it holds them already. What cannot be fetched is left to `read`, which says why.

        Args:
            limits: path inside the tree -> bytes; of a larger file no more is fetched.
        """
        if limits.keys() <= self._fetched.keys():
            return self
        if self.is_archive:
            ranges = {name: self._member_range(name, limit) for name, limit in limits.items()}
        else:
            ranges = {name: (f"{self._top}/{name}", 0, limit + 1) for name, limit in limits.items()}
        requests = _neighbours_as_one([r for r in ranges.values() if r is not None])
        if self._is_local:
            # Files of a disk that are read for the first time cost a build half as much again without this.
            for request in requests if len(limits) > 1 else ():
                _will_be_read(*request)
            return self
        with self._named_errors(""):
            blocks = _fetch(self._fs, requests)
        tree = copy.copy(self)
        tree._fetched = dict.fromkeys(limits)
        for name, wanted in ranges.items():
            if wanted is not None:
                path, start, end = wanted
                number = bisect.bisect_right(requests, (path, start, math.inf)) - 1
                first, data = requests[number][1], blocks[number]
                tree._fetched[name] = data and data[start - first : end - first]
        return tree

    def _member_range(self, name: str, limit: int) -> tuple[str, int, int] | None:
        """Where a member lies in the zip: no more than its size justifies, whatever the directory claims."""
        info = self.archive.NameToInfo.get(self._top + name)
        if info is None or not 0 <= info.header_offset < self.archive.start_dir:
            return None
        size = min(info.file_size, limit)
        header = 30 + len(info.orig_filename.encode("utf-8", "surrogateescape")) + len(info.extra)
        packed = min(info.compress_size, size + size // 1000 + 1024)
        end = info.header_offset + header + _HEADER_SLACK + packed
        return self._location, info.header_offset, min(end, self._size)

    def captions_beside(self) -> dict[str, bytes]:
        """Path -> bytes of files with captions next to the zip, or next to the folder that holds images/.

        They are in a folder `captions`, or have "caption" in their name. A web server is not asked: what it
        answers for a file that it lacks may be anything.

        Raises:
            UnansweredError: if a store fails for good.
        """
        if "http" in np.atleast_1d(self._fs.protocol):
            return {}
        parent = posixpath.dirname(self._location if self.is_archive else self._top)
        try:
            with self._named_errors(parent):
                by_name = _json_files(self._fs, parent, part="caption")
            with self._named_errors(f"{parent}/captions"):
                in_folder = _json_files(self._fs, f"{parent}/captions", inner=True)
            return by_name | {f"captions/{name}": data for name, data in in_folder.items()}
        except UnansweredError as error:
            if isinstance(error.__cause__, PermissionError):  # a store's answer where it may not be listed
                return {}
            raise

    def listing(self) -> Listing:
        """All files of the tree with a fingerprint of their state."""
        if self.is_archive:
            return self._list_archive()
        with self._named_errors(""):
            files = self._list_folder()
        digest = hashlib.blake2b(digest_size=16)
        for name, (_, state) in sorted(files.items()):
            digest.update(f"{name}\0{state}\n".encode("utf-8", "surrogateescape"))
        return Listing({name: size for name, (size, _) in files.items()}, digest.hexdigest())

    def _list_folder(self) -> dict[str, tuple[int, str]]:
        """Path inside the tree -> (bytes, what changes when the file changes)."""
        files: dict[str, tuple[int, str]] = {}
        for folder in TREE_FOLDERS:
            if self._is_local:
                categories = {*CATEGORY_IDS, *(category for _, _, category in _of_kind(files, *SPLITS))}
                files.update(_scan_local_folder(f"{self._top}/{folder}", folder, categories))
                continue
            for path, info in self._fs.find(f"{self._top}/{folder}", detail=True).items():
                if info["type"] == "file":
                    files[path[len(self._top) + 1 :]] = (info["size"], _state(info))
        return files

    def _list_archive(self) -> Listing:
        """From the central directory: the checksums that stand there make the fingerprint.

        What is wrong with a picture, an annotation or a list is found when it is read, and said once, there.
        """
        sizes: dict[str, int] = {}
        findings: list[Finding] = []
        digest = hashlib.blake2b(digest_size=16)
        for info in self.archive.infolist():
            state = (
                f"{info.orig_filename}\0{info.file_size} {info.CRC} {info.external_attr} {info.flag_bits}\n"
            )
            digest.update(state.encode("utf-8", "surrogateescape"))
            if _is_unsafe(info):
                findings.append(Finding("member_unsafe_path", shown(info.orig_filename)))
                continue
            if info.is_dir():
                continue
            if not info.filename.startswith(self._top):
                if info.filename.startswith(tuple(f"{folder}/" for folder in TREE_FOLDERS)):
                    findings.append(Finding("file_unexpected", info.filename))
                continue
            name = info.filename.removeprefix(self._top)
            if name in sizes and info.filename not in _conflicts(self.archive):
                findings.append(Finding("member_duplicate", name))
            if (reason := _member_problem(info)) and not name.startswith(_READ_LATER):
                findings.append(Finding(reason, name))
            sizes[name] = info.file_size
        return Listing(sizes, digest.hexdigest(), tuple(findings))


_PICTURE_MEMBER = re.compile(r"((?:[^/]+/)*?)images/[^/]+/[^/]+")
_ODD_NAMES = (
    (r"(?:.*\\)?images\\", "backslashes between folders, which no zip may have"),
    (r"\./(?:.*/)?images/", "./ before its names, which makes them no plain paths"),
)
_OF_MACOS = "__MACOSX/"  # what its zips hold beside the files: none of the release's
_PLAIN_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_READ_LATER = ("images/", "annotations/", "lists/")
# What zipfile meets damaged bytes with; OSError stands for the disk or the network, which may recover.
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, RuntimeError
)  # fmt: skip
_OTHER_ARCHIVES = (
    (b"\x1f\x8b", 0, "a gzip file (perhaps a tar archive)"),
    (b"ustar", 257, "a tar archive"),
    (b"BZh", 0, "a bzip2 file (perhaps a tar archive)"),
    (b"\xfd7zXZ\0", 0, "an xz file (perhaps a tar archive)"),
    (b"(\xb5/\xfd", 0, "a zstandard file (perhaps a tar archive)"),
    (b"7z\xbc\xaf'\x1c", 0, "a 7z archive"),
    (b"Rar!", 0, "a rar archive"),
)
_IN_PARTS = (
    "is one of several parts of a zip; join them first: zip -s 0 PART.zip --out WHOLE.zip, or cat for parts "
    "called .001, .002"
)


def _described(tops: Collection[str]) -> str:
    """Folders that each hold images/, for an error."""
    if not tops:
        return "no images/ folder"
    first = ", ".join(shown(top) or "the top" for top in sorted(tops)[:5])
    return f"{len(tops)} folders with images/ ({first}{', …' if len(tops) > 5 else ''})"


def _is_unsafe(info: zipfile.ZipInfo) -> bool:
    """Whether a member's path would leave the tree; judged as written, before zipfile tidies it."""
    return any(
        not path
        or path.startswith("/")
        or re.match(r"[A-Za-z]:", path)
        or re.search(r"[\\\0]", path)
        or not {"..", "."}.isdisjoint(path.split("/"))
        for path in (info.orig_filename, info.filename)
    )


def _member_problem(info: zipfile.ZipInfo) -> str | None:
    """The reason code that keeps a zip member from being read, from its directory entry alone."""
    if stat.S_ISLNK(info.external_attr >> 16):
        return "member_link"
    if info.flag_bits & 0x1:
        return "member_encrypted"
    if info.compress_type not in _PLAIN_COMPRESSION:
        return "member_compression"
    return None


@functools.lru_cache(maxsize=2)
def _open_archive(
    process: int, fs: fsspec.AbstractFileSystem, location: str, size: int, state: str
) -> zipfile.ZipFile:
    """An open zip; one for each process, since a forked child would share the parent's file position."""
    file = fs.open(location, "rb") if _is_local(fs) else _RemoteFile(fs, location, size)
    _check_one_part(file, size, location)
    archive = zipfile.ZipFile(file)
    if isinstance(file, _RemoteFile):
        file.forget()
    for info in archive.filelist:
        info.filename = _member_name(info)
    # Only these can be read: what the ledger calls unsafe has no name here, not even its beginning.
    archive.NameToInfo = {info.filename: info for info in archive.filelist if not _is_unsafe(info)}
    return archive


_END_OF_DIRECTORY = b"PK\5\6"


def _check_one_part(file: Any, size: int, location: str) -> None:
    """Refuse the last part of a zip in several: it opens, and then none of its members can be read."""
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    at = tail.rfind(_END_OF_DIRECTORY)
    disks = struct.unpack("<HH", tail[at + 4 : at + 8]) if 0 <= at <= len(tail) - 22 else (0, 0)
    if not {0, 0xFFFF}.issuperset(disks):
        raise ReleaseError(f"{location}: {_IN_PARTS}")


def _member_name(info: zipfile.ZipInfo) -> str:
    """A member's name, the same with every Python: newer ones read the Unicode Path field (0x7075).

    Raises:
        zipfile.BadZipFile: if there is such a field and it is damaged.
    """
    name, extra = info.orig_filename, info.extra
    encoding = "utf-8" if info.flag_bits & 0x800 else "cp437"
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if kind == 0x7075 and len(field) >= 5:
            version, checksum = struct.unpack("<BL", field[:5])
            if version == 1 and checksum == zlib.crc32(name.encode(encoding, "surrogateescape")):
                try:
                    return field[5:].decode("utf-8") or name
                except UnicodeDecodeError as error:
                    raise zipfile.BadZipFile("a Unicode Path field is no UTF-8") from error
    return name


# Of a remote zip the files of a row group are fetched side by side, each with what its own header may have
# more than the directory says, and neighbours as one. zipfile reads them from memory, with all its checks.
_HEADER_SLACK = 64
_GAP = 2**11
_LARGEST_RANGE = 2**23
# Where zipfile looks for the directory, or reads on as of a member that lies about its size.
_READ_AHEAD = 2**18
_THREADS = 16

_Range = tuple[str, int, int]  # path, start, end


def _neighbours_as_one(ranges: Sequence[_Range]) -> list[_Range]:
    """Ranges in their order, with those joined that nearly touch."""
    parts = ([r[part] for r in ranges] for part in range(3))
    return list(zip(*fsspec.utils.merge_offset_ranges(*parts, _GAP, _LARGEST_RANGE), strict=True))


def _fetch(fs: fsspec.AbstractFileSystem, requests: Sequence[_Range]) -> list[bytes | None]:
    """The bytes of ranges, fetched side by side; None for what cannot be had: reading it alone says why."""

    def fetch(request: _Range) -> bytes | None:
        with suppress(OSError):
            return _fetch_one(fs, request)
        return None

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(fetch, requests))


def _fetch_one(fs: fsspec.AbstractFileSystem, request: _Range) -> bytes:
    """The bytes of a range, fewer only past the end of the file.

    Raises:
        OSError: whatever it was, so that a store that fails is never taken for a damaged zip.
    """
    path, start, end = request
    try:
        cache = {} if fs.async_impl else {"cache_type": "none"}  # else a block of 5 MB for each range
        data: bytes = fs.cat_file(path, start=start, end=end, **cache)
    except Exception as error:
        raise OSError(shown_error(error)) from error
    if len(data) > end - start:
        raise _NoRangesError("the server gives whole files where ranges are asked for")
    return data


class _RemoteFile(io.RawIOBase):
    """A file of a store, as zipfile reads it: from memory, or else from the store and some way ahead.

    Args:
        size: bytes of the file.
        start, data: what is in memory, and where it begins.
    """

    def __init__(
        self, fs: fsspec.AbstractFileSystem, location: str, size: int, start: int = 0, data: bytes = b""
    ) -> None:
        self._fs, self._location, self._size = fs, location, size
        self._start, self._data = start, data
        self._at = 0

    def forget(self) -> None:
        """Hold nothing in memory."""
        self._data = b""

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError("a position before the beginning")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        """As of a file: less than asked for only at its end."""
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        if self._at >= end:
            return b""
        if not self._start <= self._at < end <= self._start + len(self._data):
            ahead = min(max(end, self._at + _READ_AHEAD), self._size)
            self._data = _fetch_one(self._fs, (self._location, self._at, ahead))
            self._start = self._at
            if len(self._data) != ahead - self._at:
                raise OSError(f"got {len(self._data)} bytes of {ahead - self._at}")
        data = self._data[self._at - self._start : end - self._start]
        self._at = end
        return data


@functools.lru_cache(maxsize=2)
def _conflicts(archive: zipfile.ZipFile) -> frozenset[str]:
    """Members that stand twice with different contents: nothing tells which one is true."""
    members = [info for info in archive.infolist() if not _is_unsafe(info)]
    if len(members) == len(archive.NameToInfo):
        return frozenset()
    contents: dict[str, set[tuple[int, int]]] = {}
    for info in members:
        contents.setdefault(info.filename, set()).add((info.file_size, info.CRC))
    return frozenset(name for name, states in contents.items() if len(states) > 1)


def _state(info: Mapping[str, Any]) -> str:
    """What changes when a file changes, from what its file system says of it."""
    keys = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "last_modified", "updated")
    return " ".join([str(info["size"]), *(str(info[key]) for key in keys if info.get(key))])


# Nothing there, a name too long, a file in the place of a folder, a link in circles.
_NO_FILE = (errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EISDIR)


def _local_file(path: str) -> io.FileIO:
    """A file of the disk, open; a pipe is not waited for."""
    return io.FileIO(path, opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def _read_local_file(path: str, limit: int) -> bytes:
    """Up to `limit` bytes of a file and one more; twice as fast as through fsspec, of files this small.

    Raises:
        FileNotFoundError: also where a folder, a pipe or a device has the name.
    """
    try:
        with _local_file(path) as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode):
                return file.read(min(limit, status.st_size) + 1)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
    raise FileNotFoundError(path)


def _will_be_read(path: str, start: int, end: int) -> None:
    """Tell the system so, if it can be told; what is odd with the file is met when it is read."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError), _local_file(path) as file:
            os.posix_fadvise(file.fileno(), start, end - start, os.POSIX_FADV_WILLNEED)


def _scan_local_folder(
    folder: str, prefix: str, categories: Collection[str]
) -> Iterator[tuple[str, tuple[int, str]]]:
    """Files below a local folder; some ten times as fast as fsspec's own walk, and this is start-up time.

    However deep folders are nested: those that wait are in a list. Links to folders are followed where they
    have the name of a category alone, for those are read.
    """
    waiting = [(folder, prefix)]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            with os.scandir(folder) as items:
                entries = list(items)
        except OSError as error:
            if error.errno in _NO_FILE:  # also a path too long for the system: nothing of ours lies so deep
                continue
            raise
        for entry in entries:
            name = f"{prefix}/{entry.name}"
            if entry.is_symlink() and not Path(entry.path).exists():
                continue  # leads nowhere, or to itself
            is_category = "/" not in prefix and entry.name in categories
            if entry.is_symlink() and entry.is_dir() and not is_category:
                yield name, (0, "link")  # it could lead in circles, or to all of the disk
            elif entry.is_dir(follow_symlinks=is_category):
                waiting.append((entry.path, name))
            elif entry.is_file():
                status = entry.stat()
                yield name, (status.st_size, f"{status.st_size} {status.st_mtime_ns}")


# --------------------------------------------------------------------------------------------------------
# What may be wrong with a release, and what is done about it
# --------------------------------------------------------------------------------------------------------

KEPT = "kept"  # the row stays, the finding is a note
LEFT_OUT = "left out"  # of every config
NO_POSE = "left out of pose"  # an object without a usable pose: a box in captions, counted in num_objects


@dataclass(frozen=True)
class Reason:
    """What may be odd, and what is done about it.

    Attributes:
        code: stable; never renamed once published.
        decision: `KEPT`, `LEFT_OUT` or `NO_POSE`.
        rule: what was found, in words.
        why: of what is left out, why no column could hold it.
    """

    code: str
    decision: str
    rule: str
    why: str = ""


# fmt: off
_REASONS = (
    # members of an archive
    Reason("member_unsafe_path", LEFT_OUT, "a path is absolute, climbs out with '..' or has a backslash",
           "it names nothing inside the release, so no picture, annotation or list has it"),
    Reason("member_link", LEFT_OUT, "a member is a symbolic link",
           "it has no content of its own, and what it leads to is not in the zip"),
    Reason("member_encrypted", LEFT_OUT, "a member is encrypted", "its content cannot be read"),
    Reason("member_compression", LEFT_OUT, "a member is neither stored nor deflated",
           "its content cannot be read on every Python"),
    Reason("member_duplicate", KEPT, "a member stands twice with the same content; one is used"),
    Reason("member_conflict", LEFT_OUT, "a member stands twice with different contents; none is used",
           "a row has one picture and one annotation, and nothing tells which of the two is true"),
    Reason("member_damaged", LEFT_OUT, "a member cannot be read back: bad checksum, broken or cut-off data",
           "the picture, annotation or list that it was is lost"),
    # names and lists
    Reason("name_collision", KEPT, "two names differ in case or Unicode form only"),
    Reason("file_unexpected", LEFT_OUT, "a name does not belong in images/, annotations/, lists/ or CAD/",
           "no list names it and no column is made of it"),
    Reason("category_unknown", KEPT, "a category is none of CATEGORIES; its label stands behind theirs"),
    Reason("list_not_text", LEFT_OUT, "a list is not UTF-8 text", "no image id can be read from it"),
    Reason("list_bom", KEPT, "a list begins with a byte order mark"),
    Reason("list_crlf", KEPT, "a list has Windows line ends"),
    Reason("list_blank_line", KEPT, "a list has a blank line before its end"),
    Reason("list_bad_id", LEFT_OUT, "an image id has a path separator or a control character, or is dots",
           "no picture of its category can have that name"),
    Reason("list_duplicate", KEPT, "an image id stands twice in a list; it is read once"),
    Reason("list_both_splits", LEFT_OUT, "an image id is in both splits; it stays in validation only",
           "its row is in validation, and a second one in train would leak it"),
    Reason("picture_unlisted", LEFT_OUT, "a picture or annotation is in no list",
           "every config of pictures is divided into splits, and it is in neither"),
    # pictures
    Reason("picture_missing", LEFT_OUT, "a listed picture does not exist",
           "every row of these configs is a picture, and there is none"),
    Reason("picture_empty", LEFT_OUT, "a picture has no bytes",
           "every row of these configs is a picture, and there is none"),
    Reason("picture_too_large", LEFT_OUT, "a picture exceeds the limit of bytes or pixels",
           "a row group has room for 100 MB, and Pillow refuses to decode that many pixels"),
    Reason("picture_unreadable", LEFT_OUT, "the bytes are no JPEG, PNG or WebP picture",
           "an image column that cannot be decoded ends every loop over its rows"),
    Reason("picture_truncated", LEFT_OUT, "the end is missing (JPEG end marker, PNG IEND, RIFF length)",
           "an image column that cannot be decoded ends every loop over its rows"),
    Reason("picture_orientation", KEPT, "the tag was set to 1: annotations refer to stored pixels"),
    Reason("picture_orientation_stuck", LEFT_OUT, "a picture is turned by a tag that could not be set to 1",
           "an image column would show it turned, with box and centre in the wrong place"),
    Reason("picture_format", KEPT, "a picture is a PNG or WebP in a .JPEG name"),
    Reason("picture_mode", KEPT, "a picture is grey, CMYK, palette or has transparency"),
    Reason("picture_undecodable", KEPT, "the pixels cannot be decoded; no object of it is in object_centric"),
    Reason("picture_size_differs", KEPT, "the annotation names another size; the picture's own is used"),
    # annotation files
    Reason("annotation_missing", NO_POSE, "a listed picture has no annotation; num_objects is null",
           "a row of pose is an object, and none is known; the picture is in classification and captions"),
    Reason("annotation_too_large", NO_POSE, "an annotation exceeds the limit of bytes or objects",
           "a row group of captions would have no room for its objects; the picture stays, num_objects null"),
    Reason("annotation_not_npz", NO_POSE, "an annotation is no zip of arrays, or is damaged",
           "no object can be read from it; the picture stays, with null for num_objects"),
    Reason("annotation_not_array", NO_POSE, "an annotation does not hold the object array 'annotations'",
           "no object can be read from it; the picture stays, with null for num_objects"),
    Reason("annotation_forbidden", NO_POSE, "a pickle asks for more than numbers, text and numpy arrays",
           "no object can be read without executing what it asks for; the picture stays, num_objects null"),
    Reason("annotation_empty", KEPT, "an annotation has no objects"),
    # objects
    Reason("key_unknown", KEPT, "objects have a key that no column is made of; counted once a release"),
    Reason("object_not_dict", LEFT_OUT, "an object is not a dict", "it has no named values, so no box"),
    Reason("class_differs", KEPT, "an object's class is not its folder's category, which is the label"),
    Reason("bbox_missing", LEFT_OUT, "an object has no box",
           "bbox has four numbers: pyarrow before 26 cannot read a null list of fixed length"),
    Reason("bbox_wrong_type", LEFT_OUT, "a box is not four numbers",
           "bbox has four numbers: pyarrow before 26 cannot read a null list of fixed length"),
    Reason("bbox_not_finite", LEFT_OUT, "a box has NaN or infinite numbers",
           "bbox has four finite numbers: statistics of the viewer fail on others"),
    Reason("bbox_inverted", KEPT, "a box has x2 <= x1 or y2 <= y1; it is kept as annotated"),
    Reason("bbox_outside", KEPT, "a box lies wholly outside its picture; it is kept as annotated"),
    Reason("bbox_leaves_picture", KEPT, "a box leaves its picture; it is kept as annotated"),
    Reason("pose_missing", NO_POSE, "an object has a box and no pose at all",
           "a row of pose is three angles; the object's row is in captions, with null for them"),
    Reason("pose_incomplete", NO_POSE, "an object lacks one or two of the angles, or all with a place",
           "a row of pose is three angles; the object's row is in captions, with null for what lacks"),
    Reason("pose_wrong_type", NO_POSE, "an angle is not a number; it becomes null",
           "a column of float64 holds numbers, and a row of pose is three angles"),
    Reason("pose_not_finite", NO_POSE, "an angle is NaN or infinite; it becomes null",
           "it is no angle, and statistics of the viewer fail on such numbers"),
    Reason("angle_outside_range", KEPT, "an angle is outside [0, 2π]; kept as annotated, modulo 2π"),
    Reason("angle_beyond_two_turns", KEPT, "an angle is beyond 4π in size; are these degrees?"),
    Reason("place_missing", KEPT, "a posed object lacks distance, px, py, viewport or cad_index; it is null"),
    Reason("place_wrong_type", KEPT, "a distance, px, py or viewport is not a number; it becomes null"),
    Reason("place_not_finite", KEPT, "a distance, px, py or viewport is NaN or infinite; it becomes null"),
    Reason("viewport_not_positive", KEPT, "a viewport is not positive; it is kept as annotated"),
    Reason("cad_index_invalid", KEPT, "a cad_index is not a whole number of 32 bits; it becomes null"),
    Reason("cad_mesh_missing", KEPT, "the release has no mesh of that cad_index"),
    Reason("status_unknown", KEPT, "an object_status is none of the four words; it becomes null"),
    Reason("density_unknown", KEPT, "dense is neither dense_yes nor dense_no; it becomes null"),
    Reason("ignore_set", KEPT, "an object carries the old ignore flag; it is left out of object_centric"),
    Reason("ignore_invalid", KEPT, "an ignore flag is not a number from 0; it counts as not set"),
    Reason("size_invalid", KEPT, "a height or width is not a whole number from 1; it is not compared"),
    # corrections
    Reason("corrected", KEPT, "a correction changes the object, or says whether it is left out"),
    Reason("corrected_left_out", LEFT_OUT, "a correction leaves the object out",
           "a person decided so; corrections.jsonl says when and why"),
    Reason("correction_overruled", KEPT, "someone else's later correction says otherwise, and wins"),
    # meshes
    Reason("mesh_too_large", LEFT_OUT, "a mesh exceeds the limit of bytes, vertices, triangles or drawing",
           "the viewer cannot show such a row"),
    Reason("mesh_damaged", LEFT_OUT, "the bytes are no OFF mesh, or its counts, faces and vertices disagree",
           "a mesh column holds vertices and triangles, and these cannot be told"),
    Reason("mesh_no_triangles", LEFT_OUT, "a mesh has no triangle", "a GLB file has no mesh without one"),
    Reason("mesh_not_finite", LEFT_OUT, "a vertex is NaN, infinite or beyond the range of float32",
           "GLB holds vertices as finite float32"),
    # captions
    Reason("caption_wrong_type", LEFT_OUT, "a caption is not text", "a caption column holds text"),
    Reason("caption_without_picture", LEFT_OUT, "a caption's picture or category is not in the release",
           "every row of captions is a picture, and there is none"),
    Reason("caption_conflict", LEFT_OUT, "a picture or category has another caption already, which is used",
           "a row has one caption of its picture and one of its category"),
)
# fmt: on
REASONS: Mapping[str, Reason] = MappingProxyType({reason.code: reason for reason in _REASONS})

OF_CORRECTIONS = frozenset(code for code in REASONS if code.startswith("correct"))  # said, and not odd

MAX_PICTURE_BYTES = 100 * 10**6  # a row group's limit
MAX_PICTURE_PIXELS = 2**28 // 3  # past it Pillow, as it comes, warns of a decompression bomb
MAX_ANNOTATION_BYTES = 2**20  # real ones have some 2 KB
MAX_OBJECTS = 1000  # of a picture; a file of 1 MB can name one object 500,000 times
MAX_LIST_BYTES = 2**22  # some 200,000 image ids; the whole release has less than half of that
MAX_CAPTIONS_BYTES = 2**30


@dataclass(frozen=True)
class Finding:
    """Something odd in the release.

    Attributes:
        reason: a code of `REASONS`.
        file: path inside the release.
        object_index: position in the annotation, or None where the file as a whole is meant.
        value: what was found, as short text.
    """

    reason: str
    file: str
    object_index: int | None = None
    value: str = ""

    @property
    def decision(self) -> str:
        """What is done about it: a constant of this module."""
        return REASONS[self.reason].decision


def shown(value: object) -> str:
    """A value as short, printable text: hostile values may be huge or full of control characters."""
    if isinstance(value, str):
        text = value if len(value) <= 60 else value[:57] + "..."
    elif value is None or isinstance(value, bool | int | float):
        text = repr(value) if not isinstance(value, int) or value.bit_length() < 200 else "a huge integer"
    else:
        text = f"a {type(value).__name__.strip('_')}"
    return text.encode("unicode_escape").decode("ascii")


def shown_error(error: BaseException) -> str:
    """What went wrong, on one line."""
    return " ".join(str(error).split())[:500] or type(error).__name__


class Unusable(Exception):  # noqa: N818 - a verdict that the caller turns into a Finding
    """One file cannot be used: carries the reason code and the value."""

    def __init__(self, reason: str, value: str = "") -> None:
        super().__init__(reason, value)
        self.reason = reason
        self.value = value


if __name__ == "__main__":
    print(
        "This file reads the raw release of ImageNet3D into `datasets`:\n\n"
        "    from ImageNet3D import ImageNet3D\n"
        '    builder = ImageNet3D(config_name="pose", data_dir="imagenet3d_v1.zip")\n'
        "    builder.download_and_prepare()\n"
        '    train = builder.as_dataset(split="train")\n\n'
        f"Configs: {', '.join(CONFIGS)}. Without data_dir the zip comes from {REPOSITORY}.\n"
        "`python -m processing --help` lists what else can be done with a release."
    )
