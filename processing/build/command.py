"""Builds the folder that is the Hub repository: Parquet shards of every config, and what tells of them.

The folder's hidden `.build` holds the plan, a marker for each finished shard, the reject ledger and the
manifest. The card is written when all else that is published is there, and the manifest after it: a folder
without either is not finished. Running the same command again continues; another input, option or version of
this code starts afresh. A build that goes on removes the card first, so README.md never stands beside shards
that are missing.
"""

import errno
import hashlib
import json
import shutil
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pyarrow as pa

import ImageNet3D
from ImageNet3D import PUBLISHED_CONFIGS, SPLITS, Entry, Finding, RawTree, ReleaseError, Survey
from processing.build import DEFAULT_SHARD_SIZE, cad, plan, references, shards
from processing.build.categories import CategoryCounts
from processing.build.ownership import (
    CORRECTIONS,
    FINISHED_BY,
    PAGES,
    BuildError,
    left_over,
    locked,
    refuse_strangers,
    replaced_configs,
)
from processing.build.plan import LEFT_OUT_BATCH, Shard, parsed_size
from processing.build.references import REFERENCE_TABLES, ReferenceShard
from processing.build.shards import (
    BOOKKEEPING,
    DERIVED_TABLES,
    PLAN,
    TABLES,
    ShardResult,
    at_work,
    is_whole,
)
from processing.card.card import Sizes, config_sizes, write_card
from processing.card.croissant import write_croissant
from processing.card.figures import FIGURES, can_draw, clear_figures, write_figures
from processing.crop import pixels
from processing.ledger import (
    Books,
    degrees_warning,
    finding_to_json,
    findings_table,
    unknown_key_findings,
    views_of_pose,
)
from processing.runtime.cluster import joined, there, view_of
from processing.runtime.fingerprint import code_fingerprint
from processing.runtime.store import (
    Place,
    files_below,
    names_in,
    place,
    read_all,
    remove,
    remove_tree,
    write_whole,
)
from processing.runtime.tasks import Task, run

if TYPE_CHECKING:
    from distributed import Client

NO_CAPTIONS = (
    "the config captions is not there: the release comes without captions; give them with --captions DIR and "
    "build again"
)

NO_PLOTS = "the card has no plots: they need matplotlib (the extra `figures`); install it and build again"


@dataclass
class BuildReport:
    """What a build did.

    Attributes:
        books: accounts by config and split.
        findings: of the whole release.
        pictures, objects: in the release.
        categories: what there is of each category.
        unknown_keys: name of a key that no column is made of -> objects that have it.
        notes: what else whoever builds should know.
    """

    books: Books = field(default_factory=Books)
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    pictures: int = 0
    objects: int = 0
    categories: CategoryCounts = field(default_factory=CategoryCounts)
    unknown_keys: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = f"{self.pictures:,} pictures and {self.objects:,} objects in the release"
        posed = {
            name: sum(counts[f"{split}_objects"] for split in SPLITS)
            for name, counts in self.categories.counts.items()
        }
        degrees = degrees_warning((finding for _, finding in self.findings), posed)
        parts = [*([degrees] if degrees else ()), self.books.table()]
        if self.findings:
            parts.append(findings_table(finding.reason for _, finding in self.findings))
        return "\n\n".join([*parts, *([total] if self.pictures else ()), *self.notes])


def build(
    raw: str,
    out: str | Path,
    *,
    configs: Sequence[str] = (),
    captions: str | None = None,
    corrections: Sequence[str] = (),
    workers: int | None = None,
    scheduler: str | None = None,
    shard_size: str = DEFAULT_SHARD_SIZE,
    seed: int = 0,
    strict: bool = False,
) -> BuildReport:
    """Build the dataset folder from the raw release.

    Args:
        raw: the raw release, a folder or zip, local or any fsspec URL.
        out: the folder to build, local or the URL of an object store's; made if it is missing.
        configs: names of `ImageNet3D.PUBLISHED_CONFIGS`; all that the release allows where empty.
        captions: a folder with captions; without it `captions/` in or beside the release is used.
        corrections: files of corrections, which the rows have instead of the release's values.
        workers: processes; as many as there are cores by default. The bytes do not depend on it.
        scheduler: of a Dask cluster that does the work instead: its address or the path of its file.
        shard_size: bytes of pictures a shard should have at most, such as "48MB" or "48000000".
        seed: of the order of train.
        strict: write no card if anything was found, but that corrections were applied.

    Raises:
        ReleaseError: if the raw release cannot be read as a whole, or has no usable row.
        BuildError: if the folder is in use or holds what is not this build's to remove, the disk is full, the
            release changed on the way, or strict and something was found.
        ValueError: for a size that is none.
        PlaceError: if nothing can be built at such a URL.
        StoreError: if the object store fails for good.
        WorkerDiedError: if a worker process was killed.
        ClusterError: if the cluster cannot be used.
    """
    folder, size = place(out), parsed_size(shard_size)
    refuse_strangers(folder)
    with joined(scheduler) as client, locked(folder), _told_of_a_full_disk(folder):
        survey = ImageNet3D.survey(RawTree(raw), captions, seed, corrections)
        tables = _tables(survey, configs)
        key = build_key(survey, tables, configs, size, seed)
        replaced = replaced_configs(folder, key, tables)
        results = _write_shards(survey, tables, size, folder, key, workers, client)
        _check_unchanged(survey, ImageNet3D.fingerprint(RawTree(raw), captions, corrections), folder)
        report = report_of(survey, results)
        _write_ledger(folder, report)
        report.books.check()
        odd = [finding for _, finding in report.findings if finding.reason not in ImageNet3D.OF_CORRECTIONS]
        if strict and odd:
            raise BuildError(f"{report}\n\n--strict: {len(odd)} findings, so no card was written")
        sizes = config_sizes(tables, configs, results)
        if not _has_rows(sizes, tables):
            raise ReleaseError(f"{report}\n\n{raw}: has no row for any config; the findings above say why")
        _check_undisturbed(folder, key, results)
        _describe(folder, survey, sizes, results)
        _write_manifest(folder, key, results)
    report.notes += _notes(configs, tables, replaced)
    return report


def _notes(configs: Sequence[str], tables: Sequence[str], replaced: Collection[str]) -> Iterator[str]:
    """What a build would be expected to have and has not, and what it has replaced."""
    if replaced:
        names = ", ".join(sorted(replaced))
        yield f"a finished build of other input, options or code, with {names}, was there and is replaced"
    if not can_draw():
        yield NO_PLOTS
    if not configs and "captions" not in tables:
        yield NO_CAPTIONS


def _write_shards(
    survey: Survey,
    tables: Sequence[str],
    size: int,
    folder: Place,
    key: str,
    workers: int | None,
    client: "Client | None",
) -> list[ShardResult]:
    """Plan, make the folder ready, and have all shards written, categories last: they count the others."""
    planned = plan.plan_shards(survey, size) if _reads_pictures(tables) else []
    beside = references.plan_references(survey, tables, size)
    _prepare(folder, key, planned, beside)
    tasks = list(_tasks(survey, planned, beside, tables, folder, key))
    results = list(run(tasks, workers, "build", there(client, view_of(folder / PLAN, survey))))
    for shard in beside:
        if shard.config == "categories":
            results.append(references.write_categories(survey, shard, results, folder, key))
    return results


def _has_rows(sizes: Sizes, tables: Sequence[str]) -> bool:
    """Whether there is anything to publish: of pictures, if any are asked for."""
    of_pictures = set(tables) - set(REFERENCE_TABLES)
    return bool(sizes.keys() - set(REFERENCE_TABLES) if of_pictures else sizes)


def build_key(survey: Survey, tables: Sequence[str], configs: Sequence[str], size: int, seed: int) -> str:
    """What the bytes of a build depend on: input, options, code and the libraries that read and write."""
    parts = {
        "raw": survey.fingerprint,
        "tables": list(tables),
        "configs": sorted(configs),
        "shard_size": size,
        "seed": seed,
        "code": code_fingerprint(),
        "libraries": [
            *(pa.__version__, datasets.__version__, np.__version__, *pixels.libraries()),
            *(cad.libraries() if "cad" in tables else ()),
        ],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _told_of_a_full_disk(folder: Place) -> Iterator[None]:
    """Say what to do where the operating system only says that there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BuildError(
            f"{folder}: {error.strerror}; make room there and run the same command again to go on"
        ) from error


def _check_unchanged(survey: Survey, fingerprint: str, folder: Place) -> None:
    """Throw the shards away if the input changed while it was read: nothing tells old rows from new."""
    if fingerprint != survey.fingerprint:
        _clear(folder)
        raise BuildError(
            f"{survey.release.tree.path}: it, its captions or its corrections changed while they were read; "
            "run the same command again to build afresh"
        )


def _check_undisturbed(folder: Place, key: str, results: Iterable[ShardResult]) -> None:
    """On a store, which has no locks: all files still are ours, or another build was at work meanwhile.

    Two builds with the same key write the same bytes and do not disturb each other.
    """
    if isinstance(folder, Path):
        return
    found = files_below(folder)
    for file in (file for result in results for file in result.files.values()):
        if not is_whole(folder, file, found.get(file.path)):
            raise BuildError(
                f"{folder / file.path}: changed since it was written; if another build is at work in this "
                "folder, wait for it or name another folder, then run the same command again"
            )
    if at_work(folder) != key:
        raise BuildError(
            f"{folder}: another build with other input or options is at work; name another folder"
        )


def _tables(survey: Survey, configs: Sequence[str]) -> list[str]:
    """The configs that need files of their own, in the order of TABLES, DERIVED_TABLES, REFERENCE_TABLES."""
    if "captions" in configs and not survey.has_captions:
        raise ReleaseError(
            f"{survey.release.tree.path} comes without captions; give them with --captions DIR"
        )
    wanted = {"pose" if name.startswith("open_vocab") else name for name in configs or PUBLISHED_CONFIGS}
    if not survey.has_captions:
        wanted.discard("captions")
    return [name for name in (*TABLES, *DERIVED_TABLES, *REFERENCE_TABLES) if name in wanted]


def _prepare(folder: Place, key: str, planned: Sequence[Shard], beside: Sequence[ReferenceShard]) -> None:
    """Make the folder ready: continue a build with the same key, or clear what another one left."""
    remove(folder, (*FINISHED_BY, *PAGES, CORRECTIONS))
    clear_figures(folder)
    if isinstance(folder, Path):
        shutil.rmtree(folder / BOOKKEEPING / "tmp", ignore_errors=True)
    if at_work(folder) != key:
        _clear(folder)
    remove(folder, left_over(folder, {s.name for s in planned}, {shard.path for shard in beside}))
    _write_plan(folder, key, planned, beside)


def _write_plan(
    folder: Place, key: str | None, planned: Sequence[Shard] = (), beside: Sequence[ReferenceShard] = ()
) -> None:
    """Say which build has the folder; `run` tells the file from an earlier one, or one on another disk."""
    plan_of_run = {
        "key": key,
        "run": uuid.uuid4().hex,
        "shards": {shard.name: len(shard.entries) for shard in planned},
        "references": {shard.path: shard.name for shard in beside},
    }
    write_whole(folder / PLAN, json.dumps(plan_of_run, indent=1).encode())


def _clear(folder: Place) -> None:
    """Remove the shards and markers that an earlier build wrote, and none of its workers writes more."""
    _write_plan(folder, None)
    for name in (*TABLES, *DERIVED_TABLES, *REFERENCE_TABLES, f"{BOOKKEEPING}/done"):
        remove_tree(folder / name)
    remove(folder, (f"{BOOKKEEPING}/ledger.jsonl",))


def _tasks(
    survey: Survey,
    planned: Sequence[Shard],
    beside: Sequence[ReferenceShard],
    tables: Sequence[str],
    folder: Place,
    key: str,
) -> Iterator[Task[ShardResult]]:
    """What workers do; categories are counted after it."""
    of_pictures = [name for name in tables if name not in REFERENCE_TABLES]
    if _reads_pictures(tables):
        for shard in planned:
            arguments = (survey.release, shard, of_pictures, folder, key)
            yield Task(shards.write_shard, arguments, len(shard.entries), shard.name)
        yield from count_tasks(survey, of_pictures)
    for shard in beside:
        if shard.config == "cad":
            arguments = (survey.release, shard, folder, key)
            yield Task(references.write_meshes, arguments, len(shard.meshes), shard.name)


def _reads_pictures(tables: Sequence[str]) -> bool:
    """Whether any picture is looked at: categories count them, meshes go without."""
    return any(name != "cad" for name in tables)


def count_tasks(survey: Survey, tables: Sequence[str]) -> Iterator[Task[ShardResult]]:
    """Tasks for the pictures that no shard takes; each is of one split and of one kind, as a shard is."""
    groups: dict[tuple[str, bool], list[Entry]] = {}
    for entry in survey.left_out:
        groups.setdefault((entry.split, entry.known), []).append(entry)
    for entries in groups.values():
        for start in range(0, len(entries), LEFT_OUT_BATCH):
            batch = entries[start : start + LEFT_OUT_BATCH]
            yield Task(
                shards.count_left_out,
                (survey.release, batch, tables),
                len(batch),
                "pictures that no shard takes",
            )


def report_of(survey: Survey, results: Iterable[ShardResult]) -> BuildReport:
    """What became of the whole release."""
    report = BuildReport(findings=[("", finding) for finding in survey.findings])
    for result in results:
        report.pictures += result.pictures
        report.objects += result.objects
        report.findings += [(result.split, finding) for finding in result.findings]
        report.unknown_keys.update(result.unknown_keys)
        report.categories.add(result.categories)
        for config, account in result.accounts.items():
            report.books.account(config, result.split).add(account)
        if "pose" in result.accounts:
            for config in views_of_pose(result.split, result.known):
                report.books.account(config, result.split).add(result.accounts["pose"])
    report.findings += [("", finding) for finding in unknown_key_findings(report.unknown_keys)]
    return report


def _write_ledger(folder: Place, report: BuildReport) -> None:
    lines = "".join(finding_to_json(finding, split) + "\n" for split, finding in report.findings)
    write_whole(folder / BOOKKEEPING / "ledger.jsonl", lines.encode())


def _describe(folder: Place, survey: Survey, sizes: Sizes, results: Sequence[ShardResult]) -> None:
    """Write what tells of the shards; the card last."""
    if survey.corrections:
        write_whole(folder / CORRECTIONS, ImageNet3D.corrections_text(survey.corrections).encode())
    figures = write_figures(folder)
    write_croissant(folder, sizes, results)
    write_card(folder, sizes, figures)


def _write_manifest(folder: Place, key: str, results: Iterable[ShardResult]) -> None:
    """Checksums of all that is to be published: the shards and what tells of them."""
    files = {
        file.path: {"size": file.size, "sha256": file.sha256} for r in results for file in r.files.values()
    }
    pages = [*PAGES, *(f"{FIGURES}/{name}" for name in names_in(folder / FIGURES))]
    pages += [CORRECTIONS] if CORRECTIONS in names_in(folder) else []
    for path, data in zip(pages, read_all(folder, pages), strict=True):
        files[path] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest = {"key": key, "version": ImageNet3D.__version__, "files": dict(sorted(files.items()))}
    write_whole(folder / BOOKKEEPING / "manifest.json", json.dumps(manifest, indent=1).encode())
