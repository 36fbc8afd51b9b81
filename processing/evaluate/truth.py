"""The truth: which objects of a built folder predictions are scored on, and their poses.

Two reports can be compared when they are about the same objects. So the objects are a *population* with a
name, a number and a checksum:

    benchmark   what the authors' evaluation code keeps: status good, partially or barely, distance above 0,
                no ignore flag. These are the rows of object_centric, so where that config is in the folder
                its keys decide. The columns of pose tell all but the ignore flag, and an object whose crop
                would be empty; where only pose is there, the report says that such objects are counted too.
    all         every posed object.

open_vocab_known and open_vocab_unknown are parts of pose, by its column `known`. The other part is outside
the population: predictions of all of pose may be scored on either.

The checksum is the SHA-256, in hexadecimal, of the sorted lines "image_id object_index", each with "\\n".
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from os import PathLike, fspath

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import ImageNet3D
from ImageNet3D import shown, shown_error
from processing.built import MANIFEST, Manifest, shard_glob
from processing.configs import config_splits, table_of
from processing.evaluate.choices import ChoiceError
from processing.runtime.store import paths_matching
from processing.runtime.strict import DamagedError

CONFIGS = ("pose", "open_vocab_known", "open_vocab_unknown", "object_centric")
POPULATIONS = ("benchmark", "all")

CROPPED = "object_centric"
BENCHMARK_STATUS = ("good", "partially", "barely")

_KEYS = {"image_id": pa.string(), "object_index": pa.int64()}
_COLUMNS = {
    **_KEYS,
    **dict.fromkeys(ImageNet3D.ANGLES, pa.float64()),
    "category": pa.int64(),
    "known": pa.bool_(),
    "object_status": pa.int64(),
}
# What tells the population where object_centric is not there.
_PLACED = dict.fromkeys(("distance", "px", "py"), pa.float64())
_MAY_BE_NULL = ("object_status", *_PLACED)

_VERIFY = "run `imagenet3d verify` on the dataset's folder"
_NAMED = 5  # how many names an error lists


class DatasetError(ValueError):
    """The dataset is damaged: nothing can be compared with it, whatever the predictions are."""


@dataclass(frozen=True)
class Population:
    """Which objects a report is about.

    Attributes:
        name: of `POPULATIONS`.
        config: pose, open_vocab_known, open_vocab_unknown or object_centric.
        split: train or validation.
        rule: what makes an object part of it, in words.
        read_from: the configs whose files were read.
        note: what could not be known; empty where all was.
        objects: how many there are.
        keys_sha256: see the module's docstring.
    """

    name: str
    config: str
    split: str
    rule: str
    read_from: tuple[str, ...]
    note: str
    objects: int
    keys_sha256: str


@dataclass(frozen=True)
class Truth:
    """The objects of a population, N of them by their keys, and the other posed objects of the same files."""

    population: Population
    keys: pa.Array  # (N,) of text, "image_id object_index", sorted
    angles: NDArray[np.float64]  # (N, 3) azimuth, elevation, theta in radians, as annotated
    category: NDArray[np.int64]  # (N,) ids
    known: NDArray[np.bool_]  # (N,)
    status: NDArray[np.int64]  # (N,) positions in OBJECT_STATUS, or its length where there is none
    outside: pa.Array  # keys of posed objects that are not of the population
    categories: tuple[str, ...]  # the names of ids: CATEGORIES, then later ones of the dataset's own


def key_text(image_id: pa.ChunkedArray, object_index: pa.ChunkedArray) -> pa.Array:
    """Return one text a key, null where a part is."""
    texts = pc.binary_join_element_wise(image_id, object_index.cast(pa.string()), " ")
    return texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts


def read_truth(
    dataset: str | PathLike[str],
    config: str = "pose",
    split: str = "validation",
    population: str = "benchmark",
) -> Truth:
    """Return the objects of a population; of the shards, only the columns that evaluation needs are read.

    Args:
        dataset: the folder that `build` wrote; a path or any fsspec URL.
        config: of `CONFIGS`.
        split: train or validation.
        population: of `POPULATIONS`.

    Raises:
        DatasetError: a shard cannot be read, is missing, or holds what no build writes.
        FileNotFoundError: there are no files to read the population from.
        ChoiceError: the config, the split or the population does not exist, or no object is of it.
    """
    if config not in CONFIGS:
        raise ChoiceError(
            f"config '{shown(config)}' has no poses to compare with; choose one of {', '.join(CONFIGS)}"
        )
    if split not in config_splits(config):
        raise ChoiceError(f"config '{config}' has no split '{shown(split)}'")
    if population not in POPULATIONS:
        raise ChoiceError(f"population '{shown(population)}': choose one of {', '.join(POPULATIONS)}")
    folder = _Folder(dataset, split)
    if population == "all" or config == CROPPED:
        table = folder.read_whole(config, _COLUMNS)
        inside, read_from, note = _own(table, config), [config], ""
    else:
        table, inside, read_from, note = _benchmark(folder, config)
    keys = key_text(table["image_id"], table["object_index"])
    order = _ordered(keys, table["shard"])
    if not inside.any():
        posed = bool(_own(table, config).any())
        raise ChoiceError(
            f"no object of {config}, {split} in {fspath(dataset)} is of the population {population} "
            f"({_rule(population, config)}); give {_elsewhere(population, config, posed)}"
        )
    chosen = pa.array(order[inside[order]])
    rows, counted = table.take(chosen), keys.take(chosen)
    status = pc.fill_null(rows["object_status"], len(ImageNet3D.OBJECT_STATUS))
    return Truth(
        Population(
            population,
            config,
            split,
            _rule(population, config),
            tuple(read_from),
            note,
            len(counted),
            _checksum(counted),
        ),
        counted,
        np.column_stack([rows[name].to_numpy() for name in ImageNet3D.ANGLES]),
        rows["category"].to_numpy(),
        rows["known"].to_numpy(),
        status.to_numpy(),
        keys.filter(pa.array(~inside)),
        folder.categories,
    )


def read_keys(dataset: str | PathLike[str], config: str, split: str) -> pa.Array:
    """Return the keys of all rows of a config's split; none where it has no files."""
    folder = _Folder(dataset, split)
    if not folder.shards(config):
        return pa.array([], pa.string())
    table = folder.read(config, _KEYS)
    return key_text(table["image_id"], table["object_index"])


def _benchmark(folder: _Folder, config: str) -> tuple[pa.Table, NDArray[np.bool_], list[str], str]:
    """Return posed objects, which of them are of the population, the configs read, and what is not known."""
    if not folder.shards(table_of(config)) and folder.shards(CROPPED):
        table = folder.read(CROPPED, _COLUMNS)
        return table, _own(table, config), [CROPPED], ""
    if not folder.shards(CROPPED) and not folder.built_empty(CROPPED):
        table = folder.read_whole(config, _COLUMNS | _PLACED)
        status = [ImageNet3D.OBJECT_STATUS.index(name) for name in BENCHMARK_STATUS]
        inside = pc.and_(
            pc.is_in(table["object_status"], value_set=pa.array(status)), pc.greater(table["distance"], 0)
        )
        for name in ("px", "py"):
            inside = pc.and_(inside, pc.is_valid(table[name]))
        note = (
            f"no files {shard_glob(CROPPED, folder.split)} are in the folder, and the columns of {config} "
            "show no ignore flag and no empty crop: objects that have one are counted too"
        )
        return table, pc.fill_null(inside, False).to_numpy() & _own(table, config), [config], note
    table = folder.read_whole(config, _COLUMNS)
    crops = folder.read(CROPPED, _KEYS | {"known": pa.bool_()})
    crops = crops.filter(pa.array(_own(crops, config)))
    keys = key_text(crops["image_id"], crops["object_index"])
    inside = pc.is_in(key_text(table["image_id"], table["object_index"]), value_set=keys).to_numpy(False)
    inside &= _own(table, config)
    if np.count_nonzero(inside) != len(keys):
        raise _broken(
            f"{CROPPED} has {len(keys):,} objects, of which {np.count_nonzero(inside):,} are in {config}"
        )
    return table, inside, [config, CROPPED], ""


def _own(table: pa.Table, config: str) -> NDArray[np.bool_]:
    """Return which objects of a table are of a config's categories."""
    known = ImageNet3D.known_only(config)
    if known is None:
        return np.ones(len(table), dtype=bool)
    return pc.equal(table["known"], known).to_numpy()


def _elsewhere(population: str, config: str, posed: bool) -> str:
    """Return what to give where a population has no object; the config's files have posed ones, or none."""
    if population == "all" or not posed:
        return "another --split or --config" if config != CROPPED else "--config pose --population all"
    return "--population all"


def _rule(population: str, config: str) -> str:
    """Return what makes an object part of a population, in words."""
    kind = {True: "known categories, ", False: "unknown categories, ", None: ""}[
        ImageNet3D.known_only(config)
    ]
    if population == "all":
        return f"{kind}every object of {config}"
    return f"{kind}status good, partially or barely, distance above 0, no ignore flag"


def _ordered(keys: pa.Array, shard: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return what sorts the keys, having made sure that each stands once."""
    order = pc.sort_indices(keys)
    ordered = keys.take(order)
    doubled = ordered.slice(1).filter(pc.equal(ordered.slice(1), ordered.slice(0, max(len(keys) - 1, 0))))
    if len(doubled):
        shards = pc.unique(shard.cast(pa.string()).filter(pc.is_in(keys, value_set=doubled))).to_pylist()
        raise _broken(f"{described(doubled, 'there twice')}; in {few(sorted(shards))}")
    return order.to_numpy()


def _checksum(ordered: pa.Array) -> str:
    return hashlib.sha256("\n".join([*ordered.to_pylist(), ""]).encode()).hexdigest()


class _Folder:
    """The shards of one split of a built folder."""

    def __init__(self, dataset: str | PathLike[str], split: str) -> None:
        self._files, root = fsspec.url_to_fs(fspath(dataset))
        self._root, self._given, self.split = root.rstrip("/"), fspath(dataset), split
        self.categories = ImageNet3D.CATEGORIES  # and others, if a shard that was read names them

    def shards(self, config: str) -> list[str]:
        """The paths of a config's shards, in order."""
        folder, pattern = shard_glob(config, self.split).split("/")
        return paths_matching(self._files, f"{self._root}/{folder}", pattern)

    def built_empty(self, config: str) -> bool:
        """Whether the build made a config, and no row of it for this split: then it has no file."""
        if self._manifest is None or not any(config == built for built, _ in self._manifest.books.accounts):
            return False
        return not self._listed(shard_glob(config, self.split))

    def read_whole(self, config: str, columns: dict[str, pa.DataType]) -> pa.Table:
        """As `read`, of all objects of the config that another is a part of; it has files, or no rows."""
        self._refuse_missing(config)
        return self.read(table_of(config), columns)

    def read(self, config: str, columns: dict[str, pa.DataType]) -> pa.Table:
        """Columns of a config, and `shard`: the row's file in the dataset.

        Raises:
            DatasetError: a shard cannot be read, is missing, or holds what no build writes.
            FileNotFoundError: there are no shards, and the build made some.
        """
        self._refuse_missing(config)
        shards = self.shards(config)
        if not shards:
            kinds = {**columns, "shard": pa.dictionary(pa.int32(), pa.string())}
            return pa.schema(kinds).empty_table()
        self._refuse_parts(config)
        names = ["/".join(path.split("/")[-2:]) for path in shards]
        table = pa.concat_tables(map(self._read_shard, shards, names, [columns] * len(names)))
        if not table.num_rows:
            raise _broken(f"{shard_glob(config, self.split)} in {self._given} have no rows")
        return table

    def _refuse_parts(self, config: str) -> None:
        """Refuse a split of which some files are not here: the population would be another."""
        folder = shard_glob(config, self.split).split("/")[0]
        found = paths_matching(self._files, f"{self._root}/{folder}", f"{self.split}-*.parquet")
        totals = {
            int(total) for path in found for total in re.findall(r"-of-(\d{1,9})\b", path.split("/")[-1])
        }
        names = {f"{folder}/{path.split('/')[-1]}" for path in found}
        if totals and totals != {len(found)} and names != self._listed(f"{folder}/{self.split}-*"):
            raise _broken(
                f"{folder}/ holds {len(found)} of {max(totals)} files of {self.split}, or of two builds"
            )

    def _refuse_missing(self, config: str) -> None:
        if not self.shards(config) and not self.built_empty(config):
            raise FileNotFoundError(
                f"no files {shard_glob(config, self.split)} in {self._given}; give the folder that "
                "`imagenet3d build` wrote"
            )

    def _listed(self, pattern: str) -> set[str]:
        """The files of the manifest whose paths match; a shard without any row is none of them."""
        return (
            {path for path in self._manifest.files if fnmatchcase(path, pattern)} if self._manifest else set()
        )

    @cached_property
    def _manifest(self) -> Manifest | None:
        """What the build wrote down; None where it is not there, or not whole."""
        try:
            return Manifest.from_json(self._files.cat_file(f"{self._root}/{MANIFEST}"))
        except (OSError, DamagedError):
            return None

    def _read_shard(self, path: str, name: str, columns: dict[str, pa.DataType]) -> pa.Table:
        if self._files.info(path)["type"] != "file":  # a FIFO would be waited for
            raise _broken(f"{shown(name)} is no file")
        with self._files.open(path) as handle:
            try:
                source = pq.ParquetFile(handle)
                self._learn_categories(source.schema_arrow.metadata or {}, name)
                if missing := set(columns) - set(source.schema_arrow.names):
                    raise _broken(f"{shown(name)} has no column {', '.join(sorted(missing))}")
                read = source.read(columns=list(columns), use_threads=False)  # see `store.read_columns`
                table = pa.table({column: read[column].cast(kind) for column, kind in columns.items()})
            except (pa.ArrowException, OSError) as error:
                raise DatasetError(
                    f"{shown(name)} cannot be read ({shown_error(error)}); {_VERIFY}"
                ) from error
        _check_values(table, shown(name), self.categories)
        shard = pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), [name])
        return table.append_column("shard", shard)

    def _learn_categories(self, metadata: dict[bytes, bytes], name: str) -> None:
        """Take in the names of label ids that a shard holds for `datasets`; a later release has more."""
        try:
            names = json.loads(metadata[b"huggingface"])["info"]["features"]["category"]["names"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if (
            not all(isinstance(label, str) for label in names)
            or tuple(names[: len(self.categories)]) != (self.categories[: len(names)])
        ):
            raise _broken(f"{shown(name)} names other categories, or in another order")
        self.categories = max(self.categories, tuple(names), key=len)


def _check_values(table: pa.Table, shard: str, categories: tuple[str, ...]) -> None:
    """Refuse what no build writes, and what would look like a fault of the predictions."""
    for column in table.column_names:
        if column not in _MAY_BE_NULL and table[column].null_count:
            raise _broken(f"{shard} has rows without {column}")
    for column in set(ImageNet3D.ANGLES) & set(table.column_names):
        if not np.isfinite(table[column].to_numpy()).all():
            raise _broken(f"{shard} holds angles that are not finite")
    for column, names in (("category", categories), ("object_status", ImageNet3D.OBJECT_STATUS)):
        values = table[column].drop_null().to_numpy() if column in table.column_names else np.zeros(0)
        if values.size and (values.min() < 0 or values.max() >= len(names)):
            raise _broken(f"{shard} has {column} outside 0 to {len(names) - 1}")


def described(keys: pa.Array, what: str) -> str:
    """Return how many objects have a problem and the keys of the first few; nothing if there are none."""
    if not len(keys):
        return ""
    names = [" object ".join(map(shown, key.rsplit(" ", 1))) for key in keys.slice(0, _NAMED).to_pylist()]
    more = ", ..." if len(keys) > _NAMED else ""
    return f"{len(keys):,} {'object' if len(keys) == 1 else 'objects'} {what}: {', '.join(names)}{more}"


def few(names: Sequence[str]) -> str:
    """Return the first few names, as errors show what came from outside."""
    return ", ".join(map(shown, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def _broken(what: str) -> DatasetError:
    return DatasetError(f"the dataset itself is broken: {what}; {_VERIFY}")
