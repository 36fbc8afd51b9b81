"""One way to stream samples, in a process of its own: `benchmarks.streaming` starts one for each and asks.

    python -P benchmarks/contenders.py WAY FOLDER

A peer runs in an environment of its own, so this file imports nothing of the project. FOLDER/samples holds
the samples as files, one picture and one npz of fields each; a way first writes them in its own format, and
then reads them through PyTorch's DataLoader as often as it is asked. Requests and answers are lines of JSON.
"""

import io
import json
import random
import resource
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
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
        picture = sample["image"] if isinstance(sample["image"], np.ndarray) else pixels(sample["image"])
        corner = picture[:SIDE, :SIDE]
        place.numpy()[: corner.shape[0], : corner.shape[1]] = corner
    return batch


def encoded_batch(samples: list[Sample]) -> list[bytes]:
    """The pictures' bytes; LitData gives views of them, which cannot be sent to another process."""
    return [bytes(sample["image"]) for sample in samples]


def _of_batch(collate: Callable[[list[Sample]], Any], batch: dict[str, list[Any]]) -> Any:
    """The same of a batch that is a dict of lists."""
    return collate([{"image": image} for image in batch["image"]])


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

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        """What the DataLoader reads: a torch data set of samples."""
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

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        if shuffled:
            random.Random(0).shuffle(self.data)
        return self

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        return self.data[index]


class Files(Way, torch.utils.data.Dataset):
    """A JPEG and an npz for each sample."""

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        if shuffled:
            random.Random(0).shuffle(self.names)
        return self

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        return self.read_sample(self.names[index])


class Rows(Way):
    """The built folder as `load_dataset` gives it, row by row; the picture decoded by `datasets`."""

    def load(self) -> Any:
        """The streaming data set."""
        from datasets import load_dataset

        return load_dataset(str(self.folder.parent / "built"), "pose", split="train", streaming=True)

    def undecoded(self) -> Any:
        """The same with each picture as its bytes."""
        from datasets import Image

        return self.load().cast_column("image", Image(decode=False))

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        rows = self.load() if decoded else self.undecoded()
        if shuffled:  # from one shard at a time: with more, datasets 5.2 waits for 5 s when it has read all
            rows = rows.shuffle(seed=0, buffer_size=BUFFER, max_buffer_input_shards=1)
        return rows.map(self.array) if decoded else rows.map(self.data)

    @staticmethod
    def array(row: Sample) -> Sample:
        """A row with its picture as an array."""
        return row | {"image": np.asarray(row["image"].convert("RGB"))}

    @staticmethod
    def data(row: Sample) -> Sample:
        """A row with its picture's bytes."""
        return row | {"image": row["image"]["bytes"]}


class Batches(Rows):
    """The way of docs/training.md: rows leave Arrow as whole batches, and are decoded there."""

    batched = True

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        batches = self.undecoded().batch(BATCH).map(self.prepare)
        # Rows are shuffled when they are built; what is left to an epoch is the order of the shards.
        return batches.shuffle(seed=0, buffer_size=1, max_buffer_input_shards=1) if shuffled else batches

    @staticmethod
    def prepare(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The pictures' bytes in place of the pictures."""
        return batch | {"image": [image["bytes"] for image in batch["image"]]}


class Once(Batches):
    """The same, but a picture that several rows of a batch show is decoded once."""

    @staticmethod
    def prepare(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoded = {key: image["bytes"] for key, image in zip(batch["image_id"], batch["image"], strict=True)}
        pictures = {key: pixels(data) for key, data in encoded.items()}
        return batch | {"image": [pictures[key] for key in batch["image_id"]]}


class Buffer(Rows):
    """A buffer of rows, filled in batches: it holds bytes and copies none."""

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        rows = self.undecoded().map(Batches.prepare, batched=True, batch_size=BATCH)
        return rows.shuffle(seed=0, buffer_size=BUFFER, max_buffer_input_shards=1)


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

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        import webdataset

        tars = [str(path) for path in sorted(self.folder.glob("*.tar"))]
        order = len(tars) if shuffled else False
        stream = webdataset.WebDataset(tars, shardshuffle=order, empty_check=False, seed=0)
        if shuffled:
            stream = stream.shuffle(BUFFER)
        return stream.map(self.sample)

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

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        import streaming

        streaming.base.util.clean_stale_shared_memory()
        return streaming.StreamingDataset(
            local=str(self.folder), shuffle=shuffled, batch_size=BATCH, num_canonical_nodes=1
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

    def samples(self, shuffled: bool, decoded: bool) -> Any:
        import litdata

        self.loader = litdata.StreamingDataLoader
        return litdata.StreamingDataset(str(self.folder), shuffle=shuffled)


WAYS = (Memory, Files, Rows, Batches, Once, Buffer, WebDataset, Mosaic, LitData)


def read(way: Way, decoded: bool, shuffled: bool, workers: int) -> dict[str, float]:
    """Read all samples once; opening the data set, which is done once for all epochs, is not counted.

    Returns:
        samples; seconds of wall time; cpu, the seconds of processor time of this process and its workers; and
        bytes of the pictures, unless decoded.
    """
    collate = decoded_batch if decoded else encoded_batch
    data = way.samples(shuffled, decoded)
    if way.batched:
        options = {"batch_size": None, "collate_fn": partial(_of_batch, collate)}
    else:
        options = {"batch_size": BATCH, "collate_fn": collate}
    loader = way.loader(data, num_workers=workers, **options)
    before, start = _processor_time(), time.perf_counter()
    samples = size = 0
    for batch in loader:
        samples += len(batch)
        size += 0 if decoded else sum(map(len, batch))
    seconds = time.perf_counter() - start
    return {"samples": samples, "bytes": size, "seconds": seconds, "cpu": _processor_time() - before}


def first(way: Way) -> dict[str, float]:
    """Seconds until the first sample is there, with everything imported and nothing opened, undecoded."""
    start = time.perf_counter()
    next(iter(way.samples(False, False)))
    return {"seconds": time.perf_counter() - start}


def _processor_time() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Answer requests until there are no more; what a library prints goes to stderr."""
    ways = {way.__name__: way for way in WAYS}
    answers, sys.stdout = sys.stdout, sys.stderr
    torch.set_num_threads(1)
    way = ways[sys.argv[1]](Path(sys.argv[2]))
    shutil.rmtree(way.folder, ignore_errors=True)
    does: dict[str, Callable[..., Any]] = {"write": lambda way: way.write(), "read": read, "first": first}
    for line in sys.stdin:
        request = json.loads(line)
        answer = does[request.pop("do")](way, **request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
