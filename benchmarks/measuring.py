"""What the benchmarks share: ways take turns in one run, and medians and ratios go into tables."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
from tabulate import tabulate

WORKERS = 2


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        scratch: an empty folder for what is written.
        raw: a raw tree or zip that is trusted; a synthetic one where None.
        captions: a folder with its captions, if they are not inside or beside it.
        quick: whether it is a smoke test, whose numbers mean nothing.
        rounds: how often ways take turns, after one round to warm up.
    """

    scratch: Path
    raw: str | None = None
    captions: str | None = None
    quick: bool = False
    rounds: int = 3

    @property
    def workers(self) -> int:
        """Processes of a command of ours; each imports for seconds what a smoke test is not about."""
        return 1 if self.quick else WORKERS


@dataclass
class Table:
    """One table of results.

    Attributes:
        name: in the JSON.
        title: a line that says what was measured, on what.
        head: the columns' names.
        rows: of text and numbers.
        notes: lines below the table.
    """

    name: str
    title: str
    head: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        body = tabulate(self.rows, self.head, tablefmt="github", intfmt=",", floatfmt=".2f", missingval="-")
        return "\n".join([f"### {self.title}", "", body, *(f"\n{note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def alternate(ways: Mapping[str, Callable[[], Any]], setting: Setting) -> dict[str, list[Any]]:
    """What each way returns in each round; the ways take turns, and a round to warm up is thrown away."""
    results: dict[str, list[Any]] = {name: [] for name in ways}
    warm_up = 0 if setting.quick else 1
    for number in range(warm_up + setting.rounds):
        for name, way in ways.items():
            result = way()
            if number >= warm_up:
                results[name].append(result)
    return results


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """The median over the rounds of value / reference: what slows a whole round slows both."""
    return statistics.median(v / r for v, r in zip(values, reference, strict=True))


@dataclass(frozen=True)
class Usage:
    """What a call took in a process of its own.

    Attributes:
        result: what it returned.
        seconds: of wall time, imports and the start of the process not counted.
        cpu: seconds of processor time, of the process and of those it started.
        peak: bytes, the most that one of these processes held in memory; maps of files do not count.
    """

    result: Any
    seconds: float
    cpu: float
    peak: int


def apart(function: Callable[..., Any], *arguments: Any) -> Usage:
    """Call a function in a new process, looking at the memory twenty times a second."""
    context = get_context("forkserver")  # where what the function needs is imported once
    context.set_forkserver_preload([function.__module__])
    with ProcessPoolExecutor(1, context) as pool:
        pid = pool.submit(os.getpid).result()
        call = pool.submit(_timed, function, arguments)
        peak = 0
        while not wait([call], timeout=0.05).done:
            peak = max([peak, *_memory(psutil.Process(pid))])
        peak = max([peak, *_memory(psutil.Process(pid))])  # the only look at a call that was soon done
        return Usage(*call.result(), peak)


def whole(command: Sequence[str | Path]) -> Usage:
    """Run a program from its start to its end, by the clock of the one who waits for it.

    The result is None. Processor time and memory are those of all its processes, looked at twenty times a
    second: what one takes after the last look at it does not count.

    Raises:
        CalledProcessError: if it fails; what it wrote is shown.
    """
    cpu: dict[tuple[int, float], float] = {}
    peak = 0
    with tempfile.TemporaryFile() as written:
        start = time.perf_counter()
        process = psutil.Popen([*map(str, command)], stdout=written, stderr=subprocess.STDOUT)
        while process.poll() is None:
            for each, used, held in _looked_at(process):
                cpu[each] = used
                peak = max(peak, held)
            with suppress(psutil.TimeoutExpired):
                process.wait(0.05)
        seconds = time.perf_counter() - start
        if process.returncode:
            written.seek(0)
            sys.stderr.write(written.read().decode(errors="replace"))
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return Usage(None, seconds, sum(cpu.values()), peak)


def _looked_at(process: psutil.Process) -> Iterator[tuple[tuple[int, float], float, int]]:
    """Of a process and each below it: which it is, its processor time so far, and its memory now."""
    with suppress(psutil.Error):  # one that has just ended
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                times, memory = each.cpu_times(), each.memory_info()
                yield (each.pid, each.create_time()), times.user + times.system, memory.rss - memory.shared


def _timed(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[Any, float, float]:
    before, start = _processor_time(), time.perf_counter()
    result = function(*arguments)
    seconds = time.perf_counter() - start
    return result, seconds, _processor_time() - before


def _memory(process: psutil.Process) -> Iterator[int]:
    """Bytes of a process and of each below it."""
    with suppress(psutil.Error):  # one that has just ended
        for each in (process, *process.children(recursive=True)):
            memory = each.memory_info()
            yield memory.rss - memory.shared


def _processor_time() -> float:
    """Of this process and of its children that have ended."""
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


Benchmark = Callable[[Setting], Sequence[Table]]


def command(described: str, benchmarks: Mapping[str, Benchmark]) -> None:
    """The command line: run, print the tables, and write them as JSON where asked to."""
    parser = argparse.ArgumentParser(
        description=described, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", help="a raw tree or zip that you trust; a synthetic one without it")
    parser.add_argument("--captions", help="a folder with its captions, if they are not in or beside it")
    parser.add_argument("--quick", action="store_true", help="a smoke test; its numbers mean nothing")
    parser.add_argument("--rounds", type=int, help="how often the ways take turns; 3 by default")
    parser.add_argument("--json", type=Path, help="write the tables there too")
    if len(benchmarks) > 1:
        parser.add_argument("--only", nargs="+", choices=benchmarks, help="all without it")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    found: list[Table] = []
    print(machine(), end="\n\n")
    for name in vars(asked).get("only") or benchmarks:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=f"benchmark-{name}-") as scratch:
            setting = Setting(Path(scratch), asked.raw, asked.captions, asked.quick, rounds)
            for table in benchmarks[name](setting):
                found.append(table)
                print(table, end="\n\n", flush=True)
        print(f"{name} took {time.perf_counter() - start:.0f} s", file=sys.stderr)
    if asked.json:
        written = {"machine": machine(), "tables": [table.to_dict() for table in found]}
        asked.json.write_text(json.dumps(written, indent=1) + "\n", "utf-8")


def machine() -> str:
    """What the figures hold for."""
    packages = [f"{name} {version(name)}" for name in ("datasets", "pyarrow", "pillow", "numpy")]
    cores = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start"
    return ", ".join([platform.machine(), cores, f"Python {platform.python_version()}", *packages])
