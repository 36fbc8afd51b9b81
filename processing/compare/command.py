"""Compares two versions of the dataset: what was added, what is gone, and what changed, field by field.

Records are pictures, objects, meshes and categories. A picture is the same as long as its stored bytes are:
they are digested, and not even read where both versions list the same file. What only one of the two versions
was built with (`captions`, `cad`) is not compared. `object_centric` follows from the rest: of it is said only
whether its files differ.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from tabulate import tabulate

from ImageNet3D import ANGLES, shown
from processing.built import Manifest
from processing.compare.version import (
    Version,
    category_names,
    columns,
    digests,
    key_of,
    keys_of,
    objects_of,
    open_version,
    version_in,
)
from processing.geometry import rotation_error, rotation_from_viewpoint

# Table -> the columns of a picture that it holds. The first that both versions have tells which there are.
_OF_PICTURES: Mapping[str, tuple[str, ...]] = {
    "classification": ("image_id", "label", "width", "height", "num_objects"),
    "captions": ("image_id", "category", "width", "height", "caption", "category_caption"),
    "pose": ("image_id", "category", "width", "height"),
}
_COMPARED = (*_OF_PICTURES, "cad", "categories")
_FOLLOWS = "object_centric"  # from pose, the pictures and the options of crops
_OF_MESHES = ("category", "cad_index", "num_vertices", "num_faces", "bounds")
_OF_CATEGORIES = ("name", "known", "caption")

_LARGEST = 10  # rotation changes that are shown
_LEAST_TURN = 1e-6  # degrees; less is the rounding of angles that are whole turns apart


@dataclass
class Difference:
    """What became of the records of one kind.

    Attributes:
        old, new: how many there were and are.
        added, gone: their keys, such as "bed/a" or "bed/a 2".
        changed: key -> the fields that have another value.
    """

    old: int = 0
    new: int = 0
    added: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    changed: dict[str, list[str]] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, int]:
        """Field -> records in which it changed, most first."""
        return dict(Counter(name for names in self.changed.values() for name in names).most_common())

    def __bool__(self) -> bool:
        return bool(self.added or self.gone or self.changed)


@dataclass(frozen=True)
class Turn:
    """An object whose rotation changed, and by which angle (geodesic, degrees in [0, 180])."""

    image_id: str
    object_index: int
    degrees: float


@dataclass
class Changes:
    """What changed from one version to another.

    Attributes:
        old, new: their names and numbers.
        kinds: pictures, objects, meshes, categories -> difference; without those not in both.
        turns: objects whose rotation changed, the largest angle first.
        moved_labels: categories whose id is another than before: what a release must never do.
        tables_added, tables_gone: configs that only one of the two has files of.
        not_compared: configs of both whose files differ, and whose rows are not compared.
    """

    old: str
    new: str
    kinds: dict[str, Difference] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)
    moved_labels: list[str] = field(default_factory=list)
    tables_added: list[str] = field(default_factory=list)
    tables_gone: list[str] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        tables = self.tables_added or self.tables_gone or self.not_compared
        return bool(any(self.kinds.values()) or self.moved_labels or tables)

    def __str__(self) -> str:
        counts = [
            (kind, d.old, d.new, len(d.added), len(d.gone), len(d.changed)) for kind, d in self.kinds.items()
        ]
        parts = [
            f"from {self.old} to {self.new}",
            *([f"LABEL IDS MOVED: {', '.join(map(shown, self.moved_labels))}"] if self.moved_labels else ()),
            *self._tables(),
            tabulate(counts, ("", "old", "new", "added", "gone", "changed"), intfmt=",")
            if counts
            else f"they share no config that is compared: {', '.join(_COMPARED)}",
        ]
        fields = [(kind, name, n) for kind, d in self.kinds.items() for name, n in d.fields.items()]
        if fields:
            parts.append(tabulate(fields, ("", "field", "changed"), intfmt=","))
        if self.turns:
            rows = [(shown(t.image_id), t.object_index, f"{t.degrees:.2f}") for t in self.turns[:_LARGEST]]
            head = (
                f"{len(self.turns):,} rotations changed, by {self._median():.2f}° in the median; the largest:"
            )
            parts.append(f"{head}\n{tabulate(rows, ('image_id', 'object', 'degrees'))}")
        return "\n\n".join(parts)

    def _tables(self) -> Iterator[str]:
        for word, tables in (
            ("only the new one has", self.tables_added),
            ("only the old one has", self.tables_gone),
        ):
            if tables:
                yield f"{word} {', '.join(tables)}; what has no other side is not compared"
        for table in self.not_compared:
            yield f"{table} has other files than before, and is not compared: it follows from pose"

    def _median(self) -> float:
        return float(np.median([turn.degrees for turn in self.turns]))

    def counts(self) -> dict[str, int]:
        """What changed, in words -> how many, for the changelog of the card."""
        found: dict[str, int] = {}
        for kind, d in self.kinds.items():
            done = {"added": len(d.added), "gone": len(d.gone), "changed": len(d.changed)}
            found |= {f"{kind} {word}": count for word, count in done.items() if count}
        return found | ({"rotations changed": len(self.turns)} if self.turns else {})

    def to_json(self) -> str:
        """All of it."""
        data = asdict(self)
        for kind, difference in self.kinds.items():
            data["kinds"][kind]["fields"] = difference.fields
        return json.dumps(data, indent=1, sort_keys=True)


def compare(old: str, new: str) -> Changes:
    """What changed from one version of the dataset to another.

    Args:
        old, new: built folders (a path or any fsspec URL), or repositories such as "ccvl/ImageNet3D@v1.0.0".

    Raises:
        PlaceError: if one is not there, or cannot be read.
        DamagedError: if a manifest is not as it was written.
    """
    return changes(open_version(old), open_version(new))


def since(previous: Version, folder: str, manifest: Manifest) -> dict[str, Any]:
    """How the shards of a build differ from an earlier version, for the option `changes` of its manifest.

    Args:
        folder: with the shards; it need not be finished.
        manifest: that lists them.

    Raises:
        PlaceError: if a shard cannot be read.
    """
    return {"previous": previous.number, "counts": changes(previous, version_in(folder, manifest)).counts()}


def changes(old: Version, new: Version) -> Changes:
    """What changed from one version to another; see `compare`."""
    common = old.tables & new.tables
    same = {path for path, entry in old.files.items() if new.files.get(path) == entry}
    found = Changes(
        f"{old.name} ({old.number})",
        f"{new.name} ({new.number})",
        tables_added=sorted(new.tables - common),
        tables_gone=sorted(old.tables - common),
    )
    if _FOLLOWS in common and not same.issuperset(old.paths_of(_FOLLOWS) + new.paths_of(_FOLLOWS)):
        found.not_compared = [_FOLLOWS]
    before, after = category_names(old), category_names(new)
    if after:  # a version without labels has none that could have moved
        moved = (name for number, name in enumerate(before) if after[number : number + 1] != [name])
        found.moved_labels = list(moved)
    if of_pictures := [table for table in _OF_PICTURES if table in common]:
        found.kinds["pictures"] = _pictures(old, new, of_pictures, same)
    if of_objects := [table for table in ("captions", "pose") if table in common]:
        found.kinds["objects"], found.turns = _objects(old, new, of_objects)
    if "cad" in common:
        found.kinds["meshes"] = _meshes(old, new, same)
    if "categories" in common:
        found.kinds["categories"] = _categories(old, new)
    return found


def _pictures(old: Version, new: Version, tables: Sequence[str], same: Collection[str]) -> Difference:
    """Every picture with the columns of all tables, and whether its bytes are the same."""
    keys = ("image_id",)
    one, other = (_merged([_frame(columns(v, t, _OF_PICTURES[t]), keys) for t in tables]) for v in (old, new))
    digested = [digests(version, tables[0], "image.bytes", keys, same) for version in (old, new)]
    return _difference(one, other, "image", *digested)


def _objects(old: Version, new: Version, tables: Sequence[str]) -> tuple[Difference, list[Turn]]:
    """Every object that has a row in pose or stands in a row of captions, and the rotations that changed."""
    keys = ("image_id", "object_index")
    one, other = (_merged([_frame(objects_of(v, t), keys) for t in tables]) for v in (old, new))
    return _difference(one, other), _turns(one, other)


def _meshes(old: Version, new: Version, same: Collection[str]) -> Difference:
    keys = ("category", "cad_index")
    one, other = (_frame(columns(version, "cad", _OF_MESHES), keys) for version in (old, new))
    digested = [digests(version, "cad", "mesh.bytes", keys, same) for version in (old, new)]
    return _difference(one, other, "mesh", *digested)


def _categories(old: Version, new: Version) -> Difference:
    one, other = (_frame(columns(v, "categories", _OF_CATEGORIES), ("name",)) for v in (old, new))
    return _difference(one, other)


def _frame(table: pa.Table, keys: Sequence[str]) -> pd.DataFrame:
    """Rows by key, with Arrow's own types, so that a null stays one; a list becomes a tuple."""
    table = table.rename_columns(["category" if name == "label" else name for name in table.column_names])
    lists = [name for name in table.column_names if pa.types.is_nested(table.schema.field(name).type)]
    frame = table.drop_columns(lists).to_pandas(types_mapper=pd.ArrowDtype)
    for name in lists:
        frame[name] = [_as_tuple(value) for value in table[name].to_pylist()]
    frame.index = pd.Index([key_of(row) for row in keys_of(table, keys)], dtype=object)
    return frame.drop(columns=list(keys))[~frame.index.duplicated()]


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _merged(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows and columns of all; where several have one, the first tells."""
    all_rows = frames[0]
    for frame in frames[1:]:
        more = [name for name in frame.columns if name not in all_rows.columns]
        all_rows = pd.concat(
            [all_rows, frame.loc[frame.index.difference(all_rows.index), frame.columns.difference(more)]]
        )
        all_rows = all_rows.assign(**{name: frame[name].reindex(all_rows.index) for name in more})
    return all_rows


def _difference(
    old: pd.DataFrame,
    new: pd.DataFrame,
    column: str = "",
    old_digests: Mapping[str, bytes] = MappingProxyType({}),
    new_digests: Mapping[str, bytes] = MappingProxyType({}),
) -> Difference:
    """Compare rows by key, and bytes by their digests as one more column."""
    both = old.index.intersection(new.index)
    found = Difference(
        len(old),
        len(new),
        sorted(new.index.difference(old.index)),
        sorted(old.index.difference(new.index)),
    )
    changed: dict[str, list[str]] = {}
    for name in (name for name in new.columns if name in old.columns):
        one, other = old.loc[both, name], new.loc[both, name]
        missing = one.isna().to_numpy(bool), other.isna().to_numpy(bool)
        unequal = (one != other).to_numpy(bool, na_value=False) & ~missing[0] & ~missing[1]
        for key in both[unequal | (missing[0] != missing[1])]:
            changed.setdefault(key, []).append(name)
    for key in old_digests.keys() & new_digests.keys():
        if old_digests[key] != new_digests[key]:
            changed.setdefault(key, []).append(column)
    found.changed = {key: sorted(changed[key]) for key in sorted(changed)}
    return found


def _turns(old: pd.DataFrame, new: pd.DataFrame) -> list[Turn]:
    """The objects whose rotation changed, by the angle between the two, the largest first."""
    both = old.index.intersection(new.index)
    angles = [frame.loc[both, list(ANGLES)].astype("float64").to_numpy() for frame in (old, new)]
    moved = np.flatnonzero((angles[0] != angles[1]).any(axis=1) & np.isfinite(sum(angles)).all(axis=1))
    rotations = [rotation_from_viewpoint(*values[moved].T) for values in angles]
    degrees = np.degrees(rotation_error(*rotations))
    turns = []
    for key, angle in zip(both[moved], degrees.tolist(), strict=True):
        image_id, _, index = key.rpartition(" ")
        if angle > _LEAST_TURN:
            turns.append(Turn(image_id, int(index), angle))
    return sorted(turns, key=lambda turn: (-turn.degrees, turn.image_id, turn.object_index))
