"""What a preview page is made from: a raw release, or a built folder, each behind the same few questions.

Annotations of all pictures are read, and the pixels of none but those that are asked for.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

import ImageNet3D
from ImageNet3D import (
    CATEGORIES,
    OBJECT_STATUS,
    POSE_FIELDS,
    Entry,
    Finding,
    ObjectAnnotation,
    RawTree,
    ReleaseError,
    Unusable,
)
from processing.built import LEDGER, MANIFEST, Manifest
from processing.crop.pixels import crops
from processing.crop.place import crop_map, why_not_cropped
from processing.crop.rows import OPTIONS
from processing.drawing.mesh import Mesh, MeshError, mesh_file, parse_mesh, read_mesh
from processing.ledger import finding_from_json
from processing.preview.books import Books
from processing.runtime.store import paths_matching
from processing.runtime.strict import DamagedError

CONFIGS = ("pose", "object_centric")  # whose rows a page can show
NO_STATUS = "none"  # stands for the objects without a status


@dataclass(frozen=True)
class Selection:
    """Which objects a page is about; an empty tuple stands for all.

    Attributes:
        config: of `CONFIGS`.
        categories: names.
        statuses: of `OBJECT_STATUS`, or `NO_STATUS`.
        splits: names.

    Raises:
        ValueError: for a value that there is not.
    """

    config: str = "pose"
    categories: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, given, possible in (
            ("config", (self.config,), CONFIGS),
            ("status", self.statuses, (*OBJECT_STATUS, NO_STATUS)),
            ("split", self.splits, tuple(ImageNet3D.SPLITS)),
        ):
            for value in given:
                if value not in possible:
                    raise ValueError(f"{what} is {value!r}; give one of {', '.join(possible)}")
        for name in self.categories:
            if name not in CATEGORIES:
                closest = ", ".join(difflib.get_close_matches(name, CATEGORIES, cutoff=0))
                raise ValueError(f"category is {name!r}, which there is not; the closest are {closest}")

    def has_picture(self, category: str, split: str) -> bool:
        """Whether pictures of a category and split may be shown."""
        return (not self.categories or category in self.categories) and (
            not self.splits or split in self.splits
        )

    def has_file(self, file: str, split: str) -> bool:
        """Whether what was found about a file of the release concerns the page."""
        match = re.match(r"(?:images|annotations|CAD)/([^/]+)/|lists/(.+)_imagenet_", file)
        category = match and (match[1] or match[2])
        return (not category or not self.categories or category in self.categories) and (
            not self.splits or not split or split in self.splits
        )

    def has_object(self, item: ObjectAnnotation) -> bool:
        """Whether an object may be shown."""
        return not self.statuses or (item.object_status or NO_STATUS) in self.statuses

    def __str__(self) -> str:
        parts = [", ".join(self.categories)] if self.categories else []
        parts += [f"status {', '.join(self.statuses)}"] if self.statuses else []
        parts += [", ".join(self.splits)] if self.splits else []
        return " · ".join(parts)


class RowPlace(NamedTuple):
    """A row of a built folder."""

    shard: str
    row_group: int
    row: int  # of the row group


@dataclass(frozen=True, slots=True)
class AnnotatedPicture:
    """A picture's name and annotation; its pixels have not been read.

    Attributes:
        image_id: "<category>/<file stem>".
        split: "train" or "validation".
        objects: those with a usable box; in object_centric, as they lie in their crops.
        size: width and height in pixels, or None where the annotation does not tell; of a crop, its own.
        caption: the image-level caption, or None.
        places: where its source finds the objects again, by their index.
    """

    image_id: str
    split: str
    objects: tuple[ObjectAnnotation, ...]
    size: tuple[int, int] | None
    caption: str | None
    places: Mapping[int, RowPlace] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """The folder's category."""
        return self.image_id.partition("/")[0]


class Source(Protocol):
    """What a page is made from.

    Attributes:
        kind: what it is, in words.
        category_captions: category -> text.
        books: what was found odd, or None where that is not known; complete after `pictures`.
        books_note: what the books do not say, or why there are none.
    """

    kind: str
    category_captions: dict[str, str]
    books: Books | None
    books_note: str

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """All annotated pictures that are selected; no pixel is read."""

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """The file that shows an object; Unusable if it cannot be used, or the object is not in it."""

    def example(self, image_id: str, index: int) -> tuple[AnnotatedPicture, ObjectAnnotation] | None:
        """A picture and an object of it that the books name; None if that cannot be shown."""

    def meshes(self, category: str) -> list[int]:
        """The CAD models of a category that there are, by index."""

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """An object's mesh; None if the source has no meshes at all, MeshError if it lacks this one."""


def open_source(path: str, selection: Selection | None = None) -> Source:
    """Open a raw release or a built folder, whichever a path or fsspec URL is.

    Raises:
        ReleaseError: it is neither, or a built folder without the selected config.
    """
    selection = selection or Selection()
    fs, location = fsspec.core.url_to_fs(path)
    location = location.rstrip("/")
    finished = fs.isfile(f"{location}/README.md")
    if paths_matching(fs, f"{location}/{selection.config}", "*.parquet"):
        if not finished:
            raise ReleaseError(f"{path}: an unfinished build; run the same build again")
        return BuiltSource(path, selection)
    try:
        return RawSource(path, selection)
    except ReleaseError as error:
        if not finished:
            raise
        missing = "poses" if selection.config == "pose" else "crops"
        raise ReleaseError(
            f"{path}: a built folder without {missing}; build it with --config {selection.config}"
        ) from error


# --------------------------------------------------------------------------------------------------------
# The raw release
# --------------------------------------------------------------------------------------------------------


class RawSource:
    """The raw release, a folder or a zip."""

    kind = "raw release"
    books_note = "Pictures are looked into where they are shown; a build reads them all."

    def __init__(self, path: str, selection: Selection) -> None:
        self._selection = selection
        self._survey = ImageNet3D.survey(RawTree(path))
        self._release = self._survey.release
        self.category_captions = dict(self._release.category_captions)
        self.books = Books()
        for finding in self._survey.findings:
            if selection.has_file(finding.file, ""):
                self.books.add(finding)
        for entry in self._survey.left_out:
            if selection.has_file(entry.picture_file, entry.split):
                self.books.add(Finding(entry.reason, entry.picture_file))

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """As of a Source."""
        entries = [
            entry
            for split in self._survey.entries.values()
            for entry in split
            if self._selection.has_picture(entry.category, entry.split)
        ]
        for number, entry in enumerate(tqdm(entries, desc="preview", unit=" pictures", disable=None)):
            if number % ImageNet3D.CHUNK == 0:
                near = self._release.fetched(entries[number : number + ImageNet3D.CHUNK], pictures=False)
            findings: list[Finding] = []
            try:
                annotation = ImageNet3D.read_annotation(near, entry, findings)
            except Unusable as error:
                self.books.add(Finding(error.reason, entry.annotation_file, None, error.value))
                continue
            finally:
                for finding in findings:
                    self.books.add(finding)
            objects = tuple(item for item in annotation.objects if self._selection.has_object(item))
            size = (annotation.width, annotation.height)
            picture = AnnotatedPicture(
                entry.image_id, entry.split, objects, size if all(size) else None, entry.caption
            )
            if self._selection.config == "object_centric":
                picture = replace(picture, objects=tuple(self._cropped(picture)), size=OPTIONS.size)
            yield picture

    def _cropped(self, picture: AnnotatedPicture) -> Iterator[ObjectAnnotation]:
        for item in picture.objects:
            if not item.posed:
                continue
            if why := why_not_cropped(item, picture.size, OPTIONS):
                self.books.add_rule(why, picture.image_id, item.index)
            else:  # the map of a centred crop does not depend on the picture's size
                yield crop_map(item, 0, 0, OPTIONS).annotation(item)

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """As of a Source."""
        entry = Entry(picture.image_id, picture.split)
        if self._selection.config == "object_centric":
            return self._read_crop(entry, item.index)
        annotation = ImageNet3D.Annotation(1, (item,))
        return ImageNet3D.read_picture(self._release, entry, annotation, []).data

    def example(self, image_id: str, index: int) -> tuple[AnnotatedPicture, ObjectAnnotation] | None:
        """As of a Source; in object_centric there is nothing to show, for it has no crop."""
        if self._selection.config != "pose":
            return None
        try:
            annotation = ImageNet3D.read_annotation(self._release, Entry(image_id, ""), [])
        except Unusable:
            return None
        found = [item for item in annotation.objects if item.index == index]
        return (AnnotatedPicture(image_id, "", annotation.objects, None, None), found[0]) if found else None

    def _read_crop(self, entry: Entry, index: int) -> bytes:
        annotation = ImageNet3D.read_annotation(self._release, entry, [])
        one = ImageNet3D.Annotation(1, tuple(item for item in annotation.objects if item.index == index))
        findings: list[Finding] = []
        picture = ImageNet3D.read_picture(self._release, entry, one, [])
        for crop in crops(picture, OPTIONS, findings, Counter()):
            return crop.jpeg()
        raise Unusable(findings[0].reason if findings else "picture_undecodable")

    def meshes(self, category: str) -> list[int]:
        """As of a Source."""
        files = (Path(name) for name in self._release.meshes if name.startswith(f"CAD/{category}/"))
        return sorted(int(file.stem) for file in files)

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """As of a Source."""
        return read_mesh(self._release.tree, category, cad_index)


# --------------------------------------------------------------------------------------------------------
# A built folder
# --------------------------------------------------------------------------------------------------------


class BuiltSource:
    """A built folder: the shards of `pose` or `object_centric`, and those of `cad` if there are any."""

    _COLUMNS = (
        *("image_id", "object_index", "width", "height", "bbox"),
        *(*POSE_FIELDS, "cad_index", "object_status", "dense"),
    )

    def __init__(self, path: str, selection: Selection) -> None:
        self._fs, location = fsspec.core.url_to_fs(path)
        self._location = location.rstrip("/")
        self._selection = selection
        self.kind = f"built dataset, config {selection.config}"
        self._shards = paths_matching(self._fs, f"{self._location}/{selection.config}", "*.parquet")
        self.category_captions: dict[str, str] = {}
        ledger = f"{self._location}/{LEDGER}"
        self.books = self._read_ledger(ledger) if self._fs.isfile(ledger) else None
        self.books_note = (
            "What the build found in the release."
            if self.books is not None
            else "The ledger of the build is not here: it stays with those who built the folder."
        )

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """As of a Source; the rows of a picture stand together."""
        for shard in tqdm(self._shards, desc="preview", unit=" shards", disable=None):
            split = Path(shard).name.partition("-")[0]
            for image_id, rows in itertools.groupby(self._rows(shard), key=lambda pair: pair[1]["image_id"]):
                if not self._selection.has_picture(image_id.partition("/")[0], split):
                    continue
                places, values = zip(*rows, strict=True)
                size = (values[0]["width"], values[0]["height"])
                objects = tuple(filter(self._selection.has_object, map(_object_of_row, values)))
                indices = [row["object_index"] for row in values]
                found_at = dict(zip(indices, places, strict=True))
                yield AnnotatedPicture(image_id, split, objects, size, None, found_at)

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """As of a Source."""
        data = self._value(picture.places[item.index], "image")["bytes"]
        ImageNet3D.read_picture_header(data)
        return data

    def example(self, image_id: str, index: int) -> tuple[AnnotatedPicture, ObjectAnnotation] | None:
        """As of a Source; what was left out is not in the shards."""
        return None

    def meshes(self, category: str) -> list[int]:
        """As of a Source."""
        return sorted(index for name, index in self._meshes if name == category)

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """As of a Source."""
        if not self._meshes:
            return None
        if (place := self._meshes.get((category, cad_index))) is None:
            raise MeshError(f"{mesh_file(category, cad_index)}: not in the config cad")
        value = self._value(place, "mesh")
        return parse_mesh(value["bytes"], value["path"])

    @cached_property
    def _meshes(self) -> dict[tuple[str, int], RowPlace]:
        """Where each category's meshes are."""
        return {
            (CATEGORIES[row["category"]], row["cad_index"]): place
            for shard in paths_matching(self._fs, f"{self._location}/cad", "*.parquet")
            for place, row in self._rows(shard, ("category", "cad_index"))
        }

    def _read_ledger(self, path: str) -> Books:
        books = Books()
        manifest = f"{self._location}/{MANIFEST}"
        try:
            for line in self._fs.cat_file(path).decode().splitlines():
                split, finding = finding_from_json(line, path)
                if self._selection.has_file(finding.file, split):
                    books.add(finding)
            if self._selection.config == "object_centric" and not str(self._selection):
                accounts = Manifest.from_json(self._fs.cat_file(manifest), manifest).books.accounts
                for (config, _), account in accounts.items():
                    if config == "object_centric":
                        books.add_rule_counts(account.left_out)
        except (DamagedError, UnicodeDecodeError, FileNotFoundError) as error:
            raise ReleaseError(f"{path}: damaged ({error}); build it again") from error
        return books

    def _rows(
        self, shard: str, columns: Sequence[str] = _COLUMNS
    ) -> Iterator[tuple[RowPlace, dict[str, Any]]]:
        with self._opened(shard, columns) as parquet:
            for number in range(parquet.num_row_groups):
                # In this thread alone: see `store.read_columns`.
                rows = parquet.read_row_group(number, columns=list(columns), use_threads=False).to_pylist()
                for row, values in enumerate(rows):
                    yield RowPlace(shard, number, row), values

    def _value(self, place: RowPlace, column: str) -> Any:
        """One value; of the row group's pictures no more than a few are held at a time."""
        with self._opened(place.shard, [column]) as parquet:
            row = place.row
            batches = parquet.iter_batches(16, [place.row_group], columns=[column], use_threads=False)
            for batch in batches:
                if row < len(batch):
                    return batch.column(0)[row].as_py()
                row -= len(batch)
        raise ReleaseError(f"{place.shard}: changed while it was read")

    @contextmanager
    def _opened(self, shard: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
        """A shard that has the columns; whatever is wrong with it names it."""
        try:
            with self._fs.open(shard, "rb") as stream:
                parquet = pq.ParquetFile(stream)
                if missing := set(columns) - set(parquet.schema_arrow.names):
                    raise ReleaseError(f"{shard}: has no column {', '.join(sorted(missing))}; build it again")
                yield parquet
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(f"{shard}: cannot be read ({error}); build it again") from error


def _object_of_row(row: dict[str, Any]) -> ObjectAnnotation:
    status = row["object_status"]
    return ObjectAnnotation(
        index=row["object_index"],
        bbox=tuple(row["bbox"]),
        **{name: row[name] for name in POSE_FIELDS},
        cad_index=row["cad_index"],
        object_status=None if status is None else OBJECT_STATUS[status],
        dense=row["dense"],
    )
