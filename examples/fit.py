"""Training a network on objects: shuffled and mirrored epochs, with a checkpoint after each to go on from."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from job import Job, load, save
from networks import Network, at_least_one, recipe_options
from objects import Objects, digest, loader
from torch.nn.parallel import DistributedDataParallel

# Of the network's outputs and the batch, both on the device: what is to become small.
Loss = Callable[[torch.Tensor, Mapping[str, torch.Tensor]], torch.Tensor]

# The options with others of which a job may go on: a copy of the dataset elsewhere is the same.
FREE = ("dataset", "out", "workers")


def training_options(description: str) -> argparse.ArgumentParser:
    """The options of a recipe that trains a whole network."""
    options = recipe_options(description)
    options.add_argument(
        "--epochs", type=at_least_one, default=90, help="times that the objects of train are seen"
    )
    options.add_argument("--batch-size", type=at_least_one, default=64, help="objects, of each process")
    options.add_argument("--lr", type=float, default=1e-3, help="AdamW's highest learning rate")
    options.add_argument("--weight-decay", type=float, default=0.05, help="AdamW's")
    options.add_argument(
        "--spread", type=float, default=0.3, help="how far an angle counts for bins beside its own, radians"
    )
    return options


class ShuffledBatches:
    """The batches of an epoch, as lists of indices: each object once, mirrored or not.

    They depend on the seed and the epoch alone, so that resuming is exact. The objects that fill no batch of
    every process are left out, others in each epoch.
    """

    def __init__(self, count: int, batch_size: int, job: Job, seed: int):
        """Share objects among the processes of a job, fewer than a batch each if there are no more."""
        self.count, self.job, self.seed, self.epoch = count, job, seed, 0
        self.batch_size = min(batch_size, count // job.world_size)

    def __len__(self) -> int:
        return self.count // (self.batch_size * self.job.world_size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng([self.seed, self.epoch])
        indices = generator.permutation(self.count) + self.count * generator.integers(2, size=self.count)
        own = indices[self.job.rank :: self.job.world_size]
        for batch in range(len(self)):
            yield own[batch * self.batch_size :][: self.batch_size].tolist()


def belongs_to(job: Job, rows: datasets.Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """What a checkpoint belongs to: the recipe, its options, the number of processes, and the rows."""
    chosen = {name: value for name, value in vars(options).items() if name not in FREE}
    return {
        "recipe": Path(sys.argv[0]).name,
        "processes": job.world_size,
        **chosen,
        "rows": f"{len(rows)} (SHA-256 {digest(rows)[:16]})",
    }


def refuse_other(checkpoint: Path, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on from a checkpoint that belongs to something else.

    Raises:
        SystemExit: it does; the first difference is named.
    """
    for name in {**now, **saved}:
        if saved.get(name) != now.get(name):
            raise SystemExit(
                f"{checkpoint} is of {name} {saved.get(name)}, not {now.get(name)}: remove it, or name "
                "another --out"
            )


def fit(
    job: Job, network: Network, rows: datasets.Dataset, loss_of: Loss, options: argparse.Namespace
) -> None:
    """Train a network on rows, from the checkpoint in the folder `out` on if there is one.

    Raises:
        SystemExit: the checkpoint is of another recipe, number of processes, option or row, or there are too
            few rows.
    """
    if len(rows) < job.world_size:
        raise SystemExit(
            f"train has {len(rows)} objects for {job.world_size} processes: give --nproc-per-node fewer, or "
            "another dataset"
        )
    objects = Objects(rows, options.size)
    order = ShuffledBatches(len(rows), options.batch_size, job, options.seed)
    loaded = loader(objects, order, options.workers)
    parallel = DistributedDataParallel(network)
    optimizer = torch.optim.AdamW(network.parameters(), options.lr, weight_decay=options.weight_decay)
    steps = len(order) * options.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.lr, total_steps=steps, pct_start=0.1)
    state = {"network": network, "optimizer": optimizer, "schedule": schedule}
    numbers = belongs_to(job, rows, options)

    checkpoint = options.out / "checkpoint.pt"
    # One process tells what there is: the others may be on machines that do not see its disk, or see it late.
    saved = job.agreed(load(checkpoint) if job.first and checkpoint.exists() else {"epoch": 0})
    if saved["epoch"]:
        refuse_other(checkpoint, saved["numbers"], numbers)
        for name, part in state.items():
            part.load_state_dict(saved[name])
        job.say(f"going on after epoch {saved['epoch']}")

    network.train()
    for epoch in range(saved["epoch"], options.epochs):
        torch.manual_seed(options.seed + epoch)  # of dropout, for resuming to be exact
        order.epoch = epoch
        total = torch.zeros((), device=job.device)
        for batch in job.progress(iterable=loaded, unit="batch", desc=f"epoch {epoch + 1}/{options.epochs}"):
            batch = {name: value.to(job.device, non_blocking=True) for name, value in batch.items()}
            with job.autocast():
                outputs = parallel(batch["picture"])
            loss = loss_of(outputs.float(), batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.detach()
        job.say(f"epoch {epoch + 1} of {options.epochs}: loss {total.item() / len(order):.3f}")
        if job.first:
            parts = {name: part.state_dict() for name, part in state.items()}
            save(checkpoint, {"epoch": epoch + 1, "numbers": numbers, **parts})
    network.eval()
