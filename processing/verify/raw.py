"""Checks of a built folder against the raw release: its rows are read anew, as the build reads them."""

import io
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

import ImageNet3D
from ImageNet3D import Entry, Picture, Release, Unusable
from processing.build.shards import portions, split_objects
from processing.configs import DERIVED_TABLES
from processing.crop import rows as object_centric
from processing.verify.checks import Problem, ShardFacts

_BATCH = 64  # pictures that are in memory at a time
_ROUNDING = 1.0  # levels of 255, on the average, that another JPEG encoder may change in a crop


def check_against_raw(
    files: Mapping[str, pq.ParquetFile],
    paths: Mapping[str, str],
    tables: Sequence[str],
    release: Release,
    entries: Mapping[str, Entry],
    split: str,
) -> Iterator[Problem]:
    """A shard has the rows of its pictures, in every config and to the last bit.

    Only the bytes of a crop may differ, as far as its pixels hardly do.

    Args:
        files, paths: config -> file, and where it stands.
        tables: configs of the build.
        entries: image id -> the shard's pictures in the raw release.
        split: of the shard.
    """
    ids = dict.fromkeys(
        image_id for file in files.values() for image_id in file.read(["image_id"])["image_id"].to_pylist()
    )
    rows = {config: _Rows(file) for config, file in files.items()}
    for start in range(0, len(ids), _BATCH):
        batch = list(ids)[start : start + _BATCH]
        pictures = []
        near = release.fetched(entries[image_id] for image_id in batch if image_id in entries)
        for image_id in batch:
            try:
                pictures.append(_read(near, entries.get(image_id), split))
            except Unusable as error:
                for config in (c for c in files if rows[c].has(image_id)):
                    yield Problem(paths[config], "raw_picture_unknown", f"{image_id}: {error.reason}")
        for config in tables:
            alike = {"image": look_alike} if config in DERIVED_TABLES else {}
            for part, first, end in _parts(config, pictures):
                expected = _expected(config, part, release)
                if config in files:
                    found = rows[config].of({picture.entry.image_id for picture in part}, first, end)
                else:
                    found = expected.slice(0, 0)
                path = paths.get(config, config)
                yield from differences(path, found, expected, (_keys(found), _keys(expected)), alike)


def _parts(config: str, pictures: Sequence[Picture]) -> Iterator[tuple[Sequence[Picture], float, float]]:
    """Pictures whose rows fit into one table, as the build cuts them; from which object to before which."""
    for portion in portions(pictures):
        parts = list(split_objects(portion)) if config == "pose" else [portion]
        limits = [0, *(part[0].annotation.objects[0].index for part in parts[1:]), math.inf]
        yield from zip(parts, limits[:-1], limits[1:], strict=True)


def _read(release: Release, entry: Entry | None, split: str) -> Picture:
    """A picture of the raw release.

    Raises:
        Unusable: with why there can be no rows of it in the split.
    """
    if entry is None:
        raise Unusable("in no list")
    if entry.split != split:
        raise Unusable(f"listed in {entry.split}")
    return ImageNet3D.read_picture(release, entry, ImageNet3D.read_annotation(release, entry, []), [])


def _expected(config: str, pictures: Sequence[Picture], release: Release) -> pa.Table:
    if config in DERIVED_TABLES:
        return object_centric.rows(pictures, [], Counter(), release.categories)
    return ImageNet3D.rows(config, pictures, release)


class _Rows:
    """The rows of a file by picture; one row group is in memory at a time."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file = file
        ids = file.read(["image_id"])["image_id"].to_pylist()
        is_of_objects = "object_index" in file.schema_arrow.names
        indices = file.read(["object_index"])["object_index"].to_pylist() if is_of_objects else [0] * len(ids)
        self._rows: dict[str, list[tuple[int, int]]] = {}
        for row, (image_id, index) in enumerate(zip(ids, indices, strict=True)):
            self._rows.setdefault(image_id, []).append((row, index))
        sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        self._starts = np.cumsum([0, *sizes])
        self._read: tuple[int, pa.Table] | None = None

    def has(self, image_id: str) -> bool:
        """Whether a picture has rows."""
        return image_id in self._rows

    def of(self, image_ids: Collection[str], first: float, end: float) -> pa.Table:
        """The rows of some pictures, of the objects from `first` to before `end`, in the file's order."""
        rows = (pair for image_id in image_ids for pair in self._rows.get(image_id, ()))
        wanted = np.array(sorted(row for row, index in rows if first <= index < end), np.int64)
        groups = np.searchsorted(self._starts, wanted, "right") - 1
        parts = [self._group(n).take(wanted[groups == n] - self._starts[n]) for n in np.unique(groups)]
        return pa.concat_tables(parts) if parts else self._file.schema_arrow.empty_table()

    def _group(self, number: int) -> pa.Table:
        if self._read is None or self._read[0] != number:
            self._read = number, without_dictionaries(self._file.read_row_group(number))
        return self._read[1]


def without_dictionaries(table: pa.Table) -> pa.Table:
    """A table with the types of its config, where pictures were read as a dictionary."""
    if "image" in table.column_names:
        image = table["image"].combine_chunks()
        data = image.field("bytes")
        data = data.dictionary_decode() if pa.types.is_dictionary(data.type) else data
        plain = pa.StructArray.from_arrays([data, image.field("path")], ["bytes", "path"])
        table = table.set_column(table.column_names.index("image"), "image", plain)
    return table.replace_schema_metadata(None)


# Column -> whether two of its values, bytes and name, are alike although their bytes differ.
Alike = Mapping[str, Callable[[Any, Any], bool]]


def differences(
    path: str, found: pa.Table, expected: pa.Table, keys: Sequence[Sequence[str]], alike: Alike
) -> Iterator[Problem]:
    """Every value that is not what the raw release says, and every row that only one of the two has.

    Args:
        path: of the file that was read.
        keys: of the rows found, and of those expected.
    """
    places = [dict(zip(of, range(len(of)), strict=True)) for of in keys]
    for key in (key for key in places[1] if key not in places[0]):
        yield Problem(path, "raw_picture_lost", f"{key}: the raw release has such a row")
    for key in (key for key in places[0] if key not in places[1]):
        yield Problem(path, "raw_value", f"{key}: the raw release has no such row")
    if not (both := [key for key in places[0] if key in places[1]]):
        return
    one, other = (t.take([p[key] for key in both]) for t, p in zip((found, expected), places, strict=True))
    for column in (name for name in expected.column_names if not one[name].equals(other[name])):
        for key, value, true in zip(both, one[column].to_pylist(), other[column].to_pylist(), strict=True):
            if value != true and not (column in alike and alike[column](value, true)):
                what = "other bytes" if column in ("image", "mesh") else f"{value}, in the raw release {true}"
                yield Problem(path, "raw_value", f"{column} of {key}: {what}")


def _keys(table: pa.Table) -> list[str]:
    """What rows of pictures are called: by image_id, and objects by their number too."""
    names = [name for name in ("image_id", "object_index") if name in table.column_names]
    return [" ".join(map(str, key)) for key in zip(*(table[n].to_pylist() for n in names), strict=True)]


def look_alike(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether two crops, or thumbnails, have the same name and, but for rounding, the same pixels."""
    try:
        one, other = (_pixels(image["bytes"]) for image in (found, expected))
    except Exception:  # which the check of pictures says
        return False
    alike = one.shape == other.shape and float(np.abs(one - other).mean()) <= _ROUNDING
    return alike and found["path"] == expected["path"]


def _pixels(data: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image, np.int16)


def check_left_out(
    release: Release,
    entries: Sequence[Entry],
    tables: Sequence[str],
    given: Collection[tuple[str, str]] | None,
) -> ShardFacts:
    """Pictures that no shard has cannot be used, for a reason that the ledger gives, or have no rows.

    Args:
        given: file and reason of the ledger; None where there is no ledger.
    """
    facts = ShardFacts()
    release = release.fetched(entries)
    for entry in entries:
        annotation = ImageNet3D.read_annotation(release, entry, [])
        try:
            picture = ImageNet3D.read_picture(release, entry, annotation, [])
        except Unusable as error:
            told = given is None or (entry.picture_file, error.reason) in given
            lost = "" if told else f"{error.reason}, which the ledger does not say"
        else:
            wanted = [
                config
                for config in tables
                if any(len(_expected(config, part, release)) for part, _, _ in _parts(config, [picture]))
            ]
            lost = f"has rows in {', '.join(wanted)}" if wanted else ""
        if lost:
            facts.problems.append(Problem(entry.split, "raw_picture_lost", f"{entry.image_id}: {lost}"))
    return facts
