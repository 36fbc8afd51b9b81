"""One version of the dataset, a built folder anywhere or a Hub repository at a revision, read for comparison.

Of each file only small columns are held in memory. Pictures and meshes are digested row group by row group.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import fsspec
import huggingface_hub
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ImageNet3D import OBJECT_STATUS, shown_error
from processing.built import MANIFEST, Listed, Manifest
from processing.runtime.paths import PlaceError

_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(?:@.+)?")
_LABELS = ("category", "label")


@dataclass(frozen=True)
class Version:
    """Where a version is, and which files it has.

    Attributes:
        name: as people know it.
        number: such as "1.0.0".
        files: path -> as the manifest lists it.
        fs, root: where they stand.
    """

    name: str
    number: str
    files: Mapping[str, Listed]
    fs: fsspec.AbstractFileSystem
    root: str

    @property
    def tables(self) -> set[str]:
        """The folders of shards."""
        return {path.partition("/")[0] for path in self.files if path.endswith(".parquet")}

    def paths_of(self, table: str) -> list[str]:
        """The shards of a table."""
        return [p for p in self.files if p.startswith(f"{table}/") and p.endswith(".parquet")]

    @contextmanager
    def opened(self, path: str, **options: Any) -> Iterator[pq.ParquetFile]:
        """One shard.

        Raises:
            PlaceError: if it cannot be read; names the file.
        """
        # Ranges as pyarrow asks for them: what a cache would read ahead is pictures.
        location = f"{self.root}/{path}"
        with _named_errors(f"{self.name}: {path}"), self.fs.open(location, cache_type="none") as file:
            yield pq.ParquetFile(file, pre_buffer=True, **options)


def open_version(name: str) -> Version:
    """A built folder or published repository, by its manifest.

    Args:
        name: a path, any fsspec URL, or a repository of the Hub such as "ccvl/ImageNet3D@v1.0.0".

    Raises:
        PlaceError: if there is none, or it cannot be read.
        DamagedError: if its manifest is not as it was written.
    """
    url = name
    if "://" not in name and not Path(name).expanduser().exists():
        if not _REPOSITORY.fullmatch(name):
            raise PlaceError(
                f"{name}: no such folder; give a built one, or a repository such as ccvl/ImageNet3D@v1.0.0"
            )
        url = f"hf://datasets/{name}"
    with _named_errors(name):
        fs, root = fsspec.core.url_to_fs(str(Path(url).expanduser()) if "://" not in url else url)
        fs.invalidate_cache()
        data = fs.cat_file(f"{root}/{MANIFEST}")
    manifest = Manifest.from_json(data, f"{name}: {MANIFEST}")
    return Version(name, manifest.version, manifest.files, fs, root)


def version_in(folder: str, manifest: Manifest) -> Version:
    """The version whose shards stand in a folder, finished or not."""
    fs, root = fsspec.core.url_to_fs(folder)
    return Version(folder, manifest.version, manifest.files, fs, root)


@contextmanager
def _named_errors(where: str) -> Iterator[None]:
    """Say what was being read, and what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise PlaceError(
            f"{where}: not found, or hidden from you; give a folder that `build` finished, or a repository "
            f"and revision that `publish` wrote ({shown_error(error)})"
        ) from error
    except (OSError, ValueError, huggingface_hub.errors.HTTPError) as error:
        raise PlaceError(f"{where}: cannot be read ({shown_error(error)})") from error


def columns(version: Version, table: str, names: Sequence[str]) -> pa.Table:
    """Columns of a table with `split`, labels by name; those that it lacks are left out."""
    parts = []
    for path in version.paths_of(table):
        with version.opened(path) as file:
            schema = file.schema_arrow
            part = file.read([name for name in names if name in schema.names])
        part = _labelled(part.replace_schema_metadata(None), schema)
        split = path.rpartition("/")[2].partition("-")[0]
        parts.append(part.append_column("split", pa.array([split] * len(part), pa.string())))
    return pa.concat_tables(parts) if parts else pa.table({})


def objects_of(version: Version, table: str) -> pa.Table:
    """The objects of pose or captions, one a row, with image_id and the split of the picture."""
    if table == "pose":
        found = columns(version, table, ("image_id", *_object_columns(version)))
    else:
        pictures = columns(version, table, ("image_id", "objects"))
        lists = pictures["objects"].combine_chunks()
        owners = pictures.select(["image_id", "split"]).take(pc.list_parent_indices(lists))
        values = lists.flatten()
        fields = {field.name: pc.struct_field(values, field.name) for field in values.type}
        found = pa.table({**{name: owners[name] for name in owners.column_names}, **fields})
    return _with(found, "object_status", _named(found["object_status"], OBJECT_STATUS))


def _object_columns(version: Version) -> list[str]:
    """The columns of an object in pose: all but those of its picture."""
    with version.opened(version.paths_of("pose")[0]) as file:
        names = file.schema_arrow.names
    of_picture = ("image", "image_id", "width", "height", "category", "known")
    return [name for name in names if name not in of_picture]


def own_label_names(schema: pa.Schema, column: str) -> list[str]:
    """What the ids of a column of labels stand for, as the file itself says."""
    return list(datasets.Features.from_arrow_schema(schema)[column].names)


def category_names(version: Version) -> list[str]:
    """The names of the categories by id, as the first shard with labels has them; empty if none has."""
    for path in (path for table in sorted(version.tables) for path in version.paths_of(table)):
        with version.opened(path) as file:
            schema = file.schema_arrow
        if column := next((name for name in _LABELS if name in schema.names), ""):
            return own_label_names(schema, column)
    return []


def digests(
    version: Version, table: str, column: str, keys: Sequence[str], skip: Collection[str]
) -> dict[str, bytes]:
    """Key -> digest of the bytes of a struct column; memory holds one row group at a time.

    Args:
        column: of bytes inside a struct, such as "image.bytes".
        keys: the columns that make the key.
        skip: files that need not be read.
    """
    found: dict[str, bytes] = {}
    struct, _, field = column.partition(".")
    for path in (p for p in version.paths_of(table) if p not in skip):
        with version.opened(path, read_dictionary=[column]) as file:
            for number in range(file.num_row_groups):
                rows = file.read_row_group(number, [*keys, column])
                rows = _labelled(rows, file.schema_arrow)
                data = rows[struct].combine_chunks().field(field)
                once = [_digest(value.as_py()) for value in data.dictionary]
                for key, index in zip(keys_of(rows, keys), data.indices.to_pylist(), strict=True):
                    found[key_of(key)] = b"" if index is None else once[index]
    return found


def _digest(data: bytes | None) -> bytes:
    return hashlib.blake2b(data or b"", digest_size=16).digest()


def keys_of(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The key of each row."""
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def key_of(values: Iterable[Any]) -> str:
    """A key as people write it: "bed/a", or "bed/a 2"."""
    return " ".join(map(str, values))


def _labelled(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Labels by name."""
    for column in (name for name in _LABELS if name in table.column_names):
        table = _with(table, column, _named(table[column], own_label_names(schema, column)))
    return table


def _named(ids: pa.ChunkedArray, names: Sequence[str]) -> pa.ChunkedArray:
    inside = pc.and_(pc.greater_equal(ids, 0), pc.less(ids, len(names)))
    known = pc.if_else(inside, ids, pa.scalar(None, ids.type))
    named = pa.chunked_array([pa.array(names, pa.string()).take(known.combine_chunks())])
    return pc.if_else(pc.is_valid(ids), pc.coalesce(named, pc.cast(ids, pa.string())), named)


def _with(table: pa.Table, column: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)
