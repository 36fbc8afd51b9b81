"""How many bytes the Hub stores for a built folder: equal chunks are kept once, over all files.

    python -m benchmarks.storage [--raw RAW] [--captions DIR]

builds RAW twice, as it is and with a tenth of its pictures missing from pose and captions, and prints what
is stored for pose alone and for pose, classification and captions together, against the bytes of the
distinct pictures. The Hub cuts files into chunks of 64 KiB on average where a rolling hash of the content
says so (Gear hash, chunks of 8 to 128 KiB); this does the same with a table of random numbers of its own,
so that single boundaries differ from the Hub's and the sums hardly do.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks import inputs
from benchmarks.measuring import Setting, Table, command
from ImageNet3D import POSE_FIELDS, RawTree, survey
from processing.build.command import build

CONFIGS = ("pose", "classification", "captions")

MIN_CHUNK, MEAN_CHUNK, MAX_CHUNK = 8 * 1024, 64 * 1024, 128 * 1024
_GEAR = np.random.default_rng(0).integers(0, 2**64, 256, dtype=np.uint64)
_WINDOW = 64  # bytes: a shift by one bit a byte pushes older ones out of 64 bits
_BLOCK = 2**22


def tables(setting: Setting) -> list[Table]:
    """What is stored of the release as it is, and with a tenth of its pictures missing from two configs."""
    raw = setting.raw or inputs.synthetic(setting.scratch / "synthetic")
    whole, thin, thinned = (setting.scratch / name for name in ("whole", "thin", "thinned"))
    build(raw, whole, configs=CONFIGS, captions=setting.captions)
    thin_out(raw, setting.captions, thinned)
    build(str(thinned), thin, configs=CONFIGS)
    rows = [("as released", *row) for row in measure(whole)]
    rows += [("a tenth missing", *row) for row in measure(thin)]
    head = ("release", "configs", "bytes of files", "stored", "distinct pictures", "stored / pictures")
    return [Table("storage", "What the Hub stores", head, rows)]


def chunks(data: bytes) -> Iterator[bytes]:
    """The content-defined chunks of a file's bytes."""
    start = 0
    for boundary in _boundaries(data):
        while boundary - start > MAX_CHUNK:
            yield data[start : start + MAX_CHUNK]
            start += MAX_CHUNK
        if boundary - start >= MIN_CHUNK or boundary == len(data):
            yield data[start:boundary]
            start = boundary


def _boundaries(data: bytes) -> Iterator[int]:
    """Positions after which the rolling hash has its low bits zero, and the end."""
    values = np.frombuffer(data, np.uint8)
    mask = np.uint64((MEAN_CHUNK - 1) << 48)  # the high bits depend on the whole window
    for start in range(0, len(values), _BLOCK):
        first = max(0, start - _WINDOW)
        rolled = _GEAR[values[first : start + _BLOCK]]
        for shift in (1, 2, 4, 8, 16, 32):  # after each step a value covers twice as many bytes
            rolled[shift:] += rolled[:-shift] << np.uint64(shift)
        hits = np.flatnonzero((rolled & mask) == 0) + first + 1
        yield from hits[hits > start].tolist()
    yield len(data)


@dataclass
class Storage:
    """The bytes that are kept: each chunk once."""

    seen: set[bytes]
    size: int = 0

    def add(self, paths: Iterable[Path]) -> int:
        """Store files and return what is stored in all."""
        for path in paths:
            for chunk in chunks(path.read_bytes()):
                digest = hashlib.blake2b(chunk, digest_size=16).digest()
                if digest not in self.seen:
                    self.seen.add(digest)
                    self.size += len(chunk)
        return self.size


def distinct_pictures(paths: Iterable[Path]) -> int:
    """Bytes of the distinct pictures in shards."""
    sizes: dict[bytes, int] = {}
    for path in paths:
        for image in pq.read_table(path, columns=["image"])["image"].to_pylist():
            sizes[hashlib.blake2b(image["bytes"], digest_size=16).digest()] = len(image["bytes"])
    return sum(sizes.values())


def measure(out: Path) -> list[tuple[str, int, int, int, float]]:
    """(what, bytes of the files, bytes stored, bytes of the distinct pictures, ratio) of a built folder."""
    rows = []
    for configs in (CONFIGS[:1], CONFIGS):
        paths = [path for config in configs for path in sorted(out.glob(f"{config}/*.parquet"))]
        stored = Storage(set()).add(paths)
        pictures = distinct_pictures(paths)
        files = sum(path.stat().st_size for path in paths)
        rows.append((" + ".join(configs), files, stored, pictures, stored / pictures))
    return rows


def thin_out(raw: str, captions: str | None, folder: Path) -> None:
    """Unpack a release, leaving a tenth of its pictures without poses and without a caption."""
    tree = RawTree(raw)
    found = survey(tree, captions)
    entries = [entry for split in found.entries.values() for entry in split]
    for name in tree.listing().sizes:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(tree.read(name, 2**31, "picture_too_large"))
    for entry in entries[::10]:
        _drop_poses(folder / entry.annotation_file)
    texts = {e.image_id: e.caption for i, e in enumerate(entries) if e.caption and i % 10}
    (folder / "captions").mkdir(exist_ok=True)
    (folder / "captions" / "image_captions.json").write_text(json.dumps(texts), "utf-8")


def _drop_poses(path: Path) -> None:
    """Rewrite an annotation without its poses. The benchmark's input is trusted: it is unpickled."""
    with zipfile.ZipFile(path) as archive:
        objects = np.load(io.BytesIO(archive.read("annotations.npy")), allow_pickle=True)
    for item in objects:
        for name in POSE_FIELDS:
            item.pop(name, None)
    np.savez(path, annotations=objects)


if __name__ == "__main__":
    command(__doc__, {"storage": tables})
