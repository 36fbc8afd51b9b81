"""A built folder as the source of a preview page: values are checked, for others may have touched them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

import ImageNet3D
from ImageNet3D import (
    OBJECT_STATUS,
    POSE_FIELDS,
    ObjectAnnotation,
    ReleaseError,
    shown,
    shown_error,
)
from processing.accounts import label_names
from processing.built import LEDGER, MANIFEST, Manifest
from processing.drawing.mesh import Mesh, MeshError, mesh_file, parse_mesh, without_unused
from processing.ledger import finding_from_json
from processing.preview.books import Oddities
from processing.preview.selection import AnnotatedPicture, RowPlace, Selection
from processing.runtime.store import paths_matching
from processing.runtime.strict import DamagedError

_COUNTED = ("image_id", "num_objects")


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
        self._shards = self._shards_of(selection.config)
        if selection.categories:
            with self._opened(self._shards[0], ("image_id",)) as parquet:
                selection.check_categories(label_names(parquet.schema_arrow))
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
        for shard in tqdm(self._shards, desc="preview: annotations", unit=" shards", disable=None):
            split = Path(shard).name.partition("-")[0]
            for image_id, its_rows in itertools.groupby(
                self._rows(shard), key=lambda pair: pair[1]["image_id"]
            ):
                if not self._selection.has_picture(image_id.partition("/")[0], split):
                    continue
                rows = list(its_rows)
                places, values = zip(*rows, strict=True)
                size = (values[0]["width"], values[0]["height"])
                objects = tuple(filter(self._selection.has_object, itertools.starmap(_object_of_row, rows)))
                indices = [row["object_index"] for row in values]
                found_at = dict(zip(indices, places, strict=True))
                yield AnnotatedPicture(image_id, split, objects, size, None, found_at)

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """As of a Source."""
        place = picture.places[item.index]
        data = (self._value(place, "image") or {}).get("bytes")
        if not isinstance(data, bytes):
            raise _damage(place, "image", data)
        ImageNet3D.read_picture_header(data)
        return data

    def num_objects(self, picture: AnnotatedPicture) -> int | None:
        """As of a Source; None without the config classification, which counts them."""
        return self._counts.get(picture.image_id)

    @cached_property
    def _counts(self) -> dict[str, int | None]:
        """image_id -> how many objects the picture has."""
        rows = (row for shard in self._shards_of("classification") for _, row in self._rows(shard, _COUNTED))
        return {row["image_id"]: row["num_objects"] for row in rows}

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
        value = self._value(place, "mesh") or {}
        if not (isinstance(value.get("bytes"), bytes) and isinstance(value.get("path"), str)):
            raise _damage(place, "mesh", value)
        return without_unused(parse_mesh(value["bytes"], value["path"]))

    @cached_property
    def _meshes(self) -> dict[tuple[str, int], RowPlace]:
        """Where each category's meshes are; a build may know categories that this code does not."""
        meshes: dict[tuple[str, int], RowPlace] = {}
        for shard in self._shards_of("cad"):
            with self._opened(shard, ("category",)) as parquet:
                names = label_names(parquet.schema_arrow)
            for place, row in self._rows(shard, ("category", "cad_index")):
                if row["category"] >= len(names):
                    raise _damage(place, "category", row["category"])
                meshes[names[row["category"]], row["cad_index"]] = place
        return meshes

    def _shards_of(self, config: str) -> list[str]:
        """The shards of a config."""
        paths = paths_matching(self._fs, f"{self._location}/{config}", "*.parquet")
        for path in paths:
            if not self._fs.isfile(path):  # a pipe would hold up whoever opened it
                raise ReleaseError(f"{shown_path(path)}: is no file; build it again")
        return paths

    def _read_ledger(self, path: str) -> Oddities:
        books = Oddities()
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
                    place = RowPlace(shard, number, row)
                    for column in columns:
                        _check(values[column], column, place)
                    yield place, values

    def _value(self, place: RowPlace, column: str) -> Any:
        """One value; of the row group's pictures no more than a few are held at a time."""
        with self._opened(place.shard, [column]) as parquet:
            row = place.row
            batches = parquet.iter_batches(16, [place.row_group], columns=[column], use_threads=False)
            for batch in batches:
                if row < len(batch):
                    return batch.column(0)[row].as_py()
                row -= len(batch)
        raise ReleaseError(f"{shown_path(place.shard)}: changed while it was read")

    @contextmanager
    def _opened(self, shard: str, columns: Sequence[str]) -> Iterator[pq.ParquetFile]:
        """A shard that has the columns; whatever is wrong with it names it."""
        try:
            with self._fs.open(shard, "rb") as stream:
                parquet = pq.ParquetFile(stream)
                if missing := set(columns) - set(parquet.schema_arrow.names):
                    raise ReleaseError(
                        f"{shown_path(shard)}: has no column {', '.join(sorted(missing))}; build it again"
                    )
                yield parquet
        except PermissionError:  # no fault of the shard; it names the file
            raise
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(
                f"{shown_path(shard)}: cannot be read ({shown_error(error)}); build it again"
            ) from error


def _object_of_row(_: RowPlace, row: dict[str, Any]) -> ObjectAnnotation:
    status = row["object_status"]
    return ObjectAnnotation(
        index=row["object_index"],
        bbox=tuple(row["bbox"]),
        **{name: row[name] for name in POSE_FIELDS},
        cad_index=row["cad_index"],
        object_status=None if status is None else OBJECT_STATUS[status],
        dense=row["dense"],
    )


def _is_count(value: object, least: int = 0, most: int = 2**31 - 1) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: object) -> bool:
    return type(value) is float and math.isfinite(value)


# What a sound value of a column is; of others, a number or null.
_SOUND: dict[str, Callable[[Any], bool]] = {
    "image_id": lambda value: isinstance(value, str) and re.fullmatch(r"[^/]+/[^/]+", value) is not None,
    "object_index": _is_count,
    "width": lambda value: _is_count(value, 1),
    "height": lambda value: _is_count(value, 1),
    "bbox": lambda value: isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)),
    "cad_index": lambda value: value is None or _is_count(value),
    "object_status": lambda value: value is None or _is_count(value, 0, len(OBJECT_STATUS) - 1),
    "dense": lambda value: value is None or isinstance(value, bool),
    "num_objects": lambda value: value is None or _is_count(value),
    "category": _is_count,  # of how many, the shard's schema says
}


def _check(value: object, column: str, place: RowPlace) -> None:
    """Raise ReleaseError where no build can have written a value."""
    if not (_SOUND[column](value) if column in _SOUND else value is None or _is_number(value)):
        raise _damage(place, column, value)


def _damage(place: RowPlace, column: str, value: object) -> ReleaseError:
    where = f"row {place.row} of row group {place.row_group}"
    return ReleaseError(
        f"{shown_path(place.shard)}: damaged ({column} is {shown(value)} in {where}); build it again"
    )


def shown_path(path: str) -> str:
    """A path as printable text."""
    return path.encode("unicode_escape").decode("ascii") if not path.isprintable() else path
