"""Training on streamed shards: every object once an epoch, on any number of processes, resumed exactly.

    torchrun --nproc-per-node 2 docs/train.py ccvl/ImageNet3D --epochs 2 --workers 2

Run the same command again after an interruption. `docs/training.md` explains each choice. The model is a toy:
put yours in its place.
"""

import argparse
import gc
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.distributed as dist
from datasets import Image, load_dataset, load_dataset_builder
from datasets.distributed import split_dataset_by_node
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


def save(path: Path, **state: Any) -> None:
    """Write a file so that its name never stands for half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".new-{os.getpid()}")
    torch.save(state, new)
    new.replace(path)


def latest(folder: Path, rank: int, world_size: int) -> dict[str, Any] | None:
    """This process's file of the last checkpoint that every process has written; None before the first.

    Places in the stream are those of one process, and of one number of processes and workers.
    """
    for step in sorted(folder.glob("epoch-*"), reverse=True):
        if all((step / f"{other}-of-{world_size}.pt").exists() for other in range(world_size)):
            return torch.load(step / f"{rank}-of-{world_size}.pt", map_location="cpu", weights_only=False)
    return None


def say(line: str) -> None:
    """Print once, not in every process."""
    if dist.get_rank() == 0:
        print(line, flush=True)


def train(
    model: DistributedDataParallel,
    optimizer: torch.optim.Optimizer,
    loader: StatefulDataLoader,
    place: dict[str, Any],
    every: int,
    keep: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Train on an epoch from a place on, and keep every so many batches; returns the place at its end."""
    device = next(model.parameters()).device
    loss = torch.tensor(place["loss"])  # of the checkpoint: nothing may be left of this process's part
    with Join([model]):  # parts of an epoch differ a little in length: the longer ones may finish
        for batch in loader:
            azimuth = batch["azimuth"].to(device)
            target = torch.stack([azimuth.sin(), azimuth.cos()], 1)
            loss = nn.functional.mse_loss(model(batch["picture"].to(device)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            place = {**place, "batches": place["batches"] + 1, "seen": place["seen"] + len(azimuth)}
            if place["batches"] % every == 0:
                keep({**place, "loss": loss.item(), "loader": loader.state_dict()})
    return {**place, "loss": loss.item()}


def parse_options() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", help="a repository of the Hub, or a built folder")
    parser.add_argument("--config", default="object_centric")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--every", type=int, default=100, help="batches between two checkpoints")
    return parser.parse_args()


def main() -> None:
    """Train."""
    options = parse_options()
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = DistributedDataParallel(Model().to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    files = list(load_dataset_builder(options.dataset, options.config).config.data_files["train"])

    place = START
    saved = latest(options.checkpoints, rank, world_size)
    if saved:
        model.load_state_dict(saved.pop("model"))
        optimizer.load_state_dict(saved.pop("optimizer"))
        place = saved

    def keep(place: dict[str, Any]) -> None:
        step = options.checkpoints / f"epoch-{place['epoch']:05d}-{place['batches']:07d}"
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        save(step / f"{rank}-of-{world_size}.pt", **place, **state)

    if place["epoch"] >= options.epochs:
        say(f"nothing to train: no epoch is left of {options.epochs}")
    loader = None
    for epoch in range(place["epoch"], options.epochs):
        loader = make_loader(
            files,
            epoch,
            rank=rank,
            world_size=world_size,
            workers=options.workers,
            batch_size=options.batch_size,
        )
        if place["loader"]:
            loader.load_state_dict(place["loader"])
        end = train(model, optimizer, loader, place, options.every, keep)
        place = {**START, "epoch": epoch + 1}
        keep(place)  # so that a finished job is known as one
        total = torch.tensor(end["seen"], device=device)
        dist.all_reduce(total)
        degrees = math.degrees(math.sqrt(end["loss"]))
        say(f"epoch {epoch}: {total.item()} objects, last error about {degrees:.0f} degrees")
    del loader
    gc.collect()  # else an unfinished Parquet reader may abort the interpreter at exit
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
