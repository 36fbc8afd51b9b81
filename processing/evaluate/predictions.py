"""Predictions: what a file of them holds, and which object of the truth each belongs to.

One row an object, with the columns

    image_id, object_index      the key of the object, as in the dataset
    category                    the predicted category, by name or by id as in the dataset; optional

and a pose in one of these forms, which the names of the columns tell:

    azimuth, elevation, theta   radians of any range, or degrees where the caller says so
    ref_az_pred, ref_el_pred, ref_ro_pred
                                degrees, as Orient Anything V2 names its answer; V1's azimuth, polar and
                                rotation mean the same. Its rotation turns the other way: it is -theta
    qw, qx, qy, qz              a unit quaternion, scalar first, of the object-to-camera rotation
    rotation                    nine numbers, that rotation row by row (Parquet, JSON lines)
    r00, r01, r02, r10 ... r22  the same, as CSV has it

The file is Parquet, CSV or JSON lines by its ending (.parquet, .csv, .jsonl or .ndjson). Of JSON lines the
first tells which columns there are. Other columns are ignored.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

import ImageNet3D
from ImageNet3D import shown_error
from processing import geometry
from processing.evaluate.choices import ChoiceError
from processing.evaluate.truth import Truth, described, few, key_text

KEYS = ("image_id", "object_index")
ANGLES = ImageNet3D.ANGLES
ORIENT_ANYTHING = ("ref_az_pred", "ref_el_pred", "ref_ro_pred")
QUATERNION = ("qw", "qx", "qy", "qz")
ROTATION = ("rotation",)
ENTRIES = tuple(f"r{row}{column}" for row in range(3) for column in range(3))
FORMS = (ANGLES, ORIENT_ANYTHING, QUATERNION, ROTATION, ENTRIES)

_TEXT = ("image_id", "category")
_LONGEST_LINE = 2**26  # bytes of a line of text, with its ignored columns

# Angles in radians go beyond two turns by mistake only.
_LARGEST_RADIANS = 4 * np.pi
_MANY = 0.1

_UNIT_TOLERANCE = 1e-3  # of a quaternion's length: room for float32 and four digits


class PredictionError(ValueError):
    """The predictions do not fit the dataset, or hold what is not a pose."""


class ForeignError(PredictionError):
    """Predictions for objects that are not in the dataset, or all for objects outside the population."""

    def __init__(self, message: str, keys: pa.Array) -> None:
        super().__init__(message)
        self.keys = keys  # of those objects


@dataclass(frozen=True)
class Predictions:
    """N predictions, one an object."""

    keys: pa.Array  # (N,) of text, "image_id object_index"
    form: tuple[str, ...]  # of FORMS
    values: NDArray[np.float64]  # (N, 3), (N, 4) or (N, 9), as the form has them; angles in radians
    category: NDArray[np.int64] | None  # (N,) ids

    def rotations(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float64]:
        """The object-to-camera rotations (n, 3, 3) of some predictions."""
        values = self.values[rows]
        if self.form == QUATERNION:
            return _from_quaternion(values)
        if values.shape[1] == 9:
            return values.reshape(-1, 3, 3)
        return geometry.rotation_from_viewpoint(*values.T)

    def viewpoints(self, rows: slice) -> NDArray[np.float64]:
        """Azimuth, elevation and theta (n, 3) of some predictions, radians."""
        if self.form in (ANGLES, ORIENT_ANYTHING):
            return self.values[rows]
        return np.column_stack(geometry.viewpoint_from_rotation(self.rotations(rows)))

    def of(self, truth: Truth) -> tuple[Predictions, int]:
        """The predictions in the order of the truth, and how many others of its files were set aside.

        Raises:
            PredictionError: an object has no prediction, or several.
            ForeignError: there are predictions for objects that are in none of the truth's files, or none for
                any object of the truth.
        """
        place = pc.index_in(self.keys, value_set=truth.keys)
        aside = pc.is_in(self.keys, value_set=truth.outside)
        foreign = self.keys.filter(pc.and_(pc.is_null(place), pc.invert(aside)))
        rows = pc.drop_null(place).to_numpy()
        counts = np.bincount(rows, minlength=len(truth.keys))
        problems = [
            described(truth.keys.filter(pa.array(counts > 1)), "predicted more than once"),
            described(truth.keys.filter(pa.array(counts == 0)), "without a prediction"),
            described(foreign, "predicted but not in the dataset"),
        ]
        if any(problems):
            message = "; ".join(filter(None, problems))
            strangers = foreign if len(rows) else self.keys
            raise ForeignError(message, strangers) if len(strangers) else PredictionError(message)
        found = np.empty(len(rows), dtype=np.int64)  # each of the truth's objects has one row now
        found[rows] = np.flatnonzero(pc.is_valid(place))
        category = None if self.category is None else self.category[found]
        return Predictions(truth.keys, self.form, self.values[found], category), pc.sum(aside).as_py() or 0


def read_predictions(
    path: str | PathLike[str],
    degrees: bool | None = None,
    categories: Sequence[str] = ImageNet3D.CATEGORIES,
) -> Predictions:
    """Return the predictions of a file, every value of which is checked.

    Args:
        path: a path or any fsspec URL; its ending tells the format.
        degrees: whether azimuth, elevation and theta are degrees; None for radians, unless they look
            like degrees.
        categories: the names of ids.

    Raises:
        PredictionError: columns are missing, doubled, ambiguous or of another type; a pose is missing, not
            finite, or no rotation; angles look like degrees.
        FileNotFoundError: the file is not there.
        ChoiceError: the ending is none of those known, or `degrees` is given for another form of pose.
    """
    path = fspath(path)
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_json, ".ndjson": _read_json}
    ending = path[path.rfind(".") :].lower()
    if ending not in readers:
        raise ChoiceError(f"{path} does not end in {', '.join(readers)}, which tells the format")
    files, inner = fsspec.url_to_fs(path)
    try:
        table, form = readers[ending](files, inner)
        index = _indices(table["object_index"])
    except PredictionError as error:
        raise PredictionError(f"{path}: {error}") from error
    except (pa.ArrowException, json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
        raise PredictionError(f"{path}: {shown_error(error)}") from error
    if degrees is not None and form != ANGLES and not (degrees and form == ORIENT_ANYTHING):
        given = "--degrees" if degrees else "--radians"
        raise ChoiceError(
            f"{path}: {given} says what {', '.join(ANGLES)} are, and it has {few(form)}, of which that is "
            f"known; leave out {given}"
        )
    keys = key_text(pc.fill_null(table["image_id"], "None"), index)
    values = _checked(_values(table, form, keys), form, keys)
    if form == ANGLES:
        values = _in_radians(values, path, degrees)
    elif form == ORIENT_ANYTHING:
        values = np.radians(values) * [1, 1, -1]
    ids = _category_ids(table["category"], categories, keys) if "category" in table.column_names else None
    return Predictions(keys, form, values, ids)


# Reading: each gives a table of the columns that count, text or float64, and the form of the pose


def _read_parquet(files: fsspec.AbstractFileSystem, path: str) -> tuple[pa.Table, tuple[str, ...]]:
    with files.open(path) as handle:
        try:
            source = pq.ParquetFile(handle)
            form, wanted = _wanted(source.schema_arrow.names)
            table = source.read(columns=wanted, use_threads=False)  # see `store.read_columns`
        except OSError as error:  # of damaged pages
            raise PredictionError(shown_error(error)) from error
    return pa.table({name: _typed(table[name], name) for name in wanted}), form


def _read_csv(files: fsspec.AbstractFileSystem, path: str) -> tuple[pa.Table, tuple[str, ...]]:
    data = files.cat_file(path)
    names = next(csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")), [])
    form, wanted = _wanted(names)
    if form == ROTATION:
        raise PredictionError(f"CSV holds a rotation in nine columns, {ENTRIES[0]} to {ENTRIES[-1]}")
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(block_size=_LONGEST_LINE),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=wanted, column_types=_types(wanted)),
        )
    except pa.ArrowInvalid as error:
        named = re.sub(r"(?<=column #)\d+", lambda found: names[int(found[0])], shown_error(error))
        raise PredictionError(named) from error
    return table, form


def _read_json(files: fsspec.AbstractFileSystem, path: str) -> tuple[pa.Table, tuple[str, ...]]:
    data = files.cat_file(path)
    lines = io.BytesIO(data)
    line = next((line for line in lines if line.strip()), b"{}")
    try:
        first = json.loads(line, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise PredictionError(f"its first line is no JSON ({shown_error(error)}); {_A_LINE}") from error
    if not isinstance(first, _Pairs):
        raise PredictionError(f"it does not hold one JSON object a line; {_A_LINE}")
    form, wanted = _wanted([name for name, _ in first])
    types = _types(wanted)
    if "category" in wanted and _is_number(_first_value(data, "category")):
        types["category"] = pa.float64()
    if form == ROTATION and any(isinstance(item, list) for item in _items(_first_value(data, "rotation"))):
        raise PredictionError(_NESTED)
    table = pyarrow.json.read_json(
        pa.BufferReader(data),
        read_options=pyarrow.json.ReadOptions(block_size=_LONGEST_LINE),
        parse_options=pyarrow.json.ParseOptions(
            explicit_schema=pa.schema(types), unexpected_field_behavior="ignore"
        ),
    )
    return pa.table({name: _typed(table[name], name) for name in wanted}), form


_A_LINE = "write one JSON object a line, each an object's prediction, with no array around them"
_NESTED = "rotation is a list of lists; give its nine numbers in one, row by row"


class _Pairs(list):
    """The fields of a JSON object in their order, doubled ones too."""


def _first_value(data: bytes, name: str) -> Any:
    """Return the first value of a field that is not null, in lines of JSON."""
    for line in io.BytesIO(data):
        fields = json.loads(line) if line.strip() else None
        if isinstance(fields, dict) and fields.get(name) is not None:
            return fields[name]
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _types(names: Sequence[str]) -> dict[str, pa.DataType]:
    number = pa.float64()
    others = dict.fromkeys(_TEXT, pa.string()) | {"rotation": pa.list_(number)}
    return {name: others.get(name, number) for name in names}


def _typed(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return a column as text, numbers or lists of numbers, having made sure that it is what it should be.

    Raises:
        PredictionError: it is something else, which Arrow might cast all the same.
    """
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    is_text = any(of(kind) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
    wanted = _types([name])[name]
    if name == "rotation":
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if is_list and pa.types.is_nested(kind.value_type):
            raise PredictionError(_NESTED)
        fits = is_list and _is_numeric(kind.value_type)
    else:
        fits = is_text if name == "image_id" else is_text or _is_numeric(kind)
        fits = fits and (name in _TEXT or not is_text)
    if not fits and not pa.types.is_null(kind):
        what = {"rotation": "lists of nine numbers", "image_id": "text", "category": "names or ids"}
        raise PredictionError(f"column {name} holds {kind}, not {what.get(name, 'numbers')}")
    return column.cast(wanted)


def _is_numeric(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(of(kind) for of in kinds)


def _wanted(names: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the form of the pose, and the columns to read: the key, the pose, and the category if there.

    Raises:
        PredictionError: columns are missing, doubled, or give the pose twice.
    """
    present = [form for form in FORMS if set(form) <= set(names)]
    listed = few(list(names)) or "none"
    if len(present) != 1 or not set(KEYS) <= set(names):
        forms = ", or ".join([*(", ".join(form) for form in FORMS[:-1]), f"{ENTRIES[0]} to {ENTRIES[-1]}"])
        raise PredictionError(
            f"it has the columns {listed}; it needs {' and '.join(KEYS)}, and the pose in one form: {forms}"
            + (f", not {len(present)} of them" if len(present) > 1 else "")
        )
    wanted = [*KEYS, *present[0], *(["category"] if "category" in names else [])]
    if doubled := [name for name in wanted if names.count(name) > 1]:
        raise PredictionError(f"it has the column {doubled[0]} {names.count(doubled[0])} times")
    return present[0], wanted


# Values


def _indices(column: pa.ChunkedArray) -> pa.Array:
    """Return numbers of objects as text, "None" where one is missing.

    Raises:
        PredictionError: one is no whole number.
    """
    values = column.to_numpy()  # float64, as all numbers are read; NaN where there is none
    there = ~np.isnan(values)
    whole = there & (np.abs(values) < 2.0**53) & (values == np.floor(values))
    if (odd := values[there & ~whole]).size:
        raise PredictionError(
            f"column object_index holds {odd[0]:g}, which is no object's number; give those of the dataset, "
            "whole ones from 0 on"
        )
    numbers = pa.array(np.where(whole, values, 0).astype(np.int64), mask=~whole)
    return pc.fill_null(numbers.cast(pa.string()), "None")


def _values(table: pa.Table, form: tuple[str, ...], keys: pa.Array) -> NDArray[np.float64]:
    """Return the numbers of the poses (N, k), NaN where one is missing."""
    if form != ROTATION:
        return np.column_stack([table[name].to_numpy() for name in form])
    column = table["rotation"]
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    _refuse(lengths != 9, "with a rotation that is missing or not nine numbers", keys)
    return pc.list_flatten(column).to_numpy().reshape(-1, 9)


def _checked(values: NDArray[np.float64], form: tuple[str, ...], keys: pa.Array) -> NDArray[np.float64]:
    """Return the values, having made sure that each is a pose."""
    _refuse(~np.asarray(np.isfinite(values).all(axis=1)), "with a pose that is missing or not finite", keys)
    if form == QUATERNION:
        off = np.abs(np.linalg.norm(values, axis=1) - 1) > _UNIT_TOLERANCE
        _refuse(off, "with a quaternion that is not of length 1", keys, "; divide it by its length")
    elif form in (ROTATION, ENTRIES):
        valid = in_chunks(len(values), lambda rows: geometry.is_rotation(values[rows].reshape(-1, 3, 3)))
        _refuse(
            ~np.asarray(valid, dtype=bool),
            "with nine numbers that are not a rotation matrix",
            keys,
            "; give them in float32 or better, and make a matrix M that is nearly one orthonormal: U Vh of "
            "numpy.linalg.svd(M)",
        )
    return values


def _category_ids(category: pa.ChunkedArray, categories: Sequence[str], keys: pa.Array) -> NDArray[np.int64]:
    """Return categories, by name or by id, as ids (N,)."""
    count = len(categories)
    names_and_ids = pa.array([*categories, *map(str, range(count))], pa.string())
    # Ids may have passed through a column of floats, as pandas makes of one with gaps.
    whole = pc.replace_substring_regex(category, r"^(\d+)\.0+$", r"\1")
    codes = pc.index_in(whole, value_set=names_and_ids)
    if codes.null_count:
        unnamed = pc.is_null(codes)
        found = pc.unique(category.filter(unnamed)).slice(0, 6).to_pylist()
        strange = ["empty text" if name == "" else str(name) for name in found]
        _refuse(unnamed.to_numpy(), f"with a category that does not exist ({few(strange)})", keys)
    return codes.to_numpy().astype(np.int64) % count


def _in_radians(values: NDArray[np.float64], path: str, degrees: bool | None) -> NDArray[np.float64]:
    largest = np.abs(values).max(axis=1, initial=0)
    if degrees is None and len(values) and (largest > _LARGEST_RADIANS).mean() > _MANY:
        raise PredictionError(
            f"{path}: values up to {largest.max():.0f}: degrees? give --degrees; if they are radians all the "
            "same, give --radians"
        )
    return np.radians(values) if degrees else values


def _from_quaternion(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotations (N, 3, 3) of quaternions (N, 4), scalar first, brought to length 1."""
    w, x, y, z = (values / np.linalg.norm(values, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _refuse(bad: NDArray[np.bool_], what: str, keys: pa.Array, remedy: str = "") -> None:
    if bad.any():
        raise PredictionError(described(keys.filter(pa.array(bad)), what) + remedy)


def in_chunks(size: int, of: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
    """Return what a function gives for slices of rows, put together.

    Matrices of a slice fit the processor's cache, and memory does not grow with their number.
    """
    step = 2**15
    return np.concatenate([of(slice(start, start + step)) for start in range(0, max(size, 1), step)])
