"""Objects as a network takes them, with poses that turn when a crop is mirrored; and what it predicts."""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, Dataset

from ImageNet3D import ANGLES
from processing.geometry import flip_viewpoint

KEYS = ["image_id", "object_index"]


def load_rows(dataset: str, config: str, split: str) -> datasets.Dataset:
    """The rows of a split, their pictures encoded.

    Args:
        dataset: a repository of the Hub, or a built folder.
        config: object_centric, or another whose pictures show one object each.
    """
    rows = datasets.load_dataset(dataset, config, split=split)
    rows = rows.select_columns(["image", *KEYS, "category", "known", *ANGLES])
    return rows.cast_column("image", datasets.Image(decode=False))


def digest(rows: datasets.Dataset) -> str:
    """The SHA-256, hexadecimal, of what rows of `load_rows` say, and of how many bytes each picture has.

    Unlike a fingerprint of `datasets` it is the same for a copy in another folder. The pictures' own bytes
    would take as long to read as an epoch.
    """
    found = hashlib.sha256()
    for name in rows.column_names:
        column = rows.data.column(name)
        if name == "image":
            column = pc.binary_length(pc.struct_field(column, "bytes"))
        found.update(json.dumps([name, column.to_pylist()]).encode())
    return found.hexdigest()


class Objects(Dataset):
    """Rows by lists of indices: first all rows as they are, then all mirrored, picture and annotation.

    A batch has picture (n, 3, size, size) of uint8; angles (n, 3) of float64: azimuth, elevation and theta in
    radians; category (n,) of int64.
    """

    def __init__(self, rows: datasets.Dataset, size: int):
        """Take rows of `load_rows`, their pictures to be of a size in pixels."""
        self.rows = rows
        self.size = size

    def __len__(self) -> int:
        return 2 * len(self.rows)

    def __getitem__(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        mirrored, places = np.divmod(indices, len(self.rows))
        columns = self.rows[places.tolist()]
        pictures = np.stack([decode(image["bytes"], self.size) for image in columns["image"]])
        angles = np.stack([columns[name] for name in ANGLES], axis=1)
        mirrored = mirrored.astype(bool)
        pictures[mirrored] = pictures[mirrored, :, ::-1]
        angles[mirrored] = np.stack(flip_viewpoint(*angles[mirrored].T), axis=1)
        return {
            "picture": torch.from_numpy(pictures).movedim(-1, 1).contiguous(),
            "angles": torch.from_numpy(angles),
            "category": torch.tensor(columns["category"]),
        }


def decode(data: bytes, size: int) -> np.ndarray:
    """An encoded picture as (size, size, 3) of uint8."""
    with PIL.Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", (size, size))  # a JPEG is decoded at a half or a quarter where that is enough
        return np.asarray(picture.convert("RGB").resize((size, size), PIL.Image.Resampling.BICUBIC))


def loader(objects: Objects, order: Iterable[Sequence[int]], workers: int) -> DataLoader:
    """A loader of batches, each a list of indices; it goes through the order once for each epoch."""
    return DataLoader(
        objects,
        batch_size=None,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def write_predictions(
    path: Path, rows: datasets.Dataset, angles: torch.Tensor, category: torch.Tensor | None = None
) -> None:
    """Write a Parquet file as `evaluate` takes it: one row an object, with its key.

    Args:
        angles: (N, 3), azimuth, elevation and theta in radians.
        category: (N,), ids as in the dataset; they are written as names.
    """
    columns = dict(rows.select_columns(KEYS)[:])
    columns |= dict(zip(ANGLES, angles.double().numpy().T, strict=True))
    if category is not None:
        columns["category"] = rows.features["category"].int2str(category.tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
