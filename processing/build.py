"""Builds the folder that is the Hub repository: Parquet shards of every config and the card.

The folder's hidden `.build` holds the plan, a marker for each finished shard and the reject ledger. The card
is written last: a folder without README.md is not finished. Running the same command again continues; another
input, option or version of this code starts afresh.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
from datasets.utils.py_utils import convert_file_size_to_int
from tqdm import tqdm

import ImageNet3D
from ImageNet3D import KEPT, Entry, Finding, RawTree, ReleaseError, Survey
from processing import plan, shards
from processing.card import write_card
from processing.ledger import Books, finding_to_json, findings_table, views_of_pose
from processing.plan import DEFAULT_SHARD_SIZE, Shard
from processing.shards import BOOKKEEPING, TABLES, ShardResult, write_whole

LEFT_OUT_BATCH = 500  # pictures that no shard takes, a task


class BuildError(RuntimeError):
    """A build cannot start or go on; the message says why and what to do."""


@dataclass
class BuildReport:
    """What a build did.

    Attributes:
        books: accounts by config and split.
        findings: of the whole release.
        pictures, objects: in the release; left_out: pictures in no shard or unusable.
        resumed: shards that were finished before.
    """

    books: Books = field(default_factory=Books)
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    pictures: int = 0
    objects: int = 0
    resumed: int = 0

    @property
    def problems(self) -> int:
        """Findings that left something out of every config or of pose, other than objects without a pose."""
        return sum(f.decision != KEPT and f.reason != "pose_missing" for _, f in self.findings)

    def __str__(self) -> str:
        total = f"{self.pictures:,} pictures and {self.objects:,} objects in the release"
        parts = [self.books.table()]
        if self.findings:
            parts.append(findings_table(finding.reason for _, finding in self.findings))
        return "\n\n".join([*parts, total])


def build(
    raw: str,
    out: str | Path,
    *,
    configs: Sequence[str] = (),
    captions: str | None = None,
    workers: int | None = None,
    shard_size: str = DEFAULT_SHARD_SIZE,
    seed: int = 0,
    strict: bool = False,
) -> BuildReport:
    """Build the dataset folder from the raw release.

    Args:
        raw: the raw release, a folder or zip, local or any fsspec URL.
        out: the folder to build; made if it is missing.
        configs: names of `ImageNet3D.CONFIGS`; all that the release allows where empty.
        captions: a folder with captions; without it `captions/` in or beside the release is used.
        workers: processes; as many as there are cores by default. The bytes do not depend on it.
        shard_size: bytes of pictures a shard should have at most, such as "48MB".
        seed: of the order of train.
        strict: write no card if anything was found.

    Raises:
        ReleaseError: if the raw release cannot be read as a whole.
        BuildError: if the folder is in use or not ours, a worker died, or strict and something was found.
    """
    folder = Path(out)
    with _locked(folder):
        tree = RawTree(raw)
        survey = ImageNet3D.survey(tree, captions, seed)
        tables = _tables(survey, configs)
        size = convert_file_size_to_int(shard_size)
        key = build_key(survey, tables, configs, size, seed)
        planned = plan.plan_shards(survey, size)
        _prepare(folder, key, planned)
        tasks = [*_shard_tasks(survey, planned, tables, folder, key), *_count_tasks(survey, tables)]
        results = list(_run(tasks, workers or os.cpu_count() or 1))
        report = _report(survey, results)
        _write_ledger(folder, report)
        report.books.check()
        if strict and report.findings:
            raise BuildError(f"{report}\n\n--strict: {len(report.findings)} findings, so no card was written")
        write_card(folder, tables, configs, [r for r in results if r.files])
        _write_manifest(folder, key, results)
    return report


def build_key(survey: Survey, tables: Sequence[str], configs: Sequence[str], size: int, seed: int) -> str:
    """What the bytes of a build depend on: input, options, code and the writer of Parquet."""
    code = [Path(module.__file__).read_bytes() for module in (ImageNet3D, plan, shards)]
    parts = {
        "raw": survey.fingerprint,
        "tables": list(tables),
        "configs": sorted(configs),
        "shard_size": size,
        "seed": seed,
        "code": hashlib.sha256(b"".join(code)).hexdigest(),
        "pyarrow": pa.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one build; the lock goes with the process, however it ends."""
    (folder / BOOKKEEPING).mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / BOOKKEEPING / "lock", blocking=False):
            yield
    except filelock.Timeout:
        raise BuildError(
            f"{folder}: another build is at work in it; wait for it, or name another folder"
        ) from None


def _tables(survey: Survey, configs: Sequence[str]) -> list[str]:
    """The configs that need files of their own, in the order of TABLES."""
    if "captions" in configs and not survey.has_captions:
        raise ReleaseError(
            f"{survey.release.tree.path} comes without captions; give them with --captions DIR"
        )
    wanted = {"pose" if name.startswith("open_vocab") else name for name in configs or ImageNet3D.CONFIGS}
    return [name for name in TABLES if name in wanted and (name != "captions" or survey.has_captions)]


def _prepare(folder: Path, key: str, planned: Sequence[Shard]) -> None:
    """Make the folder ready: continue a build with the same key, or clear what another one left."""
    book = folder / BOOKKEEPING
    shutil.rmtree(book / "tmp", ignore_errors=True)
    try:
        before = json.loads((book / "plan.json").read_text("utf-8"))["key"]
    except (FileNotFoundError, ValueError, KeyError):
        strangers = [path.name for path in folder.iterdir() if path.name != BOOKKEEPING]
        if strangers:
            raise BuildError(
                f"{folder}: holds {strangers[0]}, which no build made; name another folder"
            ) from None
        before = None
    if before != key:
        _clear(folder)
        names = {shard.name: len(shard.entries) for shard in planned}
        write_whole(book / "plan.json", json.dumps({"key": key, "shards": names}, indent=1).encode())


def _clear(folder: Path) -> None:
    """Remove what an earlier build wrote, the card first, so that nothing mixed looks finished."""
    (folder / "README.md").unlink(missing_ok=True)
    for config in TABLES:
        shutil.rmtree(folder / config, ignore_errors=True)
    for name in ("done", "ledger.jsonl", "manifest.json"):
        path = folder / BOOKKEEPING / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _Task:
    """A call for a worker, and how many pictures it handles."""

    function: Callable[..., ShardResult]
    arguments: tuple[Any, ...]
    pictures: int


def _shard_tasks(
    survey: Survey, planned: Sequence[Shard], tables: Sequence[str], folder: Path, key: str
) -> Iterator[_Task]:
    for shard in planned:
        arguments = (survey.release, shard, tables, folder, key)
        yield _Task(shards.write_shard, arguments, len(shard.entries))


def _count_tasks(survey: Survey, tables: Sequence[str]) -> Iterator[_Task]:
    """Tasks for the pictures that no shard takes; each is of one split and of one kind, as a shard is."""
    groups: dict[tuple[str, bool], list[Entry]] = {}
    for entry in survey.left_out:
        groups.setdefault((entry.split, entry.known), []).append(entry)
    for entries in groups.values():
        for start in range(0, len(entries), LEFT_OUT_BATCH):
            batch = entries[start : start + LEFT_OUT_BATCH]
            yield _Task(shards.count_left_out, (survey.release, batch, tables), len(batch))


def _run(tasks: Sequence[_Task], workers: int) -> Iterator[ShardResult]:
    """Results in the order of the tasks, with a progress bar on a terminal."""
    with tqdm(total=sum(t.pictures for t in tasks), desc="build", unit=" pictures", disable=None) as bar:
        done = _run_here(tasks) if workers == 1 else _run_in_processes(tasks, workers)
        results: dict[int, ShardResult] = {}
        for number, result in done:
            results[number] = result
            bar.update(tasks[number].pictures)
    yield from (results[number] for number in range(len(tasks)))


def _run_here(tasks: Sequence[_Task]) -> Iterator[tuple[int, ShardResult]]:
    for number, task in enumerate(tasks):
        yield number, task.function(*task.arguments)


def _run_in_processes(tasks: Sequence[_Task], workers: int) -> Iterator[tuple[int, ShardResult]]:
    """Results as they come; only a few tasks are on their way at a time, so that memory stays flat."""
    waiting = iter(enumerate(tasks))
    running: dict[Future[ShardResult], int] = {}
    with ProcessPoolExecutor(min(workers, len(tasks)) or 1, mp_context=get_context("spawn")) as pool:
        try:
            while True:
                for number, task in waiting:
                    running[pool.submit(task.function, *task.arguments)] = number
                    if len(running) >= 2 * workers:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise BuildError(
                "a worker died, perhaps for want of memory; run the same command again to go on, "
                "with fewer --workers if it happens again"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _report(survey: Survey, results: Iterable[ShardResult]) -> BuildReport:
    report = BuildReport(findings=[("", finding) for finding in survey.findings])
    for result in results:
        report.pictures += result.pictures
        report.objects += result.objects
        report.findings += [(result.split, finding) for finding in result.findings]
        for config, account in result.accounts.items():
            report.books.account(config, result.split).add(account)
        if "pose" in result.accounts:
            for config in views_of_pose(result.split, result.known):
                report.books.account(config, result.split).add(result.accounts["pose"])
    return report


def _write_ledger(folder: Path, report: BuildReport) -> None:
    lines = "".join(finding_to_json(finding, split) + "\n" for split, finding in report.findings)
    write_whole(folder / BOOKKEEPING / "ledger.jsonl", lines.encode())


def _write_manifest(folder: Path, key: str, results: Iterable[ShardResult]) -> None:
    """Checksums of all that is to be published, the card among it."""
    files = {
        file.path: {"size": file.size, "sha256": file.sha256} for r in results for file in r.files.values()
    }
    card = (folder / "README.md").read_bytes()
    files["README.md"] = {"size": len(card), "sha256": hashlib.sha256(card).hexdigest()}
    manifest = {"key": key, "files": dict(sorted(files.items()))}
    write_whole(folder / BOOKKEEPING / "manifest.json", json.dumps(manifest, indent=1).encode())
