"""Checks of one shard in all its configs: bytes, schema, encoding, places, values and pictures."""

import hashlib
import io
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ImageNet3D import (
    KNOWN_CATEGORIES,
    MAX_OBJECTS,
    Entry,
    Release,
)
from processing.accounts import label_names
from processing.build.plan import MAX_REPEATED_BYTES, MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_PICTURES
from processing.build.shards import shard_schema
from processing.built import CORRECTIONS, SHARD_NAME, Listed
from processing.configs import TABLES
from processing.runtime.paths import Place
from processing.runtime.store import digest, on_this_machine
from processing.verify.checks import (
    VIEWER_CELL_BYTES,
    VIEWER_PAGE_ROWS,
    Problem,
    RowGroup,
    ShardFacts,
)
from processing.verify.raw import check_against_raw
from processing.verify.values import check_values

# --------------------------------------------------------------------------------------------------------
# The bytes of a file
# --------------------------------------------------------------------------------------------------------


def check_files(folder: Place, listed: Mapping[str, Listed]) -> ShardFacts:
    """Checksums of files that are no shards of `TABLES`; those that are Parquet are read to the last page."""
    with on_this_machine(folder, listed) as copy:
        return _check_files(copy, listed)


def _check_files(folder: Path, listed: Mapping[str, Listed]) -> ShardFacts:
    facts = ShardFacts()
    for path, entry in listed.items():
        facts.problems += check_checksum(folder, path, entry)
        if path.endswith(".parquet") and not facts.problems:
            try:
                for _ in pq.ParquetFile(folder / path, page_checksum_verification=True).iter_batches(
                    VIEWER_PAGE_ROWS
                ):
                    pass
            except Exception as error:  # damaged Parquet fails in many ways
                facts.problems.append(unreadable(path, error))
    return facts


def check_checksum(folder: Path, path: str, entry: Listed) -> Iterator[Problem]:
    """The bytes are those that the build wrote; a missing file is found by `check_listing`."""
    if (found := digest(folder / path)) is None:
        return
    size, sha256 = found
    detail = ""
    if size != entry.size:
        detail = f"{size:,} bytes, {entry.size:,} written"
    elif sha256 != entry.sha256:
        detail = f"SHA-256 {sha256[:12]}…, {entry.sha256[:12]}… written"
    if detail and path == CORRECTIONS:
        detail += "; move what was added to a file of your own, for a build writes this one"
    if detail:
        yield Problem(path, "checksum_differs", detail)


def unreadable(path: str, error: Exception) -> Problem:
    """A file cannot be read to its end; one that this user may not read is no fault of the file."""
    if isinstance(error, PermissionError):
        raise error
    return Problem(
        path, "parquet_unreadable", f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
    )


def open_shard(folder: Path, path: str, config: str, facts: ShardFacts) -> pq.ParquetFile | None:
    """A shard's file if its schema is right, so that all other checks can rely on the columns."""
    try:
        found = pq.read_schema(folder / path)
        expected = shard_schema(config, label_names(found))
        if not found.equals(expected) or found.metadata != expected.metadata:
            difference = _schema_difference(found, expected)
            facts.problems.append(Problem(path, "schema_differs", difference))
            return None
        pictures = ["image.bytes"] if "image" in expected.names else []
        file = pq.ParquetFile(folder / path, read_dictionary=pictures, page_checksum_verification=True)
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    except Exception as error:  # damaged Parquet fails in many ways
        facts.problems.append(unreadable(path, error))
        return None
    facts.rows[path] = file.metadata.num_rows
    facts.row_groups[path] = [(group.num_rows, group.total_byte_size) for group in groups]
    return file


def _schema_difference(found: pa.Schema, expected: pa.Schema) -> str:
    if found.names != expected.names:
        return f"columns {', '.join(found.names)}"
    for one, other in zip(found, expected, strict=True):
        if not one.equals(other):
            return f"{one.name} is {one.type}, not {other.type}"
    return "the embedded features differ"


# --------------------------------------------------------------------------------------------------------
# A shard, row group by row group
# --------------------------------------------------------------------------------------------------------


def check_shard(
    folder: Place,
    name: str,
    paths: Mapping[str, str],
    listed: Mapping[str, Listed],
    tables: Sequence[str],
    release: Release | None,
    entries: Mapping[str, Entry],
) -> ShardFacts:
    """All checks of a shard; memory holds one row group at a time. From a store each file is read once.

    Args:
        paths: config -> path.
        listed: path -> its line of the manifest.
        tables: configs of the build.
        release: the raw release, or None to do without.
        entries: image id -> the shard's pictures in the raw release.
    """
    with on_this_machine(folder, paths.values()) as local:
        facts = ShardFacts(name)
        files: dict[str, pq.ParquetFile] = {}
        for config, path in paths.items():
            if damage := list(check_checksum(local, path, listed[path])):
                facts.problems += damage
            elif (file := open_shard(local, path, config, facts)) is not None:
                files[config] = file
        decoded = DecodedPictures()
        parts = SHARD_NAME.fullmatch(name)
        assert parts is not None  # `Built.shards` has no others
        split = parts[1]
        order: dict[str, list[tuple[str, ...]]] = {config: [] for config in files}
        for group in _row_groups(files, paths, facts):
            order[group.config] += runs_of(group, order[group.config])
            facts.image_ids.update(group.runs)
            facts.values.setdefault(group.path, Counter()).update(viewer_values(group.table))
            facts.categories.add_rows(group.config, split, group.table)
            for check in ROW_GROUP_CHECKS:
                facts.problems += check(group, name)
            facts.problems += decoded.check(group)
        whole = {config: groups for config, groups in order.items() if config in TABLES}
        for config, groups in whole.items():
            facts.problems += check_rows_together(paths[config], groups)
        if len(files) == len(paths):
            facts.problems += check_places(paths, whole, whole.keys() == set(tables) & set(TABLES))
        readable = not any(problem.code == "parquet_unreadable" for problem in facts.problems)
        if release is not None and len(files) == len(paths) and readable:
            facts.problems += check_against_raw(files, paths, tables, release, entries, split)
        return facts


def runs_of(group: RowGroup, before: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The pictures of a row group, as one of the plan's; none where it goes on with one of too many bytes.

    Args:
        before: the row groups before it.
    """
    goes_on = before and before[-1][-1:] == group.runs[:1] == group.runs
    if goes_on and group.config == "pose":
        images = group.table["image"].combine_chunks().field("bytes")
        if len(images.dictionary[images.indices[0].as_py()].as_py()) * MAX_OBJECTS > MAX_REPEATED_BYTES:
            return []
    return [group.runs]


def _row_groups(
    files: Mapping[str, pq.ParquetFile], paths: Mapping[str, str], facts: ShardFacts
) -> Iterator[RowGroup]:
    """The row groups of all configs side by side, so that a picture is decoded and read once."""
    broken: set[str] = set()
    for number in range(max((f.metadata.num_row_groups for f in files.values()), default=0)):
        for config, file in files.items():
            if number >= file.metadata.num_row_groups or config in broken:
                continue
            try:
                table = file.read_row_group(number)
                table.validate(full=True)
                runs = tuple(key for key, _ in itertools.groupby(table["image_id"].to_pylist()))
            except Exception as error:  # damaged Parquet fails in many ways
                facts.problems.append(unreadable(paths[config], error))
                broken.add(config)
            else:
                yield RowGroup(paths[config], config, number, table, runs, file.metadata.row_group(number))


def viewer_values(table: pa.Table) -> dict[str, int]:
    """How many values the columns have that the viewer describes by a mean and a deviation."""
    return {
        column: len(table) - table[column].null_count
        for column, kind in zip(table.column_names, table.schema.types, strict=True)
        if not (
            pa.types.is_string(kind)
            or pa.types.is_boolean(kind)
            or column in ("category", "label", "object_status", "mesh")
        )
    }


def check_row_group_size(group: RowGroup, name: str) -> Iterator[Problem]:
    """A row group is within the limits of pictures and of their bytes."""
    pictures = len(set(group.names()))
    images = group.table["image"].combine_chunks().field("bytes")
    size = pc.sum(pc.binary_length(images.dictionary)).as_py() or 0
    if pictures > MAX_ROW_GROUP_PICTURES or size > MAX_ROW_GROUP_BYTES:
        yield group.problem(
            "row_group_too_large", f"row group {group.number}: {pictures} pictures, {size:,} bytes of them"
        )


def check_encoding(group: RowGroup, name: str) -> Iterator[Problem]:
    """No column is compressed, and a picture that rows share stands in the dictionary page, once."""
    chunks = [group.metadata.column(i) for i in range(group.metadata.num_columns)]
    if compressed := {chunk.compression for chunk in chunks} - {"UNCOMPRESSED"}:
        yield group.problem("encoding", f"row group {group.number} is compressed: {', '.join(compressed)}")
    if compressed or group.derived:
        return
    images = group.table["image"].combine_chunks().field("bytes").dictionary
    distinct = (pc.sum(pc.binary_length(images)).as_py() or 0) + 4 * len(images)
    for chunk in chunks:
        if chunk.path_in_schema == "image.bytes" and not _is_all_dictionary(chunk, distinct):
            yield group.problem("encoding", f"row group {group.number} has pictures outside its dictionary")


_PAGE_HEADERS = 20_000  # bytes, with the least and the largest picture as statistics where these are small


def _is_all_dictionary(chunk: pq.ColumnChunkMetaData, distinct: int) -> bool:
    """Whether the dictionary page holds all values, and the data pages no more than indices.

    Past the dictionary's limit the writer puts values into data pages; the names of encodings do not tell.
    """
    if not chunk.has_dictionary_page:
        return False
    dictionary = chunk.data_page_offset - chunk.dictionary_page_offset
    indices = chunk.total_compressed_size - dictionary
    return dictionary >= distinct and indices <= 2 * chunk.num_values + _PAGE_HEADERS


def check_keys(group: RowGroup, name: str) -> Iterator[Problem]:
    """Keys are unique in the row group; `check_rows_together` and `check_pictures_once` see to the rest."""
    names = [column for column in ("image_id", "object_index") if column in group.table.column_names]
    keys = zip(*(group.table[column].to_pylist() for column in names), strict=True)
    for key, count in Counter(keys).items():
        if count > 1:
            yield group.problem("key_duplicate", f"{' '.join(map(str, key))}: {count} rows")


def check_kind(group: RowGroup, name: str) -> Iterator[Problem]:
    """All categories are of the kind that the shard's name says."""
    known = not name.endswith("unknown")
    for image_id in dict.fromkeys(group.runs):
        if (str(image_id).partition("/")[0] in KNOWN_CATEGORIES) is not known:
            yield group.problem("kind_mixed", str(image_id))


def check_cells(group: RowGroup, name: str) -> Iterator[Problem]:
    """No text or list is larger than the first page of the viewer."""
    for column in group.table.column_names:
        if column == "image" or group.table[column].nbytes <= VIEWER_CELL_BYTES:
            continue
        values = group.table[column]
        for row in range(len(values)):
            if (size := len(json.dumps(values[row].as_py()))) > VIEWER_CELL_BYTES:
                key = group.table["image_id"][row].as_py()
                yield group.problem("viewer_cell", f"{column} of {key}: {size:,} bytes")


ROW_GROUP_CHECKS: tuple[Callable[[RowGroup, str], Iterator[Problem]], ...] = (
    check_row_group_size,
    check_encoding,
    check_keys,
    check_kind,
    check_cells,
    check_values,
)


# --------------------------------------------------------------------------------------------------------
# Pictures
# --------------------------------------------------------------------------------------------------------


def decode_whole(data: bytes) -> tuple[tuple[int, int], int]:
    """Size and orientation of a picture, decoded to its last pixel.

    Raises:
        Exception: of many kinds where that fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", category=UserWarning)  # of odd EXIF blocks
        with PIL.Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            image.load()
            return image.size, image.getexif().get(PIL.Image.ExifTags.Base.Orientation, 1)


class DecodedPictures:
    """Decodes each distinct picture of a shard once, whatever the number of its rows and configs."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[bool, str], tuple[int, int] | None] = {}
        self._digests: dict[tuple[bool, str], bytes] = {}

    def check(self, group: RowGroup) -> Iterator[Problem]:
        """Pictures decode, are upright, have their rows' size, and are the same in every row and config."""
        for name, data in group.pictures():
            key = (group.derived, name)
            content = hashlib.blake2b(data, digest_size=16).digest()
            if self._digests.setdefault(key, content) != content:
                yield group.problem("picture_differs", name)
                continue
            if key not in self._sizes:
                self._sizes[key] = None
                try:
                    self._sizes[key], orientation = decode_whole(data)
                except Exception as error:  # Pillow's readers meet damaged bytes with many kinds of error
                    yield group.problem("picture_undecodable", f"{name}: {type(error).__name__}: {error}")
                    continue
                if orientation != 1:
                    yield group.problem("picture_turned", f"{name}: orientation {orientation}")
        columns = (group.table[column].to_pylist() for column in ("width", "height"))
        for name, *size in dict.fromkeys(zip(group.names(), *columns, strict=True)):
            found = self._sizes.get((group.derived, name))
            if found is not None and found != tuple(size):
                what = f"{name}: {found[0]}x{found[1]}, the row says {size[0]}x{size[1]}"
                yield group.problem("picture_size", what)


def check_rows_together(path: str, groups: Sequence[Sequence[str]]) -> Iterator[Problem]:
    """The rows of a picture follow each other in one row group."""
    for image_id, count in Counter(itertools.chain.from_iterable(groups)).items():
        if count > 1:
            yield Problem(path, "picture_cut", f"{image_id} in {count} places")


def check_places(
    paths: Mapping[str, str], order: Mapping[str, Sequence[Sequence[str]]], all_configs: bool
) -> Iterator[Problem]:
    """Every config has its pictures in the row groups and the order of the config that has most of them.

    Args:
        order: config -> row groups -> image ids.
        all_configs: whether every config of the build has rows in this shard.
    """
    if not order:
        return
    most = max(order, key=lambda config: sum(map(len, order[config])))
    place = {image_id: (g, i) for g, ids in enumerate(order[most]) for i, image_id in enumerate(ids)}
    for config, groups in order.items():
        places = [[place.get(image_id, (-1, -1)) for image_id in ids] for ids in groups]
        flat = list(itertools.chain.from_iterable(places))
        mixed = any(len({g for g, _ in ids}) > 1 for ids in places)
        apart = len({ids[0][0] for ids in places if ids}) < len(places)
        if flat != sorted(flat) or (-1, -1) in flat or mixed or apart:
            yield Problem(paths[config], "place_differs", f"not as in {paths[most]}")
    if all_configs:
        common = set.intersection(*(set(itertools.chain.from_iterable(groups)) for groups in order.values()))
        for number, ids in enumerate(order[most]):
            shared = [image_id in common for image_id in ids]
            if shared != sorted(shared, reverse=True):
                what = f"row group {number} has pictures of some configs before those of all"
                yield Problem(paths[most], "place_differs", what)
