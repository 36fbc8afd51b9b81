"""What was done, by whom, in how many hours, and how far two people agree on the same objects."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
from tabulate import tabulate

from ImageNet3D import ANGLES, Correction
from processing.annotate.queue import Item, Queue
from processing.annotate.readings import Reading, Readings
from processing.geometry import rotation_error, rotation_from_viewpoint

BREAK = 300.0  # seconds: between two saves that lie farther apart, a person did something else
NOBODY = "(no name)"


@dataclass(frozen=True)
class Work:
    """What one person did.

    Attributes:
        objects: that they have a reading of.
        lines: that they wrote, reviews too.
        hours: between their saves, breaks left out.
    """

    who: str
    objects: int
    lines: int
    hours: float


@dataclass(frozen=True)
class Agreement:
    """How far two people agree on the same objects.

    Attributes:
        category: or "all".
        pairs: of readings, both with a pose.
        median: of the rotation error between the two, degrees.
        below_30, below_10: share of errors below π/6 and π/18.
    """

    category: str
    pairs: int
    median: float
    below_30: float
    below_10: float


@dataclass(frozen=True)
class Report:
    """The whole of it.

    Attributes:
        objects: of the queue, added ones among them.
        added: of them, those that a correction adds.
        done: of them, those that anybody has a reading of; adding is none.
        left_out: of them, those that the corrections leave out, by their last word.
        reviewed: of them, those whose readings were held side by side.
    """

    objects: int
    added: int
    done: int
    left_out: int
    reviewed: int
    people: Sequence[Work]
    agreement: Sequence[Agreement]

    def to_json(self) -> str:
        """For machines."""
        return json.dumps(asdict(self), indent=1)

    def table(self) -> str:
        """For people."""
        people = [(w.who, w.objects, w.lines, w.hours) for w in self.people]
        parts = [
            f"{self.done:,} of {self.objects:,} objects done, {self.left_out:,} of them left out; "
            f"{self.reviewed:,} reviewed; {self.added:,} added",
            tabulate(people, ("person", "objects", "lines", "hours"), "simple", floatfmt=".2f", intfmt=","),
        ]
        if self.agreement:
            rows = [(a.category, a.pairs, a.median, a.below_30, a.below_10) for a in self.agreement]
            head = ("two readings of", "pairs", "median, degrees", "below π/6", "below π/18")
            parts.append(tabulate(rows, head, "simple", floatfmt=("", "", ".2f", ".1%", ".1%"), intfmt=","))
        else:
            parts.append("No object has the poses of two people yet.")
        return "\n\n".join(parts)


def report(queue: Queue, readings: Readings) -> Report:
    """Look through all readings of the queue's objects."""
    queue.take_in(readings.added.values())
    found = [(item, readings.by_object[item.key]) for item in queue.items if item.key in readings.by_object]
    reviewed = sum(item.key in readings.chosen for item, _ in found)
    added = sum(item.is_added for item in queue.items)
    people = _people(readings.lines, [of_one for _, of_one in found])
    left_out = sum(item.key in readings.left_out for item, _ in found)
    return Report(len(queue.items), added, len(found), left_out, reviewed, people, _agreement(found))


def _people(lines: Iterable[Correction], found: Iterable[Mapping[str | None, Reading]]) -> list[Work]:
    times: dict[str, list[datetime]] = defaultdict(list)
    for line in lines:
        times[line.who or NOBODY].append(line.time)
    objects = [who or NOBODY for readings in found for who in readings]
    return [
        Work(who, objects.count(who), len(saved), _hours(sorted(saved)))
        for who, saved in sorted(times.items())
    ]


def _hours(times: Sequence[datetime]) -> float:
    gaps = ((later - earlier).total_seconds() for earlier, later in itertools.pairwise(times))
    return sum(gap for gap in gaps if gap <= BREAK) / 3600


def _agreement(found: Iterable[tuple[Item, Mapping[str | None, Reading]]]) -> list[Agreement]:
    errors: dict[str, list[float]] = defaultdict(list)
    for item, readings in found:
        poses = list(_poses(item, readings.values()))
        for one, other in itertools.combinations(poses, 2):
            errors[item.picture.category].append(float(rotation_error(one, other)))
    if not errors:
        return []
    every = list(itertools.chain.from_iterable(errors.values()))
    return [_summary(name, found) for name, found in [*sorted(errors.items()), ("all", every)]]


def _poses(item: Item, readings: Iterable[Reading]) -> Iterator[Any]:
    """The rotations of those readings that have one."""
    for reading in readings:
        values = {**item.released, **reading.changes}
        if not reading.left_out and all(values[name] is not None for name in ANGLES):
            yield rotation_from_viewpoint(*(values[name] for name in ANGLES))


def _summary(category: str, errors: Sequence[float]) -> Agreement:
    array = np.array(errors)
    below = [float((array < limit).mean()) for limit in (math.pi / 6, math.pi / 18)]
    return Agreement(category, len(errors), math.degrees(float(np.median(array))), *below)
