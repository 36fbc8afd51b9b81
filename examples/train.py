"""Training on streamed shards: every object once an epoch, on any number of processes, resumed exactly.

    python examples/train.py ccvl/ImageNet3D                                   one process
    torchrun --nproc-per-node 8 examples/train.py ccvl/ImageNet3D --workers 4    several

Run the same command again after an interruption; with other numbers, it goes on with the next epoch.
`docs/training.md` explains each choice. The model is a toy: put yours in its place.
"""

import argparse
import gc
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Image, load_dataset, load_dataset_builder
from datasets import __version__ as datasets_version
from datasets.distributed import split_dataset_by_node
from job import Job, load, save, start_job
from torch import nn
from torch.distributed.algorithms.join import Join
from torch.nn.parallel import DistributedDataParallel
from torchdata.stateful_dataloader import StatefulDataLoader

SIDE = 64  # pixels
# How far a process is: batches and objects of the epoch, the last loss, and its loader's state.
START = {"epoch": 0, "batches": 0, "seen": 0, "loss": math.nan, "loader": None}


def epoch_order(files: Sequence[str], epoch: int) -> list[str]:
    """The files in the order of an epoch: each kind drawn anew, the kinds alternating as they were built."""
    generator = np.random.default_rng(epoch)
    placed = []
    for kind in ("-known.parquet", "-unknown.parquet"):
        own = [file for file in files if file.endswith(kind)]
        placed += [((j + 0.5) / len(own), own[i]) for j, i in enumerate(generator.permutation(len(own)))]
    return [file for _, file in sorted(placed)]


def prepare(batch: dict[str, list[Any]]) -> dict[str, Any]:
    """What the model gets of a batch; called in the DataLoader's workers, which so decode the pictures."""
    encoded = [image["bytes"] for image in batch["image"]]
    pictures = {data: decode(data) for data in set(encoded)}  # one that several rows show is decoded once
    return {
        "key": [
            f"{key}/{index}" for key, index in zip(batch["image_id"], batch["object_index"], strict=True)
        ],
        "picture": np.stack([pictures[data] for data in encoded]),
        "azimuth": np.array(batch["azimuth"], np.float32),
    }


def decode(data: bytes) -> np.ndarray:
    """A picture as the model takes it, (3, side, side), 0 to 1."""
    picture = PIL.Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE))
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def make_loader(
    files: Sequence[str],
    epoch: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 2,
    batch_size: int = 64,
) -> StatefulDataLoader:
    """A loader of this process's part of an epoch."""
    rows = load_dataset("parquet", data_files=epoch_order(files, epoch), split="train", streaming=True)
    rows = split_dataset_by_node(rows, rank, world_size)
    batches = rows.cast_column("image", Image(decode=False)).batch(batch_size)
    batches = batches.map(prepare, remove_columns=rows.column_names)
    return StatefulDataLoader(batches, batch_size=None, num_workers=workers)


class Model(nn.Module):
    """Azimuth as (sine, cosine)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 2)
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, side, side) -> (n, 2)."""
        return self.layers(pictures)


def latest(folder: Path) -> Path | None:
    """The last checkpoint that every process of its job has written; None before the first."""
    for step in sorted(folder.glob("epoch-*"), reverse=True):
        files = list(step.glob("*-of-*.pt"))
        if files and all(file.stem.endswith(f"-of-{len(files)}") for file in files):
            return step
    return None


def remove_parts(folder: Path, last: Path | None) -> None:
    """Remove what some processes wrote after the last whole checkpoint.

    Together with files of a job with other numbers it would look whole.
    """
    for file in folder.glob("epoch-*/*-of-*.pt"):
        if last is None or file.parent > last:
            file.unlink()


def go_on(
    job: Job, last: Path, model: nn.Module, optimizer: torch.optim.Optimizer, numbers: dict[str, Any]
) -> dict[str, Any]:
    """Load a checkpoint; returns its place, or the next epoch's start where it is of other numbers.

    A loader's state is a place in the stream of one process, and for these numbers only. Where the job had
    another number of processes, the first one's model will do: all are alike.
    """
    own = last / f"{job.rank}-of-{job.world_size}.pt"
    saved = load(own if own.exists() else min(last.glob("0-of-*.pt")))
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    was, epoch = saved["numbers"], saved["epoch"]
    changed = [f"{name} {was[name]} -> {number}" for name, number in numbers.items() if was[name] != number]
    if not changed:
        return {name: saved[name] for name in START}
    lost = "nothing is left out"
    if saved["batches"]:  # else it is at the start of an epoch, which any numbers can begin
        lost = f"the objects of epoch {epoch} after batch {saved['batches']} of each process are left out"
        epoch += 1
    job.say(f"{', '.join(changed)}: going on with epoch {epoch}, {lost}")
    return {**START, "epoch": epoch}


def report(job: Job, end: dict[str, Any]) -> None:
    """Print what all processes had of an epoch."""
    seen = sum(job.gathered(end["seen"]))
    degrees = math.degrees(math.sqrt(end["loss"]))
    job.say(f"epoch {end['epoch']}: {seen} objects, last error about {degrees:.0f} degrees")


def train(
    job: Job,
    model: DistributedDataParallel,
    optimizer: torch.optim.Optimizer,
    loader: StatefulDataLoader,
    place: dict[str, Any],
    every: int,
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Train on an epoch from a place on, and keep every so many batches; returns the place at its end."""
    loss = torch.tensor(place["loss"])  # of the checkpoint: nothing may be left of this process's part
    with Join([model]):  # parts of an epoch differ a little in length: the longer ones may finish
        for batch in job.progress(iterable=loader, desc=f"epoch {place['epoch']}", unit="batch"):
            azimuth = batch["azimuth"].to(job.device)
            target = torch.stack([azimuth.sin(), azimuth.cos()], 1)
            loss = nn.functional.mse_loss(model(batch["picture"].to(job.device)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            place = {**place, "batches": place["batches"] + 1, "seen": place["seen"] + len(azimuth)}
            if place["batches"] % every == 0:
                keep({**place, "loss": loss.item(), "loader": loader.state_dict()})
    return {**place, "loss": loss.item()}


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("dataset", help="a repository of the Hub, or a built folder")
    parser.add_argument("--config", default="object_centric", help="whose rows are streamed")
    parser.add_argument("--epochs", type=int, default=2, help="after which the job ends")
    parser.add_argument("--workers", type=int, default=2, help="of each process, which read and decode")
    parser.add_argument("--batch-size", type=int, default=64, help="objects, of each process")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("checkpoints"), help="folder, of all processes"
    )
    parser.add_argument("--every", type=int, default=100, help="batches between two checkpoints")
    return parser.parse_args()


def run(options: argparse.Namespace, job: Job) -> None:
    """Train, from the last checkpoint on."""
    builder = load_dataset_builder(options.dataset, options.config)
    files = list(builder.config.data_files["train"])
    part = {"world_size": job.world_size, "workers": options.workers, "batch_size": options.batch_size}
    numbers = {
        **part,
        # told by its size, not by its path: a copy elsewhere is the same
        "dataset": f"{options.config} ({len(files)} files, {builder.info.download_size} bytes)",
        "datasets": datasets_version,  # versions write states differently
    }

    last = job.agreed(latest(options.checkpoints))
    model = DistributedDataParallel(Model().to(job.device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    place = go_on(job, last, model, optimizer, numbers) if last else START

    def keep(place: dict[str, Any]) -> None:
        step = options.checkpoints / f"epoch-{place['epoch']:05d}-{place['batches']:07d}"
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save(step / f"{job.rank}-of-{job.world_size}.pt", {**place, **state, "numbers": numbers})

    if place["epoch"] >= options.epochs:
        job.say(f"nothing to train: no epoch is left of {options.epochs}")
    elif job.first:
        remove_parts(options.checkpoints, last)
    for epoch in range(place["epoch"], options.epochs):
        loader = make_loader(files, epoch, rank=job.rank, **part)
        if place["loader"]:
            loader.load_state_dict(place["loader"])
        end = train(job, model, optimizer, loader, place, options.every, keep)
        place = {**START, "epoch": epoch + 1}
        keep(place)  # the next epoch may begin with other numbers
        report(job, end)


def main() -> None:
    """Train, as one process of the job."""
    options = parse_options()
    with start_job(seed=0) as job:
        run(options, job)
        gc.collect()  # else an unfinished Parquet reader may abort the interpreter at exit


if __name__ == "__main__":
    main()
