"""Predictions against the truth of a built folder: the paper's figures as a table, JSON and a plot.

A file of predictions has one row an object, with the columns

    image_id, object_index      the key of the object, as in the dataset
    azimuth, elevation, theta   the pose in radians, any range; or instead
    rotation                    nine numbers, the object-to-camera rotation row by row (Parquet, JSON lines)
    r00, r01, r02, r10 ... r22  the same in CSV
    category                    the predicted category, by name or by id as in the dataset; optional, for
                                classification and both together

and is Parquet, CSV or JSON lines by its ending (.parquet, .csv, .jsonl or .ndjson). The first row of JSON
lines tells which columns there are. Other columns are ignored, and not read. Every object of the split needs
exactly one prediction: a missing, doubled or foreign key is an error that names it, for an average over
whatever happens to be there compares with nothing.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike, fspath
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tabulate import SEPARATING_LINE, tabulate

import ImageNet3D
from processing import geometry
from processing.built import shard_glob
from processing.evaluate import metrics
from processing.evaluate.metrics import Summary
from processing.runtime.store import paths_matching

KEYS = ["image_id", "object_index"]
ANGLES = list(ImageNet3D.ANGLES)
ENTRIES = [f"r{row}{column}" for row in range(3) for column in range(3)]

COLUMN_TYPES = {
    "image_id": pa.string(),
    "object_index": pa.int64(),
    **dict.fromkeys([*ANGLES, *ENTRIES], pa.float64()),
    "rotation": pa.list_(pa.float64()),
    "category": pa.string(),
}

# What is read of the shards. Only the status may be missing.
TRUTH_TYPES = {
    **{name: COLUMN_TYPES[name] for name in (*KEYS, *ANGLES)},
    "category": pa.int64(),
    "known": pa.bool_(),
    "object_status": pa.int64(),
}

# The configs that have poses.
CONFIGS = ("pose", "open_vocab_known", "open_vocab_unknown", "object_centric")

PLOT_ENDINGS = (".png", ".svg", ".pdf")

# Of the plot and of the curves in the JSON, in degrees.
THRESHOLDS = np.arange(181)

# Rows whose matrices are worked on at once: they fit the processor's cache, and memory does not grow with
# the file.
CHUNK = 2**15

# How many keys an error names.
NAMED = 5

_VERIFY = "run `python -m processing verify` on the dataset's folder"
_GROUPS_REMEDY = 'give names with lists of categories, such as {"seats": ["chair", "sofa"]}'


class PredictionError(ValueError):
    """The predictions do not fit the dataset, or hold what is not a pose."""


class DatasetError(ValueError):
    """The dataset is damaged: nothing can be compared with it, whatever the predictions are."""


@dataclass(frozen=True)
class Report:
    """The figures of one file of predictions on one split."""

    config: str
    split: str
    overall: Summary
    by: Mapping[str, Sequence[Summary]]  # known, status, category and, if groups were given, group
    curves: Mapping[str, Sequence[float]]  # pose accuracy below 0, 1, ... 180 degrees: all, known, unknown

    def __str__(self) -> str:
        """Return the table."""
        return self.table()

    def table(self, encoding: str = "utf-8") -> str:
        """Return a table of shares in percent and errors in degrees.

        Args:
            encoding: of where it is printed. One that cannot say π or ° gets "pi" and "deg", and escapes for
                what it cannot say of the groups' names.
        """
        headers = ["by", "name", "objects", "π/6 %", "π/18 %", "median °", "mean °"]
        if self.overall.classification is not None:
            headers += ["class %", "joint π/6 %", "joint π/18 %"]
        if not _can_say(encoding, "π°"):
            headers = [header.replace("π", "pi").replace("°", "deg") for header in headers]
        rows = [_table_row("all", self.overall)]
        for by, summaries in self.by.items():
            rows += [SEPARATING_LINE, *(_table_row(by, summary) for summary in summaries)]
        table = f"{self.config}, {self.split}\n\n{tabulate(rows, headers, floatfmt='.1f')}"
        return table.encode(encoding, "backslashreplace").decode(encoding)

    def to_json(self) -> str:
        """Return everything as JSON: shares in [0, 1], errors in degrees, null for what does not exist."""
        return json.dumps(_without_nan(asdict(self)), indent=2, ensure_ascii=False, allow_nan=False)

    def plot(self, path: str | PathLike[str]) -> None:
        """Write a plot of pose accuracy against the threshold.

        Args:
            path: its ending gives the format: .png, .svg or .pdf.

        Raises:
            ValueError: the ending is another.
            ImportError: matplotlib is not installed.
        """
        check_plot(path)
        from matplotlib.figure import Figure

        # A figure of its own, not pyplot's: no display, no state shared with the caller's plots.
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.add_subplot(
            xlabel="rotation error below (degrees)",
            ylabel="share of objects",
            xlim=(0, 180),
            ylim=(0, 1),
            title=f"{self.config}, {self.split}",
        )
        for name, accuracy in self.curves.items():
            axes.plot(THRESHOLDS, accuracy, label=name)
        for threshold, label in [(metrics.COARSE, "π/6"), (metrics.FINE, "π/18")]:
            axes.axvline(math.degrees(threshold), color="grey", linestyle=":")
            axes.annotate(label, (math.degrees(threshold), 1.01), ha="center", annotation_clip=False)
        axes.legend(loc="lower right")
        figure.savefig(fspath(path))


def check_plot(path: str | PathLike[str]) -> None:
    """Make sure that a plot can be drawn to a path, before the work whose result it shows.

    Raises:
        ValueError: the ending is none of `PLOT_ENDINGS`.
        ImportError: matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in PLOT_ENDINGS:
        raise ValueError(
            f"the plot {fspath(path)} does not end in {', '.join(PLOT_ENDINGS)}, which tells the format"
        )
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "the plot needs matplotlib, which comes with the extra: pip install '.[demo]'"
        ) from error


def evaluate(
    predictions: str | PathLike[str],
    dataset: str | PathLike[str],
    config: str = "pose",
    split: str = "validation",
    groups: Mapping[str, Sequence[str]] | str | PathLike[str] | None = None,
) -> Report:
    """Compare predictions with the truth of a built folder.

    Args:
        predictions: a file as the module's docstring describes; a path or any fsspec URL.
        dataset: the folder that `build` wrote; a path or any fsspec URL, as hf://datasets/ccvl/ImageNet3D.
        config: pose, open_vocab_known, open_vocab_unknown or object_centric.
        split: train or validation; open_vocab_unknown has validation only.
        groups: names of groups and the categories in each, or the path of a JSON file with that. A category
            may be in several groups, or in none.

    Returns:
        The figures overall, for known and unknown categories, per status, per category and per group.

    Raises:
        PredictionError: keys are missing, doubled or foreign; values are missing, not finite, not a rotation
            or not a category; columns are missing. The message names the first few keys and counts all.
        DatasetError: a shard is damaged, or holds what no build writes.
        FileNotFoundError: a file or the config's shards are not there.
        ValueError: the config, the split, the file's ending or a category of a group is none that exists, or
            the groups are not groups.
    """
    categories = _groups(groups)
    truth = read_truth(dataset, config, split)
    predicted = _aligned(read_predictions(predictions), truth)
    error = _pose_errors(predicted, truth)
    correct = _correct_categories(predicted, truth) if "category" in predicted.column_names else None
    return Report(
        config=config,
        split=split,
        overall=metrics.summarise("all", error, correct),
        by=_breakdown(truth, error, correct, categories),
        curves=_curves(truth, error),
    )


def read_truth(dataset: str | PathLike[str], config: str, split: str) -> pa.Table:
    """Return the columns of a split that evaluation needs; of the shards, only those are read.

    The columns are those of `TRUTH_TYPES`, angles in radians, and `shard`: the row's file in the dataset.

    Raises:
        DatasetError: a shard cannot be read, or holds what no build writes.
        FileNotFoundError: the config has no shards of that split there.
        ValueError: the config or the split does not exist.
    """
    if config not in CONFIGS:
        raise ValueError(
            f"config {config!r} has no poses to compare with; choose one of {', '.join(CONFIGS)}"
        )
    if split not in ImageNet3D.config_splits(config):
        raise ValueError(f"config {config!r} has no split {split!r}")
    files, root = fsspec.url_to_fs(fspath(dataset))
    folder, pattern = shard_glob(config, split).split("/")
    shards = paths_matching(files, f"{root.rstrip('/')}/{folder}", pattern)
    if not shards:
        raise FileNotFoundError(
            f"no files {folder}/{pattern} in {fspath(dataset)}; give the folder that "
            "`python -m processing build` wrote"
        )
    truth = pa.concat_tables(_read_shard(files, path, "/".join(path.split("/")[-2:])) for path in shards)
    if not truth.num_rows:
        raise _broken(f"{folder}/{pattern} in {fspath(dataset)} have no rows")
    return truth


def _read_shard(files: fsspec.AbstractFileSystem, path: str, name: str) -> pa.Table:
    """Return the columns of one shard, which errors call by its path in the dataset."""
    with files.open(path) as handle:
        try:
            source = pq.ParquetFile(handle)
            if missing := set(TRUTH_TYPES) - set(source.schema_arrow.names):
                raise _broken(f"{name} has no column {', '.join(sorted(missing))}")
            read = source.read(columns=list(TRUTH_TYPES), use_threads=False)  # see `store.read_columns`
            table = pa.table({column: read[column].cast(kind) for column, kind in TRUTH_TYPES.items()})
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{name} cannot be read ({error}); {_VERIFY}") from error
    _check_values(table, name)
    shard = pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), [name])
    return table.append_column("shard", shard)


def _check_values(table: pa.Table, shard: str) -> None:
    """Refuse what no build writes, and what would look like a fault of the predictions."""
    for column in TRUTH_TYPES:
        if column != "object_status" and table[column].null_count:
            raise _broken(f"{shard} has rows without {column}")
    if not np.isfinite(_columns(table, ANGLES)).all():
        raise _broken(f"{shard} holds angles that are not finite")
    for column, names in (("category", ImageNet3D.CATEGORIES), ("object_status", ImageNet3D.OBJECT_STATUS)):
        ends = pc.min_max(table[column]).as_py()
        if ends["min"] is not None and (ends["min"] < 0 or ends["max"] >= len(names)):
            raise _broken(f"{shard} has {column} outside 0 to {len(names) - 1}")


def _broken(what: str) -> DatasetError:
    return DatasetError(f"the dataset itself is broken: {what}; {_VERIFY}")


def read_predictions(path: str | PathLike[str]) -> pa.Table:
    """Return the columns of a file of predictions that count, typed as in `COLUMN_TYPES`.

    The rotation of a CSV file comes as one column of nine numbers, as in the other formats.

    Raises:
        PredictionError: columns are missing, or values are not of their type.
        FileNotFoundError: the file is not there.
        ValueError: the ending is none of those known.
    """
    path = fspath(path)
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_json, ".ndjson": _read_json}
    ending = path[path.rfind(".") :].lower()
    if ending not in readers:
        raise ValueError(f"{path} does not end in {', '.join(readers)}, which tells the format")
    files, inner = fsspec.url_to_fs(path)
    try:
        table = readers[ending](files, inner)
        return pa.table({name: table[name].cast(COLUMN_TYPES[name]) for name in table.column_names})
    except (pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PredictionError(f"{path}: {error}") from error


def _read_parquet(files: fsspec.AbstractFileSystem, path: str) -> pa.Table:
    with files.open(path) as handle:
        try:
            source = pq.ParquetFile(handle)
            return source.read(columns=_wanted(source.schema_arrow.names, path), use_threads=False)
        except OSError as error:  # of damaged pages
            raise PredictionError(f"{path}: {error}") from error


def _read_csv(files: fsspec.AbstractFileSystem, path: str) -> pa.Table:
    with files.open(path) as handle, io.TextIOWrapper(handle, "utf-8-sig", newline="") as text:
        wanted = _wanted(next(csv.reader(text), []), path)
    options = pyarrow.csv.ConvertOptions(
        include_columns=wanted, column_types={name: COLUMN_TYPES[name] for name in wanted}
    )
    table = pyarrow.csv.read_csv(_in_memory(files, path), convert_options=options)
    if ENTRIES[0] not in wanted:
        return table
    entries = np.column_stack([table[name].to_numpy() for name in ENTRIES])
    rotation = pa.FixedSizeListArray.from_arrays(pa.array(entries.ravel()), 9)
    return table.drop_columns(ENTRIES).append_column("rotation", rotation)


def _read_json(files: fsspec.AbstractFileSystem, path: str) -> pa.Table:
    with files.open(path) as handle:
        first = json.loads(handle.readline() or b"{}")
    if not isinstance(first, dict):
        raise PredictionError(f"{path} does not hold one JSON object a line")
    wanted = _wanted(list(first), path)
    types = {name: COLUMN_TYPES[name] for name in wanted}
    if isinstance(first.get("category"), int):  # an id; Arrow takes no number for text
        types["category"] = pa.int64()
    if any(isinstance(item, list) for item in first.get("rotation") or ()):
        raise PredictionError(
            f"{path}: a rotation is a list of lists; give its nine numbers in one, row by row"
        )
    options = pyarrow.json.ParseOptions(
        explicit_schema=pa.schema(types),
        unexpected_field_behavior="ignore",
    )
    return pyarrow.json.read_json(_in_memory(files, path), parse_options=options)


def _in_memory(files: fsspec.AbstractFileSystem, path: str) -> pa.BufferReader:
    """Return a file in Arrow's own memory: its readers of text have threads, see `store.read_columns`."""
    sink = pa.BufferOutputStream()
    with files.open(path) as handle:
        shutil.copyfileobj(handle, sink, 2**24)
    return pa.BufferReader(sink.getvalue())


def _wanted(names: Sequence[str], path: str) -> list[str]:
    """Return which of a file's columns to read: the key, one form of a pose, and the category if there."""
    forms = [ANGLES, ["rotation"], ENTRIES]
    present = [form for form in forms if set(form) <= set(names)]
    missing = [name for name in KEYS if name not in names]
    if missing or len(present) != 1:
        raise PredictionError(
            f"{path} has the columns {', '.join(names) or 'none'}; it needs {' and '.join(KEYS)}, and either "
            f"{', '.join(ANGLES)} or a rotation ({ENTRIES[0]} to {ENTRIES[-1]} in CSV), not both"
        )
    return [*KEYS, *present[0], *(["category"] if "category" in names else [])]


def _aligned(predicted: pa.Table, truth: pa.Table) -> pa.Table:
    """Return the predictions in the order of the truth, having made sure that each object has exactly one."""
    wanted, given = _numbered_keys(truth, truth), _numbered_keys(predicted, truth)
    by_key = np.argsort(wanted)
    ordered = wanted[by_key]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        both = by_key[np.append(same, False) | np.append(False, same)]
        shards = sorted(set(truth["shard"].take(pa.array(both)).to_pylist()))
        twice = _described(by_key[1:][same], "there twice", truth)
        raise _broken(f"{twice}; in {_few(shards)}")
    place = np.minimum(np.searchsorted(ordered, given), len(ordered) - 1)
    foreign = ordered[place] != given
    rows = by_key[place[~foreign]]
    counts = np.bincount(rows, minlength=truth.num_rows)
    problems = [
        _described(np.flatnonzero(counts > 1), "predicted more than once", truth),
        _described(np.flatnonzero(counts == 0), "without a prediction", truth),
        _described(np.flatnonzero(foreign), "predicted but not in the dataset", predicted),
    ]
    if any(problems):
        raise PredictionError("; ".join(filter(None, problems)))
    # The rows are now a permutation: sorting it inverts it.
    return predicted.take(pa.array(np.argsort(rows)))


def _numbered_keys(table: pa.Table, truth: pa.Table) -> NDArray[np.int64]:
    """Return one number a key, equal for equal keys and -1 for one that cannot be in the truth.

    Numbers sort and compare many times faster than pairs of a string and a number.
    """
    objects = pc.max(truth["object_index"]).as_py() + 1
    picture = pc.index_in(table["image_id"], value_set=pc.unique(truth["image_id"]))
    picture = pc.fill_null(picture, -1).to_numpy().astype(np.int64)
    index = pc.fill_null(table["object_index"], -1).to_numpy()
    possible = (picture >= 0) & (index >= 0) & (index < objects)
    return np.where(possible, picture * objects + index, -1)


def _described(rows: NDArray[np.int64], what: str, objects: pa.Table) -> str:
    """Return how many objects have a problem and the keys of the first few; nothing if there are none."""
    if not len(rows):
        return ""
    first = objects.select(KEYS).take(pa.array(rows[:NAMED])).to_pylist()
    names = ", ".join(f"{key['image_id']} object {key['object_index']}" for key in first)
    more = ", ..." if len(rows) > NAMED else ""
    return f"{len(rows):,} {'object' if len(rows) == 1 else 'objects'} {what}: {names}{more}"


def _few(names: Sequence[str]) -> str:
    """Return the first few names."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _refuse(bad: NDArray[np.bool_], what: str, objects: pa.Table) -> None:
    if bad.any():
        raise PredictionError(_described(np.flatnonzero(bad), what, objects))


def _pose_errors(predicted: pa.Table, truth: pa.Table) -> NDArray[np.float64]:
    """Return the rotation error of every object (N,) in radians."""
    given = _columns(truth, ANGLES)
    if "rotation" in predicted.column_names:
        values = _rotations(predicted)
    else:
        values = _columns(predicted, ANGLES)
        _refuse(~np.isfinite(values).all(axis=1), "with a pose that is missing or not finite", predicted)
    error = np.empty(len(given))
    for start in range(0, len(given), CHUNK):
        rows = slice(start, start + CHUNK)
        pose = values[rows] if values.ndim == 3 else geometry.rotation_from_viewpoint(*values[rows].T)
        error[rows] = geometry.rotation_error(pose, geometry.rotation_from_viewpoint(*given[rows].T))
    return error


def _rotations(predicted: pa.Table) -> NDArray[np.float64]:
    """Return the predicted rotations (N, 3, 3)."""
    column = predicted["rotation"]
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    _refuse(lengths != 9, "with a rotation that is missing or not nine numbers", predicted)
    entries = pc.list_flatten(column).to_numpy().reshape(-1, 3, 3)
    _refuse(~np.isfinite(entries).all(axis=(1, 2)), "with a pose that is missing or not finite", predicted)
    valid = [geometry.is_rotation(entries[start : start + CHUNK]) for start in range(0, len(entries), CHUNK)]
    _refuse(~np.concatenate(valid), "with nine numbers that are not a rotation matrix", predicted)
    return entries


def _correct_categories(predicted: pa.Table, truth: pa.Table) -> NDArray[np.bool_]:
    count = len(ImageNet3D.CATEGORIES)
    names_and_ids = pa.array([*ImageNet3D.CATEGORIES, *map(str, range(count))], pa.string())
    codes = pc.index_in(predicted["category"], value_set=names_and_ids)
    unnamed = pc.is_null(codes).to_numpy()
    if unnamed.any():
        strange = pc.unique(predicted["category"].filter(pa.array(unnamed))).slice(0, NAMED).to_pylist()
        _refuse(unnamed, f"with a category that does not exist ({', '.join(map(repr, strange))})", predicted)
    return codes.to_numpy() % count == truth["category"].to_numpy()


def _columns(table: pa.Table, names: Sequence[str]) -> NDArray[np.float64]:
    return np.column_stack([table[name].to_numpy() for name in names])


def _groups(groups: Mapping[str, Sequence[str]] | str | PathLike[str] | None) -> Mapping[str, list[str]]:
    """Return the groups, having made sure that they are lists of categories that exist."""
    if groups is None:
        return {}
    where = "the groups" if isinstance(groups, Mapping) else fspath(groups)
    given = groups if isinstance(groups, Mapping) else _json_of(where)
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: {_shown(given)} is not an object of groups; {_GROUPS_REMEDY}")
    for name, members in given.items():
        if isinstance(members, str | Mapping) or not isinstance(members, Iterable):
            raise ValueError(
                f"{where}: group {name!r} is {_shown(members)}, not a list of categories; {_GROUPS_REMEDY}"
            )
    found = {name: list(members) for name, members in given.items()}
    strange = [
        f"{_shown(member)} in group {name!r} ({_closest(member)} is the closest that does)"
        for name, members in found.items()
        for member in members
        if member not in ImageNet3D.CATEGORIES
    ]
    if strange:
        raise ValueError(f"{where}: categories that do not exist: {_few(strange)}")
    return found


def _json_of(path: str) -> object:
    """Return what a file of groups holds."""
    files, inner = fsspec.url_to_fs(path)
    with files.open(inner) as handle:
        try:
            return json.load(handle)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: not JSON ({error}); {_GROUPS_REMEDY}") from error


def _shown(value: object) -> str:
    """Return a value of a JSON file as it stands there, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _closest(category: object) -> str:
    return difflib.get_close_matches(str(category), ImageNet3D.CATEGORIES, n=1, cutoff=0)[0]


def _breakdown(
    truth: pa.Table,
    error: NDArray[np.float64],
    correct: NDArray[np.bool_] | None,
    groups: Mapping[str, Sequence[str]],
) -> dict[str, list[Summary]]:
    category = truth["category"].to_numpy()
    known = truth["known"].to_numpy()
    statuses = [*ImageNet3D.OBJECT_STATUS, "none"]
    status = pc.fill_null(truth["object_status"], len(statuses) - 1).to_numpy()
    by = {
        "known": metrics.summarise_by(np.where(known, 0, 1), ["known", "unknown"], error, correct),
        "status": metrics.summarise_by(status, statuses, error, correct),
    }
    # Not by codes as the others: groups may share categories.
    for name, members in groups.items():
        inside = np.isin(category, [ImageNet3D.CATEGORY_IDS[member] for member in members])
        summary = metrics.summarise(name, error[inside], None if correct is None else correct[inside])
        by.setdefault("group", []).append(summary)
    by["category"] = metrics.summarise_by(category, ImageNet3D.CATEGORIES, error, correct)
    return by


def _curves(truth: pa.Table, error: NDArray[np.float64]) -> dict[str, list[float]]:
    known = truth["known"].to_numpy()
    parts = {"all": np.ones(len(error), dtype=bool)}
    if known.any() and not known.all():
        parts |= {"known": known, "unknown": ~known}
    return {
        name: metrics.accuracy_curve(error[part], np.radians(THRESHOLDS)).tolist()
        for name, part in parts.items()
    }


def _table_row(by: str, summary: Summary) -> list[str | float | None]:
    shares = [summary.classification, summary.joint_pi_6, summary.joint_pi_18]
    return [
        by,
        summary.name,
        summary.objects,
        100 * summary.accuracy_pi_6,
        100 * summary.accuracy_pi_18,
        summary.median_error,
        summary.mean_error,
        *(100 * share for share in shares if share is not None),
    ]


def _can_say(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _without_nan(value: object) -> object:
    """Return nested values with None for NaN, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
