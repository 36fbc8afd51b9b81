"""Checks of the values of a row group: every one is there, finite and within its range."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ImageNet3D import (
    ANGLES,
    KNOWN_CATEGORIES,
    OBJECT_STATUS,
    POSE_FIELDS,
)
from processing.accounts import label_names
from processing.verify.checks import (
    Problem,
    RowGroup,
)


def check_values(group: RowGroup, name: str) -> Iterator[Problem]:
    """Every value is there, finite and within its range."""
    table = group.table
    rules = [*_null_rules(table, _NULLABLE[group.config]), *_picture_rules(group)]
    if group.config == "captions":
        rules += _caption_rules(table)
    if (objects := _objects(group)) is not None:
        rules += [*_null_rules(objects, _NULLABLE[group.config]), *_object_rules(objects)]
    if group.derived:
        rules += _crop_rules(table)
    for source, rule, bad in rules:
        rows = np.flatnonzero(bad)
        if len(rows):
            key = source["image_id"][int(rows[0])].as_py()
            more = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
            yield group.problem("value", f"{rule}: {key}{more}")


_OF_OBJECTS = {"cad_index", "object_status", "dense"}

# The columns that may be null: in pose all of a pose but its angles; a crop has a place and a distance too.
_NULLABLE: Mapping[str, Collection[str]] = {
    "pose": {*POSE_FIELDS, *_OF_OBJECTS} - {*ANGLES},
    "classification": {"num_objects"},  # of a picture whose annotation cannot be read
    "captions": {*POSE_FIELDS, *_OF_OBJECTS, "caption", "category_caption"},
    "object_centric": {"viewport", *_OF_OBJECTS},
}

# (table, rule that is broken, which rows break it)
_Rule = tuple[pa.Table, str, np.ndarray]


def _objects(group: RowGroup) -> pa.Table | None:
    """The objects of a row group with the size of their picture, one a row; None where a config has none."""
    if "bbox" in group.table.column_names:
        return group.table
    if group.config != "captions":
        return None
    lists = group.table["objects"].combine_chunks()
    owners = group.table.select(["image_id", "width", "height"]).take(pc.list_parent_indices(lists))
    fields = lists.flatten()
    columns = {f.name: pc.struct_field(fields, f.name) for f in fields.type}
    return pa.table({**{n: owners[n] for n in owners.column_names}, **columns})


def _null_rules(table: pa.Table, nullable: Collection[str]) -> Iterator[_Rule]:
    for column in table.column_names:
        if column not in nullable and table[column].null_count:
            yield table, f"{column} is missing", _true(pc.is_null(table[column]))


def _true(mask: pa.ChunkedArray) -> np.ndarray:
    """Where a mask is true; null, of a value that is not there, is not."""
    return pc.fill_null(mask, False).to_numpy()


def _picture_rules(group: RowGroup) -> Iterator[_Rule]:
    table = group.table
    labels = table["label" if "label" in table.column_names else "category"].to_pylist()
    categories = label_names(table.schema)
    names = [categories[i] if i is not None and 0 <= i < len(categories) else None for i in labels]
    folders = [str(image_id).partition("/")[0] for image_id in table["image_id"].to_pylist()]
    yield table, "the category is not the image_id's", _unequal(names, folders)
    paths = table["image"].combine_chunks().field("path").to_pylist()
    files = [f"{str(name).partition('/')[2]}.JPEG" for name in group.names()]
    yield table, "image.path is not the image_id's", _unequal(paths, files)
    for column in ("width", "height"):
        yield table, f"{column} is below 1", _true(pc.less(table[column], 1))
    if "known" in table.column_names:
        known = [name in KNOWN_CATEGORIES for name in names]
        yield table, "known is not the category's", _true(pc.not_equal(table["known"], pa.array(known)))
    if "num_objects" in table.column_names:
        yield table, "num_objects is below 0", _true(pc.less(table["num_objects"], 0))


def _caption_rules(table: pa.Table) -> Iterator[_Rule]:
    neither = pc.and_(pc.is_null(table["caption"]), pc.is_null(table["category_caption"]))
    yield table, "caption and category_caption are missing", _true(neither)


def _unequal(found: Sequence[object], expected: Sequence[object]) -> np.ndarray:
    return np.array([one != other for one, other in zip(found, expected, strict=True)], bool)


def _object_rules(table: pa.Table) -> Iterator[_Rule]:
    for column in POSE_FIELDS:
        yield table, f"{column} is not finite", _true(pc.invert(pc.is_finite(table[column])))
    yield table, "object_index is below 0", _true(pc.less(table["object_index"], 0))
    unknown = pc.invert(pc.is_in(table["object_status"], pa.array(range(len(OBJECT_STATUS)), pa.int64())))
    yield table, "object_status is unknown", _true(pc.and_(pc.is_valid(table["object_status"]), unknown))
    if not table["bbox"].null_count:
        yield from _box_rules(table)


def _crop_rules(table: pa.Table) -> Iterator[_Rule]:
    positive = pc.and_(pc.greater(table["resize_rate"], 0), pc.is_finite(table["resize_rate"]))
    yield table, "resize_rate is not positive and finite", _true(pc.invert(positive))
    if not table["offset"].null_count:
        offsets = np.array(table["offset"].to_pylist(), np.float64).reshape(-1, 2)
        yield table, "offset is not finite", ~np.all(np.isfinite(offsets), axis=1)


def _box_rules(table: pa.Table) -> Iterator[_Rule]:
    boxes = np.array(table["bbox"].to_pylist(), np.float64).reshape(-1, 4)
    yield table, "bbox is not finite", ~np.all(np.isfinite(boxes), axis=1)
