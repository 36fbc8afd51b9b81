"""A training job: one process, or as many as torchrun started, on GPUs if there are any, else on the CPU."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm


@dataclass(frozen=True)
class Job:
    """This process's place in the job."""

    rank: int  # from 0; the process of rank 0 prints, and writes what there is one of
    world_size: int  # processes in all
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that speaks for all."""
        return self.rank == 0

    def say(self, line: str) -> None:
        """Print once, not in every process."""
        if self.first:
            print(line, flush=True)

    def progress(self, **options: Any) -> tqdm:
        """A bar of the first process's progress, on a terminal."""
        return tqdm(**options, disable=None if self.first else True)

    def autocast(self) -> torch.autocast:
        """A context of mixed precision: bfloat16 on a GPU, float32 on a CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def agreed(self, value: Any) -> Any:
        """What the first process has of a value, in every process."""
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def gathered(self, value: Any) -> list[Any]:
        """What every process has of a value, in the order of ranks."""
        values = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values


@contextmanager
def start_job(seed: int) -> Iterator[Job]:
    """Join the other processes of torchrun, or be alone; leave them at the end.

    Args:
        seed: of weights and dropout; the same in every process, so that their models begin alike.
    """
    gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)  # where NCCL puts what processes tell each other
    backend = "nccl" if gpu else "gloo"
    if "RANK" in os.environ:  # of torchrun, which says too where the others are
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    torch.manual_seed(seed)
    try:
        yield Job(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that its name never stands for half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(f".new-{os.getpid()}")
    torch.save(dict(state), new)
    new.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint: tensors, numbers and text, never code."""
    return torch.load(path, map_location="cpu", weights_only=True)
