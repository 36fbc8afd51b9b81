"""Object-centric crops: the command's way against the plain way, objects for a second of processor time.

    python benchmarks/crops.py [RAW] [--mode center|fit] [--size 512] [--rounds 7]

RAW is an unpacked raw tree; without it a synthetic one is written. The plain way decodes the picture for
every object, resizes all of it with OpenCV's bicubic, pads, crops, and writes the JPEG and an npz by
`numpy.savez`. Both ways, and the bare decoding and encoding, take turns in one run on the same worker
processes, each on its share of the pictures, as if that were one category: the release has some 250 pictures
in each, and what the command does once a category then hardly counts. The JPEGs have the same quality. The
ratio is the median over the rounds, since other work on the machine slows a whole round. Needs the extra
`benchmarks`.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tabulate import tabulate

import ImageNet3D
from ImageNet3D import SPLITS, Entry, RawTree, Release
from processing.crop_tree import write_crops
from processing.crops import JPEG_OPTIONS, CropOptions, crops
from processing.sample import write_sample
from processing.shards import ShardResult, read_group

WORKERS = 2

Way = Callable[[Release, Sequence[Entry], CropOptions, Path], tuple[int, float]]


def main() -> None:
    """Run and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", nargs="?")
    parser.add_argument("--mode", default="center", choices=["center", "fit"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        raw = asked.raw or str(Path(temporary) / "raw")
        if not asked.raw:
            write_sample(raw, categories=24)
        options = CropOptions(asked.mode, asked.size)
        print(report(measure(raw, options, asked.rounds, Path(temporary) / "out")))


def measure(raw: str, options: CropOptions, rounds: int, out: Path) -> dict[str, list[float]]:
    """Milliseconds of processor time for one object, by way and round; a round to warm up is not counted."""
    survey = ImageNet3D.survey(RawTree(raw))
    entries = [entry for split in SPLITS for entry in survey.entries[split]]
    shares = [entries[n::WORKERS] for n in range(WORKERS)]
    ways: dict[str, Way] = {"plain": plain, "ours": ours, "decode + encode": bare}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        for number in range(rounds + 1):
            counts = set()
            for name, way in ways.items():
                tasks = [
                    pool.submit(way, survey.release, share, options, out / f"{number}-{name}-{n}")
                    for n, share in enumerate(shares)
                ]
                done = [task.result() for task in tasks]
                objects = sum(count for count, _ in done)
                counts.add(objects)
                if number:
                    times[name].append(1000 * sum(seconds for _, seconds in done) / objects)
            assert len(counts) == 1, f"the ways crop different objects: {counts}"
    return times


def report(times: dict[str, list[float]]) -> str:
    """A table and the two figures that count."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = [(name, m, min(times[name]), max(times[name]), 1000 / m) for name, m in medians.items()]
    head = ("way", "ms of processor time an object", "least", "most", "objects a second")
    ratios = [plain / ours for plain, ours in zip(times["plain"], times["ours"], strict=True)]
    return (
        f"{tabulate(rows, head, floatfmt='.2f')}\n\n"
        f"ours handles {statistics.median(ratios):.2f} times the objects (median of the rounds); "
        f"decoding and encoding alone are {medians['decode + encode'] / medians['ours']:.0%} of ours"
    )


# --------------------------------------------------------------------------------------------------------
# The ways; each returns how many objects it cropped, and the seconds of processor time that took
# --------------------------------------------------------------------------------------------------------


def ours(release: Release, entries: Sequence[Entry], options: CropOptions, out: Path) -> tuple[int, float]:
    """What the command does, checks of the release included."""
    start = time.process_time()
    result = ShardResult("benchmark", "", known=False)
    names = write_crops(release, entries, options, out, result)
    return len(names), time.process_time() - start


def plain(release: Release, entries: Sequence[Entry], options: CropOptions, out: Path) -> tuple[int, float]:
    """The way scripts do it, on one thread as ours is."""
    cv2.setNumThreads(1)
    start = time.process_time()
    written = 0
    top = Path(release.tree.path)
    folders = [out / kind for kind in ("images", "annotations")]
    for folder in folders:
        folder.mkdir(parents=True)
    for entry in entries:
        with np.load(top / entry.annotation_file, allow_pickle=True) as archive:
            objects = list(archive["annotations"])
        for index, item in enumerate(objects):
            if not _cropped(item):
                continue
            image = np.array(Image.open(top / entry.picture_file).convert("RGB"))
            crop, fields = _plain_crop(image, item, options)
            name = f"{entry.stem}_{index:02d}"
            Image.fromarray(crop).save(folders[0] / f"{name}.JPEG", **JPEG_OPTIONS)
            np.savez(folders[1] / f"{name}.npz", name=name, **fields, **{"class": entry.category})
            written += 1
    return written, time.process_time() - start


def _cropped(item: dict[str, Any]) -> bool:
    """Whether an object has a crop."""
    rated = item.get("object_status", "status_bad") != "status_bad"
    return rated and item.get("distance", 0) > 0 and not item.get("ignore", 0) > 0


def _plain_crop(
    image: np.ndarray, item: dict[str, Any], options: CropOptions
) -> tuple[np.ndarray, dict[str, Any]]:
    """Resize the whole picture, pad it until it surrounds the crop, and cut."""
    size, (height, width) = options.size, image.shape[:2]
    centred = options.mode == "center"
    rate = float(item["distance"]) / options.target_distance if centred else size / max(width, height)
    whole = (max(1, round(width * rate)), max(1, round(height * rate)))
    image = cv2.resize(image, whole, interpolation=cv2.INTER_CUBIC)
    middle = (item["px"] * rate, item["py"] * rate) if centred else (whole[0] / 2, whole[1] / 2)
    left, top = (round(float(value)) - size // 2 for value in middle)
    padding = ((max(-top, 0), max(top + size - whole[1], 0)), (max(-left, 0), max(left + size - whole[0], 0)))
    image = np.pad(image, (*padding, (0, 0)))
    top, left = max(top, 0), max(left, 0)
    crop = image[top : top + size, left : left + size]
    shift = np.array([padding[1][0] - left, padding[0][0] - top])
    center = np.array([item["px"], item["py"]]) * rate + shift
    return crop, {
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


def bare(release: Release, entries: Sequence[Entry], options: CropOptions, out: Path) -> tuple[int, float]:
    """Only decode every picture that has crops, once and whole, and encode the crops; nothing is written."""
    pictures = list(_pictures(release, entries))
    encoded, seconds = 0, 0.0
    for picture in pictures:
        found = list(crops(picture, options, []))
        if not found:
            continue
        start = time.process_time()
        Image.open(io.BytesIO(picture.data)).load()
        encoded += sum(len(crop.jpeg()) > 0 for crop in found)
        seconds += time.process_time() - start
    return encoded, seconds


def _pictures(release: Release, entries: Sequence[Entry]) -> Iterator[ImageNet3D.Picture]:
    result = ShardResult("benchmark", "", known=False)
    for entry in entries:
        yield from read_group(release, [entry], [], result)


if __name__ == "__main__":
    main()
