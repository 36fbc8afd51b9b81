"""A small built folder without pictures, and predictions for it in every format."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner, Result

import ImageNet3D
from processing import geometry
from processing.__main__ import main
from processing.evaluate.command import evaluate
from processing.evaluate.report import Report

ANGLES = ["azimuth", "elevation", "theta"]
ENDINGS = ["parquet", "csv", "jsonl"]
OBJECT_STATUS = ("good", "partially", "barely", "bad")

# Name of a shard -> category and status of its objects; two objects a picture.
SHARDS = {
    "train-00000-of-00001-known": [("bed", 0), ("bed", 0)],
    "validation-00000-of-00002-known": [("bed", 0), ("bed", 1), ("car", 0), ("car", None)],
    "validation-00001-of-00002-unknown": [("yurt", 3), ("yurt", 0)],
}


def shard_table(name: str, objects: Sequence[tuple[str, int | None]]) -> pa.Table:
    """A pose shard with the columns that evaluation reads, and a picture that it must not."""
    rng = np.random.default_rng(len(name))
    count = len(objects)
    split = name.split("-")[0]
    return pa.table(
        {
            "image": [{"bytes": b"no picture", "path": "a.JPEG"}] * count,
            "image_id": [f"{category}/{split}_{i // 2}" for i, (category, _) in enumerate(objects)],
            "object_index": [i % 2 for i in range(count)],
            "category": [ImageNet3D.CATEGORY_IDS[category] for category, _ in objects],
            "known": [name.endswith("-known")] * count,
            "azimuth": rng.uniform(0, 2 * np.pi, count),
            "elevation": np.zeros(count),
            "theta": rng.uniform(0, 2 * np.pi, count),
            "distance": np.full(count, 5.0),
            "px": np.full(count, 100.0),
            "py": np.full(count, 50.0),
            "object_status": pa.array([status for _, status in objects], pa.int64()),
        }
    )


def write_dataset(folder: Path) -> Path:
    """Write the shards of pose."""
    (folder / "pose").mkdir(parents=True)
    for name, objects in SHARDS.items():
        pq.write_table(shard_table(name, objects), folder / "pose" / f"{name}.parquet")
    return folder


def perfect(dataset: Path, split: str = "validation") -> list[dict[str, Any]]:
    """Perfect predictions for a split, not in the order of the dataset."""
    tables = [pq.read_table(path) for path in sorted((dataset / "pose").glob(f"{split}-*"))]
    return pa.concat_tables(tables).select(["image_id", "object_index", *ANGLES]).to_pylist()[::-1]


def as_rotations(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Predictions with a rotation of nine numbers in place of the angles."""
    return [
        without_angles(row)
        | {"rotation": geometry.rotation_from_viewpoint(*(row[angle] for angle in ANGLES)).ravel().tolist()}
        for row in rows
    ]


def without_angles(row: dict[str, Any]) -> dict[str, Any]:
    """A prediction's other columns."""
    return {name: value for name, value in row.items() if name not in ANGLES}


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write predictions in the format of the path's ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".csv":
        flat = [
            {name: value for name, value in row.items() if name != "rotation"}
            | {f"r{i // 3}{i % 3}": entry for i, entry in enumerate(row.get("rotation", []))}
            for row in rows
        ]
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(flat[0]))
            writer.writeheader()
            writer.writerows(flat)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(predictions: Path, dataset: Path, *options: object) -> Result:
    """Run the command `evaluate`."""
    arguments = ["evaluate", predictions, "--dataset", dataset, *options]
    return CliRunner().invoke(main, list(map(str, arguments)))


def score(predictions: Path, dataset: Path, *args: Any, population: str = "all", **options: Any) -> Report:
    """Evaluate every posed object, unless another population is asked for."""
    return evaluate(predictions, dataset, *args, population=population, **options)


def damage_column(path: Path, name: str) -> None:
    """Overwrite the pages of a column, or of the fields of one; the file's footer stays as it is."""
    content = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    found = [column for column in columns if column.path_in_schema.split(".")[0] == name]
    assert found
    for column in found:
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)
