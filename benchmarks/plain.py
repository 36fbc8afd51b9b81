"""What people write who have the raw tree and no code of ours; `build` and `crop` are held against it.

    python benchmarks/plain.py WAY RAW OUT [--workers N] [--size N] [--mode center|fit] [--target-distance D]

generator   `Dataset.from_generator`, then Parquet with the pictures embedded, as `push_to_hub` does it
webdataset  a tar writer in each worker
crops       decode the picture for every object, resize all of it with OpenCV, pad, cut, and write the JPEG
            and an npz by `numpy.savez`, a category of a split at a time, as the authors' script does

RAW is an unpacked tree that is trusted: annotations are unpickled as they are. Each imports what it needs and
no more. Rows are those of `pose`, the picture of several objects once for each.
"""

import argparse
import os
from collections.abc import Iterable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

SHARD_BYTES = 48_000_000
FLOATS = ("azimuth", "elevation", "theta", "distance", "px", "py", "viewport")
JPEG_OPTIONS = {"quality": 95, "subsampling": "4:2:0"}  # those of `processing.crop.pixels`
FORK = get_context("fork")  # what these ways have on Linux until Python 3.14


def listed(raw: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Category, split as the lists call it, and the stems of its pictures that are there."""
    for file in sorted((raw / "lists").iterdir()):
        category, _, split = file.stem.rpartition("_imagenet_")
        stems = file.read_text("utf-8").split()
        yield category, split, [stem for stem in stems if _picture(raw, category, stem).exists()]


def _picture(raw: Path, category: str, stem: str) -> Path:
    return raw / "images" / category / f"{stem}.JPEG"


def _objects(raw: Path, category: str, stem: str) -> list[dict[str, Any]]:
    path = raw / "annotations" / category / f"{stem}.npz"
    if not path.exists():
        return []
    with np.load(path, allow_pickle=True) as archive:
        return list(archive["annotations"])


def rows(raw: Path, pictures: Iterable[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    """Rows of `pose`; the picture is its path."""
    for category, stem in pictures:
        for index, item in enumerate(_objects(raw, category, stem)):
            if any(item.get(name) is None for name in FLOATS):
                continue
            status = item.get("object_status")
            yield {
                "image": str(_picture(raw, category, stem)),
                "image_id": f"{category}/{stem}",
                "object_index": index,
                "width": int(item["width"]),
                "height": int(item["height"]),
                "category": category,
                "bbox": [float(value) for value in item["bbox"]],
                **{name: float(item[name]) for name in FLOATS},
                "cad_index": int(item["cad_index"]) if item.get("cad_index") is not None else None,
                "object_status": status.removeprefix("status_") if status else None,
                "dense": item["dense"] == "dense_yes" if item.get("dense") else None,
            }


def _of_generator(raw: str, pictures: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    yield from rows(Path(raw), pictures)


def generator(raw: Path, out: Path, workers: int) -> None:
    """Arrow, then Parquet of some 48 MB of pictures each."""
    import datasets
    from datasets.table import embed_table_storage

    datasets.disable_progress_bars()
    pictures = [(category, stem) for category, _, stems in listed(raw) for stem in stems]
    value = datasets.Value
    features = {
        "image": datasets.Image(),
        "image_id": value("string"),
        **dict.fromkeys(("object_index", "width", "height"), value("int32")),
        "category": datasets.ClassLabel(names=sorted({category for category, _ in pictures})),
        "bbox": datasets.Sequence(value("float64"), length=4),
        **dict.fromkeys(FLOATS, value("float64")),
        "cad_index": value("int32"),
        "object_status": datasets.ClassLabel(names=["good", "partially", "barely", "bad"]),
        "dense": value("bool"),
    }
    made = datasets.Dataset.from_generator(
        _of_generator,
        features=datasets.Features(features),
        cache_dir=str(out / "cache"),
        gen_kwargs={"raw": str(raw), "pictures": pictures},
        num_proc=workers,
    ).with_format("arrow")
    count = -(-sum(_picture(raw, *key).stat().st_size for key in pictures) // SHARD_BYTES)
    for number in range(count):
        shard = made.shard(count, number, contiguous=True).map(embed_table_storage, batched=True)
        shard.to_parquet(out / f"{number:05d}.parquet")


def webdataset(raw: Path, out: Path, workers: int) -> None:
    """A share of the pictures for each worker."""
    pictures = [(category, stem) for category, _, stems in listed(raw) for stem in stems]
    shares = [(raw, pictures[n::workers], str(out / f"{n}-%05d.tar")) for n in range(workers)]
    with FORK.Pool(workers) as pool:
        pool.starmap(_write_tars, shares)


def _write_tars(raw: Path, pictures: list[tuple[str, str]], pattern: str) -> None:
    from webdataset import ShardWriter

    with ShardWriter(pattern, maxsize=SHARD_BYTES, verbose=0) as writer:
        for row in rows(raw, pictures):
            key = f"{row['image_id']}_{row['object_index']:02d}"
            data = Path(row.pop("image")).read_bytes()
            writer.write({"__key__": key, "jpg": data, "json": row})


def crops(raw: Path, out: Path, workers: int, size: int, mode: str, target_distance: float) -> None:
    """In the layout of `crop`; `size` is that of both sides, pixels."""
    way = partial(_crop_category, raw, out, size, mode, target_distance)
    with FORK.Pool(workers) as pool:
        for _ in pool.imap(way, list(listed(raw))):
            pass


def _crop_category(
    raw: Path, out: Path, size: int, mode: str, target_distance: float, of: tuple[str, str, list[str]]
) -> None:
    import cv2
    from PIL import Image

    cv2.setNumThreads(1)  # with a worker on every core more only take turns
    category, split, stems = of
    folders = [out / split / kind / category for kind in ("images", "annotations", "lists")]
    for folder in folders:
        folder.mkdir(parents=True)
    names = []
    for stem in stems:
        for index, item in enumerate(_objects(raw, category, stem)):
            if not _cropped(item):
                continue
            image = np.array(Image.open(_picture(raw, category, stem)).convert("RGB"))
            rate = float(item["distance"]) / target_distance if mode == "center" else size / max(image.shape)
            crop, fields = _crop(image, item, size, rate, mode == "center")
            name = f"{stem}_{index:02d}"
            Image.fromarray(crop).save(folders[0] / f"{name}.JPEG", **JPEG_OPTIONS)
            np.savez(folders[1] / f"{name}.npz", name=name, **fields, **{"class": category})
            names.append(name)
    (folders[2] / "mesh01.txt").write_text("\n".join(names), "utf-8")


def _cropped(item: dict[str, Any]) -> bool:
    """Whether an object has a crop."""
    rated = item.get("object_status", "status_bad") != "status_bad"
    return rated and item.get("distance", 0) > 0 and not item.get("ignore", 0) > 0


def _crop(
    image: np.ndarray, item: dict[str, Any], size: int, rate: float, centred: bool
) -> tuple[np.ndarray, dict[str, Any]]:
    """Resize the whole picture, pad it until it surrounds the crop, and cut."""
    import cv2

    height, width = image.shape[:2]
    whole = (max(1, round(width * rate)), max(1, round(height * rate)))
    image = cv2.resize(image, whole, interpolation=cv2.INTER_CUBIC)
    middle = (item["px"] * rate, item["py"] * rate) if centred else (whole[0] / 2, whole[1] / 2)
    left, top = (round(float(value)) - size // 2 for value in middle)
    padding = ((max(-top, 0), max(top + size - whole[1], 0)), (max(-left, 0), max(left + size - whole[0], 0)))
    image = np.pad(image, (*padding, (0, 0)))
    top, left = max(top, 0), max(left, 0)
    shift = np.array([padding[1][0] - left, padding[0][0] - top])
    center = np.array([item["px"], item["py"]]) * rate + shift
    return image[top : top + size, left : left + size], {
        "bbox": item["bbox"] * rate + np.tile(shift, 2),
        "bbox_original": item["bbox"],
        "principal": center,
        "principal_original": item["principal"],
        "px": center[0],
        "py": center[1],
        "px_original": item["px"],
        "py_original": item["py"],
        "distance": item["distance"] / rate,
        "distance_original": item["distance"],
        **{name: item[name] for name in ("azimuth", "elevation", "theta", "viewport", "cad_index", "focal")},
        "padding_params": np.array([*padding[0], *padding[1], 0, 0]),
        "cropping_params": np.array([top, 0, left, 0, 0, 0]),
        "resize_rate": rate,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=("generator", "webdataset", "crops"))
    parser.add_argument("raw", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--mode", choices=("center", "fit"), default="center")
    parser.add_argument("--target-distance", type=float, default=4.0)
    asked = parser.parse_args()
    if asked.way == "crops":
        crops(asked.raw, asked.out, asked.workers, asked.size, asked.mode, asked.target_distance)
    else:
        {"generator": generator, "webdataset": webdataset}[asked.way](asked.raw, asked.out, asked.workers)


if __name__ == "__main__":
    main()
