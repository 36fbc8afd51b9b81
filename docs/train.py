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
from pathlib import Path

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


def epoch_order(files, epoch):
    """The files in the order of an epoch: each kind drawn anew, the kinds alternating as they were built."""
    generator = np.random.default_rng(epoch)
    placed = []
    for kind in ("-known.parquet", "-unknown.parquet"):
        own = [file for file in files if file.endswith(kind)]
        placed += [((j + 0.5) / len(own), own[i]) for j, i in enumerate(generator.permutation(len(own)))]
    return [file for _, file in sorted(placed)]


def prepare(batch):
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


def decode(data):
    """A picture as the model takes it, (3, side, side), 0 to 1."""
    picture = PIL.Image.open(io.BytesIO(data)).convert("RGB").resize((SIDE, SIDE))
    return np.asarray(picture, np.float32).transpose(2, 0, 1) / 255


def make_loader(files, epoch, *, rank=0, world_size=1, workers=2, batch_size=64):
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

    def forward(self, pictures):
        """(n, 3, side, side) -> (n, 2)."""
        return self.layers(pictures)


def save(path, **state):
    """Write a file so that its name never stands for half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".new-{os.getpid()}")
    torch.save(state, new)
    new.replace(path)


def latest(folder, rank, world_size):
    """This process's file of the last checkpoint that every process has written; None before the first.

    Places in the stream are those of one process, and of one number of processes and workers.
    """
    for step in sorted(folder.glob("epoch-*"), reverse=True):
        if all((step / f"{other}-of-{world_size}.pt").exists() for other in range(world_size)):
            return torch.load(step / f"{rank}-of-{world_size}.pt", weights_only=False)
    return None


def main():
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dataset", help="a repository of the Hub, or a built folder")
    parser.add_argument("--config", default="object_centric")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--every", type=int, default=100, help="batches between two checkpoints")
    options = parser.parse_args()

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world_size = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = DistributedDataParallel(Model().to(device))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    files = list(load_dataset_builder(options.dataset, options.config).config.data_files["train"])

    saved = latest(options.checkpoints, rank, world_size)
    if saved:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
    for epoch in range(saved["epoch"] if saved else 0, options.epochs):
        loader = make_loader(
            files,
            epoch,
            rank=rank,
            world_size=world_size,
            workers=options.workers,
            batch_size=options.batch_size,
        )
        seen, batches = 0, 0
        if saved:
            loader.load_state_dict(saved["loader"])
            seen, batches, saved = saved["seen"], saved["batches"], None
        with Join([model]):  # parts of an epoch differ a little in length: the longer ones may finish
            for batch in loader:
                azimuth = batch["azimuth"].to(device)
                target = torch.stack([azimuth.sin(), azimuth.cos()], 1)
                loss = nn.functional.mse_loss(model(batch["picture"].to(device)), target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen, batches = seen + len(azimuth), batches + 1
                if batches % options.every == 0:
                    save(
                        options.checkpoints
                        / f"epoch-{epoch:05d}-{batches:07d}"
                        / f"{rank}-of-{world_size}.pt",
                        epoch=epoch,
                        seen=seen,
                        batches=batches,
                        loader=loader.state_dict(),
                        model=model.state_dict(),
                        optimizer=optimizer.state_dict(),
                    )
        total = torch.tensor(seen, device=device)
        dist.all_reduce(total)
        if rank == 0:
            degrees = math.degrees(math.sqrt(loss.item()))
            print(
                f"epoch {epoch}: {total.item()} objects, last error about {degrees:.0f} degrees", flush=True
            )
    del loader
    gc.collect()  # else an unfinished Parquet reader may abort the interpreter at exit
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
