"""Checks of a built folder against the raw release: every value of every row, and nothing lost."""

import io
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import PIL.Image
import pyarrow as pa

import ImageNet3D
from ImageNet3D import Entry, Finding, Picture, Release, Unusable
from processing.built import DERIVED_TABLES
from processing.crop import rows as object_centric
from processing.crop.place import why_not_cropped
from processing.verify.checks import Problem, RowGroup, ShardFacts

_ROUNDING = 1.0  # levels of 255, on the average, that another JPEG encoder may change in a crop


class RawComparison:
    """Builds the rows of a shard's pictures anew from the raw release and compares them, to the last bit.

    Only the bytes of a crop may differ, as far as its pixels hardly do.

    Args:
        release: the raw release.
        entries: image id -> the shard's pictures.
        tables: configs of the build.
        split: of the shard.
    """

    def __init__(
        self, release: Release, entries: Mapping[str, Entry], tables: Sequence[str], split: str
    ) -> None:
        self._release, self._entries, self._tables, self._split = release, entries, tables, split
        self._pictures: dict[str, Picture | str] = {}  # of one row group, or why there is none
        self._number = 0
        self._expected: dict[str, set[str]] = {config: set() for config in tables}
        self._crops_expected: set[tuple[str, int]] = set()
        self._crops_found: set[tuple[str, int]] = set()

    def check(self, group: RowGroup) -> Iterator[Problem]:
        """The rows of a row group are those of its pictures."""
        if group.number != self._number:
            self._number = group.number
            self._pictures.clear()
        pictures: list[Picture] = []
        unread = dict.fromkeys(group.runs).keys() - self._pictures.keys()
        release = self._release.fetched(self._entries[key] for key in unread if key in self._entries)
        for image_id in dict.fromkeys(group.runs):
            picture = self._read(image_id, release)
            if isinstance(picture, str):
                yield group.problem("raw_picture_unknown", f"{image_id}: {picture}")
                return
            pictures.append(picture)
        found = _without_dictionaries(group.table)
        if group.derived:
            found, expected = self._crops(found, pictures)
        else:
            expected = ImageNet3D.rows(group.config, pictures, self._release)
        if not found.equals(expected):
            yield group.problem("raw_value", f"row group {group.number}: {difference(found, expected)}")

    def _crops(self, found: pa.Table, pictures: Sequence[Picture]) -> tuple[pa.Table, pa.Table]:
        """The crops found and expected; where they look the same, with the same bytes.

        A row group may end amid the objects of a picture, and another version of the libraries may write
        other bytes.
        """
        expected = object_centric.rows(pictures, [], Counter(), self._release.categories)
        keys, present = _keys(expected), set(_keys(found))
        self._crops_expected.update(keys)
        self._crops_found.update(present)
        expected = expected.filter(pa.array([key in present for key in keys], pa.bool_()))
        if len(expected) == len(found) and all(map(look_alike, found["image"], expected["image"])):
            found = found.set_column(0, "image", expected["image"])
        return found, expected

    def _read(self, image_id: str, release: Release) -> Picture | str:
        if image_id in self._pictures:
            return self._pictures[image_id]
        entry = self._entries.get(image_id)
        if entry is None or entry.split != self._split:
            self._pictures[image_id] = "in no list" if entry is None else f"listed in {entry.split}"
            return self._pictures[image_id]
        try:
            annotation = ImageNet3D.read_annotation(release, entry, [])
            picture = ImageNet3D.read_picture(release, entry, annotation, [])
        except Unusable as error:
            self._pictures[image_id] = error.reason
            return error.reason
        self._pictures[image_id] = picture
        for config in self._tables:
            if has_rows(config, picture):
                self._expected[config].add(image_id)
        return picture

    def check_complete(self, order: Mapping[str, Sequence[Sequence[str]]]) -> Iterator[Problem]:
        """Each config has all pictures of the shard that have rows in it, and all their crops."""
        for image_id, index in sorted(self._crops_expected - self._crops_found):
            yield Problem("object_centric", "raw_picture_lost", f"{image_id}: object {index} has no crop")
        for config, expected in self._expected.items():
            lost = expected - set(itertools.chain.from_iterable(order.get(config, ())))
            for image_id in sorted(lost):
                yield Problem(config, "raw_picture_lost", f"{image_id}: has rows, and is in another config")


def has_rows(config: str, picture: Picture) -> bool:
    """Whether a picture has rows in a config, also in one whose pictures are made from it."""
    if config in DERIVED_TABLES:
        size = picture.width, picture.height
        posed = [item for item in picture.annotation.objects if item.posed]
        return any(not why_not_cropped(item, size, object_centric.OPTIONS) for item in posed)
    return ImageNet3D.has_rows(config, picture.entry, picture.annotation)


def _keys(table: pa.Table) -> list[tuple[str, int]]:
    return list(zip(table["image_id"].to_pylist(), table["object_index"].to_pylist(), strict=True))


def look_alike(found: pa.StructScalar, expected: pa.StructScalar) -> bool:
    """Whether two crops, or thumbnails, have the same name and, but for rounding, the same pixels."""
    if found.equals(expected) or found["path"] != expected["path"]:
        return found.equals(expected)
    try:
        one, other = (_pixels(scalar["bytes"].as_py()) for scalar in (found, expected))
    except Exception:  # which the check of pictures says
        return False
    return one.shape == other.shape and float(np.abs(one - other).mean()) <= _ROUNDING


def _pixels(data: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(data)) as image:
        return np.asarray(image, np.int16)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    image = table["image"].combine_chunks()
    data = image.field("bytes").dictionary_decode()
    plain = pa.StructArray.from_arrays([data, image.field("path")], ["bytes", "path"])
    return table.set_column(0, "image", plain).replace_schema_metadata(None)


def difference(found: pa.Table, expected: pa.Table) -> str:
    """Where two tables of one schema differ first."""
    if len(found) != len(expected):
        return f"{len(found)} rows, {len(expected)} in the raw release"
    for row in range(len(found)):
        for column in found.column_names:
            one, other = found[column][row], expected[column][row]
            if not one.equals(other):
                texts = (
                    ("other bytes",)
                    if column in ("image", "mesh")
                    else (f"{one}", f"{other} in the raw release")
                )
                key = f" of {expected['image_id'][row]}" if "image_id" in expected.column_names else ""
                return f"{column}{key}: {', '.join(texts)[:200]}"
    return "differ"


def check_left_out(
    release: Release,
    entries: Sequence[Entry],
    tables: Sequence[str],
    ledger: Sequence[tuple[str, Finding]] | None,
) -> ShardFacts:
    """Pictures that no shard has cannot be used, for a reason that the ledger gives, or have no rows."""
    facts = ShardFacts()
    given = {(finding.file, finding.reason) for _, finding in ledger or ()}
    release = release.fetched(entries)
    for entry in entries:
        file = entry.annotation_file
        try:
            annotation = ImageNet3D.read_annotation(release, entry, [])
            file = entry.picture_file
            picture = ImageNet3D.read_picture(release, entry, annotation, [])
        except Unusable as error:
            told = ledger is None or (file, error.reason) in given
            lost = "" if told else f"{error.reason}, which the ledger does not say"
        else:
            wanted = [c for c in tables if has_rows(c, picture)]
            lost = f"has rows in {', '.join(wanted)}" if wanted else ""
        if lost:
            facts.problems.append(Problem(entry.split, "raw_picture_lost", f"{entry.image_id}: {lost}"))
    return facts
