"""Checks of the configs that other rows refer to: meshes and categories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ImageNet3D import KNOWN_CATEGORIES, LEFT_OUT, Finding, Release, Survey
from processing.accounts import CategoryCounts, label_names
from processing.build import cad, categories
from processing.build.cad import MeshEntry
from processing.build.plan import MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_PICTURES
from processing.built import Listed
from processing.configs import CATEGORY_COUNTS
from processing.drawing import thumbnail
from processing.drawing.mesh import MeshError, parse_mesh
from processing.runtime.paths import Place
from processing.runtime.store import on_this_machine
from processing.verify.checks import Problem, ShardFacts
from processing.verify.raw import differences, look_alike, without_dictionaries
from processing.verify.shard import check_checksum, decode_whole, open_shard, unreadable, viewer_values

_Row = Mapping[str, Any]


def check_reference(
    folder: Place,
    path: str,
    entry: Listed,
    release: Release | None,
    meshes: Mapping[tuple[str, int], MeshEntry],
) -> ShardFacts:
    """All checks of one file of cad or categories; memory holds one row group at a time.

    Args:
        path: of the file inside the built folder.
        entry: its line of the manifest.
        release: the raw release, or None to do without.
        meshes: of the raw release.
    """
    with on_this_machine(folder, [path]) as local:
        facts = ShardFacts(path.removesuffix(".parquet"))
        facts.problems += check_checksum(local, path, entry)
        config = path.partition("/")[0]
        if facts.problems or (file := open_shard(local, path, config, facts)) is None:
            return facts
        for number in range(file.metadata.num_row_groups):
            try:
                table = file.read_row_group(number)
                table.validate(full=True)
            except Exception as error:  # damaged Parquet fails in many ways
                facts.problems.append(unreadable(path, error))
                break
            facts.values.setdefault(path, Counter()).update(viewer_values(table))
            facts.problems += check_layout(path, number, table, file.metadata.row_group(number))
            rows = without_dictionaries(table).to_pylist()
            names = label_names(table.schema)
            if config == "categories":
                facts.problems += (
                    Problem(path, "value", what) for row in rows for what in _category_faults(row, names)
                )
                facts.category_rows += rows
            else:
                _check_mesh_rows(path, [_named(row, names) for row in rows], release, meshes, facts)
        return facts


def _check_mesh_rows(
    path: str,
    rows: Sequence[Mapping[str, Any]],
    release: Release | None,
    meshes: Mapping[tuple[str, int], MeshEntry],
    facts: ShardFacts,
) -> None:
    for row in rows:
        facts.problems += (Problem(path, code, f"{_key(row)}: {what}") for code, what in _mesh_faults(row))
        if (category := _category(row)) is not None:
            facts.categories.add_mesh(category)
            facts.meshes.append((category, row["cad_index"]))
        if release is not None:
            facts.problems += _raw_mesh_faults(path, row, release, meshes)


def check_layout(path: str, number: int, table: pa.Table, metadata: pq.RowGroupMetaData) -> Iterator[Problem]:
    """A row group is within the limits, and nothing is compressed."""
    if len(table) > MAX_ROW_GROUP_PICTURES or metadata.total_byte_size > 1.01 * MAX_ROW_GROUP_BYTES:
        what = f"row group {number}: {len(table)} rows, {metadata.total_byte_size:,} bytes"
        yield Problem(path, "row_group_too_large", what)
    found = {metadata.column(i).compression for i in range(metadata.num_columns)} - {"UNCOMPRESSED"}
    if found:
        yield Problem(path, "encoding", f"row group {number} is compressed: {', '.join(found)}")


def _named(row: _Row, names: Sequence[str]) -> _Row:
    """A row with the name of its category beside the label's id."""
    label = row["category"]
    return {**row, "_name": names[label] if label is not None and 0 <= label < len(names) else ""}


def _category(row: _Row) -> str | None:
    return row["_name"] or None


def _key(row: _Row) -> str:
    return f"{_category(row)} {row['cad_index']}"


def _mesh_faults(row: _Row) -> Iterator[tuple[str, str]]:
    """(code, what) of all that is wrong with a row of cad by itself."""
    if missing := [name for name, value in row.items() if value is None]:
        yield "value", f"{', '.join(missing)} is missing"
        return
    stem = f"{_category(row)}_{row['cad_index']:02d}"
    if (row["mesh"]["path"], row["image"]["path"]) != (f"{stem}.glb", f"{stem}.png") or row["cad_index"] < 1:
        yield "value", f"{row['mesh']['path']} and {row['image']['path']} are not the key's"
    try:
        mesh = parse_mesh(row["mesh"]["bytes"], "mesh.glb")
    except MeshError as error:
        yield "mesh_unreadable", str(error)
    else:
        for column, count in (("num_vertices", len(mesh.vertices)), ("num_faces", len(mesh.faces))):
            if row[column] != count:
                yield "value", f"{column} is {row[column]}, the mesh has {count}"
        # Rounding to float32 keeps the order of numbers, so that bounds round to bounds.
        if not np.array_equal(np.array(row["bounds"], np.float32), mesh.bounds):
            yield "value", "bounds are not the mesh's"
    try:
        size, _ = decode_whole(row["image"]["bytes"])
    except Exception as error:  # Pillow's readers meet damaged bytes with many kinds of error
        yield "picture_undecodable", f"{type(error).__name__}: {error}"
    else:
        if size != (thumbnail.SIZE, thumbnail.SIZE):
            yield "picture_size", f"the thumbnail is {size[0]}x{size[1]}"


def _raw_mesh_faults(
    path: str, row: _Row, release: Release, meshes: Mapping[tuple[str, int], MeshEntry]
) -> Iterator[Problem]:
    """The row is what the raw release gives, and draws and writes alike: other versions of the libraries may
    write other bytes.
    """
    if (entry := meshes.get((row["_name"], row["cad_index"]))) is None:
        yield Problem(path, "raw_value", f"{_key(row)}: not in the raw release")
        return
    try:
        expected = cad.table([cad.row(release.tree, entry, release.categories)], release.categories)
    except MeshError as error:
        yield Problem(path, "raw_value", f"{_key(row)}: {error}")
        return
    alike = {"image": look_alike, "mesh": _same_mesh}
    found = cad.table([row], release.categories)
    yield from differences(path, found, expected, [[_key(row)]] * 2, alike)


def _same_mesh(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether two meshes have the same name, vertices and triangles."""
    if found["path"] != expected["path"]:
        return False
    try:
        one, other = (parse_mesh(value["bytes"], "mesh.glb") for value in (found, expected))
    except MeshError:  # which the check of the row says
        return False
    return np.array_equal(one.vertices, other.vertices) and np.array_equal(one.faces, other.faces)


def _category_faults(row: _Row, names: Sequence[str]) -> Iterator[str]:
    """What is wrong with a row of categories by itself."""
    name = row["name"]
    if name != _named(row, names)["_name"]:
        yield f"category {row['category']} is not that of {name}"
    if row["known"] is not (name in KNOWN_CATEGORIES):
        yield f"known is not that of {name}"
    for column in (*CATEGORY_COUNTS, "num_meshes"):
        if (row[column] is None and column != "num_meshes") or (row[column] or 0) < 0:
            yield f"{column} of {name} is {row[column]}"


# --------------------------------------------------------------------------------------------------------
# Across shards
# --------------------------------------------------------------------------------------------------------


def meshes_by_key(survey: Survey) -> dict[tuple[str, int], MeshEntry]:
    """The meshes of the raw release, by category and index."""
    return {(entry.category, entry.cad_index): entry for entry in cad.meshes_of(survey)}


def check_categories(
    rows: Sequence[_Row],
    markers: CategoryCounts,
    seen: CategoryCounts,
    tables: Sequence[str],
    read: Sequence[str],
) -> Iterator[Problem]:
    """The counts of categories are those that the build wrote down, and those of the shards.

    Args:
        rows: of categories.
        markers: what the build counted.
        seen: what was counted in the shards.
        tables: configs of the build.
        read: those of them whose shards could all be read, and so counted.
    """
    names = [row["name"] for row in rows]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem("categories", "key_duplicate", str(name))
    for name in sorted(markers.counts.keys() - set(names)):
        yield Problem("categories", "counts_differ", f"{name} has no row")
    for row in rows:
        for column in (*CATEGORY_COUNTS, "num_meshes"):
            sources = [markers, *([seen] if _counted_in(column) in read else [])]
            if column == "num_meshes" and "cad" not in tables:
                counted: list[int | None] = [None]
            else:
                counted = [*sorted({source.counts.get(row["name"], Counter())[column] for source in sources})]
            if counted != [row[column]]:
                what = f"{column} of {row['name']} is {row[column]}, counted are {counted}"
                yield Problem("categories", "counts_differ", what)


def _counted_in(column: str) -> str:
    """The config whose rows a column counts."""
    if column == "num_meshes":
        return "cad"
    return "classification" if column.endswith("_pictures") else "pose"


def check_meshes(
    found: Sequence[tuple[str, int]],
    survey: Survey | None,
    ledger: Sequence[tuple[str, Finding]] | None,
) -> Iterator[Problem]:
    """A mesh is in cad once; those of the raw release, if it is given, are there or in the ledger."""
    for (category, index), count in Counter(found).items():
        if count > 1:
            yield Problem("cad", "key_duplicate", f"{category} {index}: {count} rows")
    if survey is None or ledger is None:
        return
    meshes = meshes_by_key(survey)
    given = {finding.file for _, finding in ledger if finding.decision == LEFT_OUT}
    for key in sorted(meshes.keys() - set(found)):
        if meshes[key].file not in given:
            yield Problem("cad", "raw_mesh_lost", meshes[key].file)


def check_category_rows(
    rows: Sequence[_Row], markers: CategoryCounts, survey: Survey, tables: Sequence[str]
) -> Iterator[Problem]:
    """The rows of categories are those of the raw release, in its order and with its captions."""
    expected = categories.table(categories.categories_of(survey), markers, survey.release, "cad" in tables)
    found = pa.Table.from_pylist(list(rows), expected.schema)
    keys = [table["name"].to_pylist() for table in (found, expected)]
    yield from differences("categories", found, expected, keys, {})
    if Counter(keys[0]) == Counter(keys[1]) and keys[0] != keys[1]:
        yield Problem("categories", "raw_value", "the rows are not in the order of the raw release")
