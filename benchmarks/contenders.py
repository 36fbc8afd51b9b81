"""One way to stream samples, in a process of its own: `benchmarks.streaming` starts one for each and asks.

    python -P benchmarks/contenders.py WAY FOLDER

A peer and each version of `datasets` run in an environment of their own, so this file imports nothing of the
project. FOLDER/samples holds the samples as files, one picture and one npz of fields each; a way first writes
them in its own format, and then reads them through PyTorch's DataLoader as often as it is asked. Requests and
answers are lines of JSON. WAY is a class of this file, or a file with lines that a page prints.
"""

import io
import json
import multiprocessing
import random
import resource
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

BATCH = 32
BUFFER = 1000  # samples, where a format is shuffled by a buffer
SIDE = 224  # pixels of the corner of each picture that goes into a batch

Sample = dict[str, Any]


def pixels(data: bytes) -> np.ndarray:
    """A picture decoded: (height, width, 3) of uint8. The same for all ways."""
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))


def decoded_batch(samples: list[Sample]) -> torch.Tensor:
    """Decode all pictures whole, and stack their corners, since they differ in size."""
    batch = torch.zeros((len(samples), SIDE, SIDE, 3), dtype=torch.uint8)
    for place, sample in zip(batch, samples, strict=True):
        picture = sample["image"]
        if isinstance(picture, bytes | memoryview | bytearray):
            picture = pixels(picture)
        elif isinstance(picture, PIL.Image.Image):
            picture = np.asarray(picture.convert("RGB"))
        corner = picture[:SIDE, :SIDE]
        place.numpy()[: corner.shape[0], : corner.shape[1]] = corner
    return batch


def _of_batch(batch: dict[str, list[Any]]) -> torch.Tensor:
    """The same of a batch that is a dict of lists."""
    return decoded_batch([{"image": image} for image in batch["image"]])


class Way:
    """What all ways share. `write` is called once; `samples` before each reading."""

    loader: Any = torch.utils.data.DataLoader
    batched = False  # whether `samples` gives whole batches

    def __init__(self, folder: Path) -> None:
        self.source = folder / "samples"
        self.folder = folder / type(self).__name__
        self.names = sorted(path.stem for path in self.source.glob("*.npz"))
        # So that all formats have the same number of shards.
        size = sum(path.stat().st_size for path in self.source.glob("*.JPEG"))
        self.shard_bytes = -(-size // max(1, len(list((folder / "built" / "pose").glob("train-*")))))

    def write(self) -> None:
        """Write the samples in this way's own format."""

    def samples(self) -> Any:
        """What the DataLoader reads: a torch data set of samples, shuffled."""
        raise NotImplementedError

    def read_sample(self, name: str) -> Sample:
        """One sample from its two files."""
        with np.load(self.source / f"{name}.npz") as fields:
            sample = {key: fields[key] for key in fields.files}
        return {"image": (self.source / f"{name}.JPEG").read_bytes(), **sample}

    def plain_sample(self, name: str) -> Sample:
        """The same with Python's numbers, and the box as an array."""
        sample = self.read_sample(name)
        return {k: v if k in ("image", "bbox") else v.item() for k, v in sample.items()}


class Memory(Way, torch.utils.data.Dataset):
    """Decoding alone: the bytes are in memory already."""

    def write(self) -> None:
        self.data = [{"image": (self.source / f"{name}.JPEG").read_bytes()} for name in self.names]

    def samples(self) -> Any:
        random.Random(0).shuffle(self.data)
        return self

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        return self.data[index]


class Files(Way, torch.utils.data.Dataset):
    """A JPEG and an npz for each sample."""

    def samples(self) -> Any:
        random.Random(0).shuffle(self.names)
        return self

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return self.read_sample(self.names[index])


class Printed(Way):
    """Lines of README, card or docs as they stand: they leave `train`, of rows, or `batches`."""

    def __init__(self, folder: Path, lines: str) -> None:
        super().__init__(folder)
        self.lines = lines
        self.batched = "batches =" in lines

    def samples(self) -> Any:
        names: dict[str, Any] = {}
        exec(compile(self.lines, "<printed>", "exec"), names)  # noqa: S102 - our own pages
        return names["batches" if self.batched else "train"]


class WebDataset(Way):
    """Tar files of JPEG and JSON."""

    def write(self) -> None:
        import webdataset

        self.folder.mkdir()
        pattern = str(self.folder / "%05d.tar")
        with webdataset.ShardWriter(pattern, maxsize=self.shard_bytes, verbose=0) as writer:
            for name in self.names:
                sample = self.plain_sample(name)
                data = sample.pop("image")
                fields = sample | {"bbox": sample["bbox"].tolist()}
                writer.write({"__key__": name, "jpg": data, "json": fields})

    def samples(self) -> Any:
        import webdataset

        tars = [str(path) for path in sorted(self.folder.glob("*.tar"))]
        stream = webdataset.WebDataset(tars, shardshuffle=len(tars), empty_check=False, seed=0)
        return stream.shuffle(BUFFER).map(self.sample)

    @staticmethod
    def sample(files: dict[str, bytes]) -> Sample:
        """A sample from its members."""
        return {"image": files["jpg"], **json.loads(files["json"])}


class Mosaic(Way):
    """MosaicML Streaming's MDS."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        # MDS imports torchvision, whose wheel fails beside the CPU's torch for want of these two operators,
        # which nothing here uses.
        self.operators = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            self.operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    def write(self) -> None:
        from streaming import MDSWriter

        encodings = {bytes: "bytes", str: "str", bool: "int", int: "int", float: "float64"}
        first = self.plain_sample(self.names[0])
        columns = {k: encodings.get(type(v), "ndarray") for k, v in first.items()}
        with MDSWriter(out=str(self.folder), columns=columns, size_limit=self.shard_bytes) as writer:
            for name in self.names:
                writer.write(self.plain_sample(name))

    def samples(self) -> Any:
        import streaming

        streaming.base.util.clean_stale_shared_memory()
        return streaming.StreamingDataset(
            local=str(self.folder), shuffle=True, batch_size=BATCH, num_canonical_nodes=1
        )


class LitData(Way):
    """Lightning's LitData."""

    def write(self) -> None:
        import litdata

        litdata.optimize(
            self.plain_sample,
            self.names,
            str(self.folder),
            chunk_bytes=self.shard_bytes,
            num_workers=1,
            keep_data_ordered=True,
            verbose=False,
        )

    def samples(self) -> Any:
        import litdata

        self.loader = litdata.StreamingDataLoader
        return litdata.StreamingDataset(str(self.folder), shuffle=True)


WAYS = (Memory, Files, WebDataset, Mosaic, LitData)


def open_loader(
    way: Way, workers: int, collate: Callable[[Any], Any] | None = None, size: int = BATCH
) -> Any:
    """A DataLoader over all samples."""
    if way.batched:
        options = {"batch_size": None, "collate_fn": collate or _of_batch}
    else:
        options = {"batch_size": size, "collate_fn": collate or decoded_batch}
    return way.loader(way.samples(), num_workers=workers, **options)


def read(way: Way, workers: int) -> dict[str, float]:
    """Read and decode all samples once.

    Returns:
        samples; seconds of wall time; cpu, the seconds of processor time of this process and its workers;
        first, seconds until the first batch is there; pause, seconds between the last batch and the end; and
        memory, the bytes that a reading process has for itself, at most, beyond what it began with.
    """
    before, start = _processor_time(), time.perf_counter()
    with Memories() as memories:
        samples, first = 0, 0.0
        for batch in open_loader(way, workers):
            last = time.perf_counter()
            first = first or last - start
            samples += len(batch)
    end = time.perf_counter()
    found = {"samples": samples, "seconds": end - start, "cpu": _processor_time() - before}
    return found | {"first": first, "pause": end - last, "memory": memories.most}


class Memories(threading.Thread):
    """Looks ten times a second at what this process and its workers have for themselves.

    A worker is forked, so that what it shares with this process, such as imports, is not its own.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.ended = 0, threading.Event()
        self.base = private_bytes("self")

    def __enter__(self) -> "Memories":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.ended.set()
        self.join()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            workers = [private_bytes(str(p.pid)) for p in multiprocessing.active_children()]
            self.most = max(
                [self.most, *workers] if workers else [self.most, private_bytes("self") - self.base]
            )


def private_bytes(process: str) -> int:
    """What a process shares with no other; 0 of one that has ended."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def names(way: Way, lines: str, workers: int) -> list[str]:
    """The image ids of an epoch of other printed lines, in the order in which batches of 64 give them."""
    other = Printed(way.source.parent, Path(lines).read_text("utf-8"))
    collate = _ids_of_batch if other.batched else _ids_of_rows
    return [name for batch in open_loader(other, workers, collate, size=64) for name in batch]


def _ids_of_rows(rows: list[Sample]) -> list[str]:
    return [row["image_id"] for row in rows]


def _ids_of_batch(batch: dict[str, list[Any]]) -> list[str]:
    return list(batch["image_id"])


def _processor_time() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def open_way(name: str, folder: Path) -> Way:
    """A class of this file by its name, or a file with printed lines."""
    if name.endswith(".py"):
        import datasets

        datasets.disable_progress_bars()
        return Printed(folder, Path(name).read_text("utf-8"))
    return {way.__name__: way for way in WAYS}[name](folder)


def main() -> None:
    """Answer requests until there are no more; what a library prints goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    way = open_way(sys.argv[1], Path(sys.argv[2]))
    shutil.rmtree(way.folder, ignore_errors=True)
    does: dict[str, Callable[..., Any]] = {"write": lambda way: way.write(), "read": read, "names": names}
    for line in sys.stdin:
        request = json.loads(line)
        answer = does[request.pop("do")](way, **request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
