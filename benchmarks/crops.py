"""Object-centric crops: the command's way against the plain way, objects for a second of processor time.

    python -m benchmarks.crops [--raw RAW] [--quick]

The plain way decodes the picture for every object, resizes all of it with OpenCV's bicubic, pads, crops, and
writes the JPEG and an npz by `numpy.savez`. Both ways, and the bare decoding and encoding, take turns in one
run on the same two worker processes, each on its share of the pictures, as if that were one category: the
release has some 250 pictures in each, and what the command does once a category then hardly counts. The JPEGs
have the same quality. Nothing is deleted before the end: ext4 searches long for an inode that was not given
back just now, half a millisecond a file. The ratio is the median over the rounds, since other work on the
machine slows a whole round. Needs the extra `benchmarks`.
"""

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import ImageNet3D
from benchmarks import inputs
from benchmarks.environments import has
from benchmarks.measuring import Setting, Table, command, median, ratio
from ImageNet3D import SPLITS, Entry, RawTree, Release
from processing.build.shards import read_group
from processing.crop.command import write_crops
from processing.crop.files import CategoryFiles
from processing.crop.pixels import JPEG_OPTIONS, crops
from processing.crop.place import MODES, CropOptions
from processing.ledger import ShardResult
from processing.run import Run

WORKERS = 2
ROUNDS = 7  # more than elsewhere: a round takes a second or two

Way = Callable[[Release, Sequence[Entry], CropOptions, Path], tuple[int, float]]


def tables(setting: Setting) -> list[Table]:
    """Both modes, at the size of `object_centric`."""
    table = Table(
        "crops",
        "Object-centric crops of 512 pixels, two workers",
        ("mode", "way", "ms of processor time an object", "objects, over plain", "share of ours"),
    )
    if not has("opencv-python-headless"):
        table.notes.append("Not measured: the plain way needs OpenCV (the extra `benchmarks`).")
        return [table]
    raw = _unpacked(setting)
    for mode in MODES:
        rounds = setting.rounds if setting.quick else max(setting.rounds, ROUNDS)
        times = measure(raw, CropOptions(mode), rounds, setting.scratch / mode)
        table.rows += [
            (mode, way, median(values), ratio(times["plain"], values), ratio(values, times["ours"]))
            for way, values in times.items()
        ]
    return [table]


def _unpacked(setting: Setting) -> str:
    """A raw tree that the plain way can read: the folder with images/ in it."""
    if setting.raw is None:
        return inputs.synthetic(setting.scratch / "synthetic")
    if (Path(setting.raw) / "images").is_dir():
        return setting.raw
    found = ImageNet3D.survey(RawTree(setting.raw))
    return inputs.replicate(setting.raw, setting.scratch / "raw", sum(map(len, found.entries.values())))


def measure(raw: str, options: CropOptions, rounds: int, out: Path) -> dict[str, list[float]]:
    """Milliseconds of processor time for one object, by way and round; a round to warm up is not counted."""
    survey = ImageNet3D.survey(RawTree(raw))
    entries = [
        entry
        for split in SPLITS
        for entry in survey.entries[split]
        if entry.size and Path(raw, entry.annotation_file).exists()
    ]
    shares = [entries[n::WORKERS] for n in range(WORKERS)]
    ways: dict[str, Way] = {"plain": plain, "ours": ours, "decode + encode": bare}
    times: dict[str, list[float]] = {name: [] for name in ways}
    with ProcessPoolExecutor(WORKERS, get_context("spawn")) as pool:
        for number in range(rounds + 1):
            counts = set()
            for name, way in ways.items():
                folder = out / f"{number}-{name}"
                tasks = [
                    pool.submit(way, survey.release, share, options, folder / f"{n}")
                    for n, share in enumerate(shares)
                ]
                done = [task.result() for task in tasks]
                objects = sum(count for count, _ in done)
                counts.add(objects)
                if number:
                    times[name].append(1000 * sum(seconds for _, seconds in done) / objects)
            assert len(counts) == 1, f"the ways crop different objects: {counts}"
    return times


# --------------------------------------------------------------------------------------------------------
# The ways; each returns how many objects it cropped, and the seconds of processor time that took
# --------------------------------------------------------------------------------------------------------


def ours(release: Release, entries: Sequence[Entry], options: CropOptions, out: Path) -> tuple[int, float]:
    """What the command does, checks of the release included."""
    start = time.process_time()
    result = ShardResult("benchmark", "", known=False)
    work = Run(out, "0" * 64)
    work.begin()
    files = CategoryFiles(work, result.name, ())
    folders = {"images": "images", "annotations": "annotations"}
    names = write_crops(release, entries, options, files, folders, result)
    files.finish()
    return len(names), time.process_time() - start


def plain(release: Release, entries: Sequence[Entry], options: CropOptions, out: Path) -> tuple[int, float]:
    """The way scripts do it, on one thread as ours is."""
    import cv2

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
    import cv2

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
        found = list(crops(picture, options, [], Counter()))
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
    command(__doc__, {"crops": tables})
