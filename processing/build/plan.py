"""Which picture goes into which shard and row group: one plan for all configs.

The plan depends on names, sizes, seed and shard size alone, so it is the same for any number of workers.
Pictures stand in the same shards, row groups and order in every config, so that storage that keeps equal
chunks once (as the Hub does) keeps a picture's copies once. A shard is wholly of known or wholly of unknown
categories, so that open_vocab_known and open_vocab_unknown are lists of pose's shards.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeVar

from datasets.utils.py_utils import convert_file_size_to_int

from ImageNet3D import Entry, Survey
from processing.built import shard_name

# The viewer of the Hub fetches a dictionary page whole and gives up at 300 MB.
MAX_ROW_GROUP_PICTURES = 100
MAX_ROW_GROUP_BYTES = 100 * 10**6

# A row of pose holds its picture. No Arrow table has a struct with 2 GiB of bytes: more in a row group could
# neither be written nor read by `datasets`.
MAX_REPEATED_BYTES = 10**9

# A worker holds a row group some six times while it writes it. Only a picture larger than this has more.
ROW_GROUP_BYTES = 24 * 10**6

LEFT_OUT_BATCH = 500  # pictures that no shard takes, a task


@dataclass(frozen=True)
class Shard:
    """The pictures of one shard, the same for every config.

    Attributes:
        split: "train" or "validation".
        number: from 0, over both kinds of the split.
        total: shards of the split.
        known: whether all its categories are known ones, or none.
        row_groups: the pictures, in order, as they fall into row groups.
    """

    split: str
    number: int
    total: int
    known: bool
    row_groups: tuple[tuple[Entry, ...], ...]

    @property
    def name(self) -> str:
        """The file name without its ending, the same in every config's folder."""
        return shard_name(self.split, self.number, self.total, self.known)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All pictures, in order."""
        return tuple(entry for group in self.row_groups for entry in group)


def parsed_size(text: str) -> int:
    """Bytes of a size: a whole number of them, or one with a unit such as "48MB" or "1GiB", in any case.

    Raises:
        ValueError: for what is no such size, or less than one byte.
    """
    try:
        size = int(text) if text.isdecimal() else convert_file_size_to_int(text.upper())
    except ValueError:
        size = 0
    if size < 1:
        raise ValueError(
            f"{text!r} is no size; give a whole number of bytes, or one with a unit such as 48MB"
        )
    return size


def plan_shards(survey: Survey, shard_size: int) -> list[Shard]:
    """The shards of both splits.

    Args:
        shard_size: bytes of pictures a shard should have at most.
    """
    return [
        shard
        for split, entries in survey.entries.items()
        for shard in _plan_split(split, entries, shard_size)
    ]


def _plan_split(split: str, entries: Sequence[Entry], shard_size: int) -> list[Shard]:
    kinds = {known: [e for e in entries if e.known is known] for known in (True, False)}
    counts = _shard_counts({known: _weights(kind) for known, kind in kinds.items()}, shard_size)
    # A kind's shards are spread evenly over the numbers: its j-th of n stands at the fraction (j + 1/2) / n.
    placed = [
        ((j + 0.5) / counts[known], not known, part)
        for known, kind in kinds.items()
        for j, part in enumerate(_equal_parts(kind, counts[known]))
    ]
    placed.sort(key=lambda item: item[:2])
    return [
        Shard(split, number, len(placed), not unknown, tuple(_row_groups(part)))
        for number, (_, unknown, part) in enumerate(placed)
    ]


def _weights(entries: Sequence[Entry]) -> list[int]:
    """Bytes of each picture; a missing one counts a little, so that no run of them has no weight."""
    return [max(e.size, 1) for e in entries]


def _shard_counts(weights: dict[bool, list[int]], shard_size: int) -> dict[bool, int]:
    """How many shards each kind gets: in proportion to its bytes, at least one if it has a picture."""
    total = sum(map(sum, weights.values()))
    pictures = {known: len(w) for known, w in weights.items()}
    whole = _divisible(math.ceil(total / shard_size)) if total else 0
    counts = {known: round(whole * sum(w) / total) if total else 0 for known, w in weights.items()}
    counts = {known: min(max(n, 1), pictures[known]) for known, n in counts.items()}
    larger = max(counts, key=lambda known: counts[known])
    counts[larger] = max(counts[larger] + whole - sum(counts.values()), min(1, pictures[larger]))
    return {known: min(n, pictures[known]) for known, n in counts.items()}


def _divisible(count: int) -> int:
    """The next power of two, or three times one: what common numbers of nodes and of their workers divide.

    At most a half above the one asked for. Where the nodes do not divide it, every node reads all shards.
    """
    step = 2 ** max(0, int(math.log2(max(count, 1))) - 1)
    return math.ceil(count / step) * step


def _equal_parts(entries: Sequence[Entry], parts: int) -> list[list[Entry]]:
    """Runs of nearly equal bytes, none of them empty; `parts` is at most the number of entries."""
    if parts == 0:
        return []
    ends = list(accumulate(_weights(entries)))
    cuts = [0]
    for part in range(1, parts):
        goal = ends[-1] * part / parts
        at = bisect_left(ends, goal) + 1
        cuts.append(min(max(at, cuts[-1] + 1), len(entries) - (parts - part)))
    return [list(entries[a:b]) for a, b in zip(cuts, [*cuts[1:], len(entries)], strict=True)]


def _row_groups(entries: Sequence[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Runs within the limits of a row group, of nearly equal numbers of pictures."""
    goal = math.ceil(len(entries) / math.ceil(len(entries) / MAX_ROW_GROUP_PICTURES))
    return runs(entries, lambda entry: entry.size, ROW_GROUP_BYTES, goal)


Item = TypeVar("Item")


def runs(
    items: Iterable[Item], size_of: Callable[[Item], int], most_bytes: int, most: int | None = None
) -> Iterator[tuple[Item, ...]]:
    """Items in their order, in runs of at most so many bytes and items; a larger item stands alone."""
    run: list[Item] = []
    size = 0
    for item in items:
        more = size_of(item)
        if run and (len(run) == most or size + more > most_bytes):
            yield tuple(run)
            run, size = [], 0
        run.append(item)
        size += more
    if run:
        yield tuple(run)
