"""Building: `build` against `tar`, the `datasets` way and WebDataset's tar writer.

    python -m benchmarks.build [--raw RAW] [--quick]

All read the same unpacked tree and take turns, each in a process of its own with two workers (tar is one
process, and copies every file of the tree once). What each writes stands in the table; `datasets` and
WebDataset write the rows of `pose` alone, the picture of several objects once for each. Ours also checks
every picture and annotation, hashes its files, and waits until they are on the disk; the others do not.
Memory is the most that one process of a way held.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.table import embed_table_storage

import ImageNet3D
from benchmarks import inputs
from benchmarks.environments import has
from benchmarks.measuring import Setting, Table, Usage, alternate, apart, command, median, ratio
from ImageNet3D import POSE_FIELDS, RawTree
from processing.build.command import build

PICTURES = 4000
WORKERS = 2
SHARD_BYTES = 48_000_000

WHOLE = ("pose", "classification", "captions")


def tables(setting: Setting) -> list[Table]:
    """Time, processor time and memory of every way."""
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    pictures = 60 if setting.quick else PICTURES
    raw = inputs.replicate(raw, setting.scratch / "raw", pictures, setting.captions)
    out = setting.scratch / "out"
    calls: dict[str, tuple[str, Callable[..., Any], tuple[Any, ...]]] = {
        "tar": ("the tree as it is", tar, ()),
        "build, pose": ("Parquet of pose", ours, (("pose",),)),
        "build, whole pictures": ("Parquet of " + ", ".join(WHOLE), ours, (WHOLE,)),
        "build, all": ("these and 512 x 512 crops", ours, ((*WHOLE, "object_centric"),)),
        "datasets": ("Arrow, then Parquet of pose", from_generator, ()),
    }
    if has("webdataset"):
        calls["WebDataset"] = ("tars of pose", webdataset_tars, ())
    ways = {name: partial(once, way, raw, out, *more) for name, (_, way, more) in calls.items()}
    rounds = alternate(ways, setting)
    head = ["way", "writes", "MB", "s", "time over tar", "ms of CPU a picture", "MB of memory"]
    table = Table("build", f"Building from {pictures:,} pictures on {os.cpu_count()} cores", head)
    for name, results in rounds.items():
        seconds = [used.seconds for used in results]
        over = ratio(seconds, [used.seconds for used in rounds["tar"]])
        cpu = 1000 * median([used.cpu for used in results]) / pictures
        memory = round(max(used.peak for used in results) / 1e6)
        written = round(results[0].result / 1e6)
        table.rows.append([name, calls[name][0], written, median(seconds), over, cpu, memory])
    faster = ratio(
        [used.seconds for used in rounds["datasets"]], [used.seconds for used in rounds["build, pose"]]
    )
    table.notes.append(f"The datasets way takes {faster:.1f} times as long as building the same rows.")
    return [table]


def once(way: Callable[..., Any], raw: str, out: Path, *arguments: Any) -> Usage:
    """Run a way in a new process, and remove what it wrote; the result is the bytes it wrote."""
    out.mkdir()
    os.sync()  # what was written before must not be paid for now
    used = apart(_written, way, raw, out, *arguments)
    shutil.rmtree(out)
    return used


def _written(way: Callable[..., Any], raw: str, out: Path, *arguments: Any) -> int:
    kept = way(raw, out, *arguments)
    return sum(path.stat().st_size for path in kept)


# --------------------------------------------------------------------------------------------------------
# The ways; each returns the files that are its product
# --------------------------------------------------------------------------------------------------------


def tar(raw: str, out: Path) -> list[Path]:
    """Copy the tree into one file."""
    tar = shutil.which("tar")
    subprocess.run([tar, "cf", out / "tree.tar", "-C", raw, "."], check=True)  # noqa: S603
    return [out / "tree.tar"]


def ours(raw: str, out: Path, configs: tuple[str, ...]) -> list[Path]:
    """What the command does, the card and its figures included."""
    report = build(raw, out / "built", configs=[c for c in configs if _possible(raw, c)], workers=WORKERS)
    assert report.pictures
    return list((out / "built").rglob("*.parquet"))


def _possible(raw: str, config: str) -> bool:
    return config != "captions" or (Path(raw) / "captions").is_dir()


def from_generator(raw: str, out: Path) -> list[Path]:
    """`Dataset.from_generator`, then Parquet with the pictures embedded."""
    datasets.disable_progress_bars()
    rows = datasets.Dataset.from_generator(
        pose_rows,
        features=ImageNet3D.config_features("pose"),
        cache_dir=str(out / "cache"),
        gen_kwargs={"raw": raw, "pictures": _pictures(raw)},
        num_proc=WORKERS,
    )
    count = -(-sum(Path(raw, name).stat().st_size for name in _pictures(raw)) // SHARD_BYTES)
    rows = rows.with_format("arrow")
    for number in range(count):  # as push_to_hub embeds pictures
        shard = rows.shard(count, number, contiguous=True).map(embed_table_storage, batched=True)
        shard.to_parquet(out / f"{number:05d}.parquet")
    return list(out.glob("*.parquet"))


def webdataset_tars(raw: str, out: Path) -> list[Path]:
    """A tar writer in each worker, which need not import what this file does."""
    pictures = _pictures(raw)
    shares = [pictures[n::WORKERS] for n in range(WORKERS)]
    with ProcessPoolExecutor(WORKERS, get_context("fork")) as pool:
        list(
            pool.map(
                _write_tars, [raw] * WORKERS, shares, [str(out / f"{n}-%05d.tar") for n in range(WORKERS)]
            )
        )
    return list(out.glob("*.tar"))


def _write_tars(raw: str, pictures: list[str], pattern: str) -> None:
    import webdataset

    with webdataset.ShardWriter(pattern, maxsize=SHARD_BYTES, verbose=0) as writer:
        for row in pose_rows(raw, pictures):
            key = f"{row['image_id']}_{row['object_index']:02d}"
            data = Path(row.pop("image")).read_bytes()
            writer.write({"__key__": key, "jpg": data, "json": row})


def pose_rows(raw: str, pictures: list[str]) -> Iterator[dict[str, Any]]:
    """Rows of `pose` as a plain script reads them, from a tree that is trusted: annotations are unpickled."""
    for name in pictures:
        category, file = Path(name).parts[1:]
        image_id = f"{category}/{Path(file).stem}"
        with np.load(Path(raw, "annotations", f"{image_id}.npz"), allow_pickle=True) as archive:
            objects = list(archive["annotations"])
        for index, item in enumerate(objects):
            if any(item.get(field) is None for field in POSE_FIELDS):
                continue
            status = item.get("object_status")
            yield {
                "image": str(Path(raw, name)),
                "image_id": image_id,
                "object_index": index,
                "width": int(item["width"]),
                "height": int(item["height"]),
                "category": category,
                "known": category in ImageNet3D.KNOWN_CATEGORIES,
                "bbox": [float(value) for value in item["bbox"]],
                **{field: float(item[field]) for field in POSE_FIELDS},
                "cad_index": int(item["cad_index"]) if item.get("cad_index") is not None else None,
                "object_status": status.removeprefix("status_") if status else None,
                "dense": item["dense"] == "dense_yes" if item.get("dense") else None,
            }


def _pictures(raw: str) -> list[str]:
    """Paths of the training and validation pictures inside the tree."""
    found = ImageNet3D.survey(RawTree(raw))
    return [entry.picture_file for entries in found.entries.values() for entry in entries]


if __name__ == "__main__":
    command(__doc__, {"build": tables})
