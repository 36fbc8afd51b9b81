"""Builds the folder that is the Hub repository: Parquet shards of every config, and what tells of them.

`processing/built.py` says what stands where. Running the same command again continues; another input, option
or version of this code starts afresh. A build that goes on removes the card first, so README.md never stands
beside shards that are missing.
"""

import errno
import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
from tqdm import tqdm

import ImageNet3D
from ImageNet3D import Entry, RawTree, ReleaseError, Survey
from processing.build import DEFAULT_SHARD_SIZE, cad, plan, references, shards
from processing.build.ownership import clear, make_ready, refuse_own_files, refuse_strangers, replaced_configs
from processing.build.plan import LEFT_OUT_BATCH, Shard, parsed_size
from processing.build.references import ReferenceShard
from processing.built import (
    CARD,
    CORRECTIONS,
    CROISSANT,
    DATASHEET,
    LEDGER,
    MANIFEST,
    Listed,
    Manifest,
    finding_counts,
    shard_path,
)
from processing.card.description import Sizes, describe, sizes_of
from processing.card.figures import CAMERA, camera_figure, can_draw, draw_figures, import_what_draws
from processing.card.pages import MADE_OF, render_pages
from processing.compare.command import since
from processing.compare.version import open_version
from processing.configs import ALL_TABLES, PUBLISHED_CONFIGS, REFERENCE_TABLES, table_of
from processing.crop import pixels
from processing.ledger import Report, ShardResult, report_of
from processing.run import BuildError, Run, is_whole, locked
from processing.runtime.cluster import connected, on_cluster, shared_view
from processing.runtime.fingerprint import code_fingerprint
from processing.runtime.paths import Place, place
from processing.runtime.store import files_below, half_written, read_all, remove, write_whole
from processing.runtime.tasks import Task, run, stage
from processing.sample import is_drawn

if TYPE_CHECKING:
    from distributed import Client

NO_CAPTIONS = (
    "the config captions is not there: the release comes without captions; give them with --captions DIR and "
    "build again"
)

NO_PLOTS = "the card has no plots: they need matplotlib (the extra `figures`); install it and build again"


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
    repo: str | None = None,
    previous: str | None = None,
) -> Report:
    """Build the dataset folder from the raw release.

    Args:
        raw: the raw release, a folder or zip, local or any fsspec URL.
        out: the folder to build, local or the URL of an object store's; made if it is missing.
        configs: of `PUBLISHED_CONFIGS`; all that the release allows where empty.
        captions: a folder with captions; without it `captions/` in or beside the release is used.
        corrections: files of corrections, which the rows have instead of the release's values.
        workers: processes; as many as there are cores by default. The bytes do not depend on it.
        scheduler: of a Dask cluster that does the work instead: its address or the path of its file.
        shard_size: bytes of pictures a shard should have at most, such as "48MB" or "48000000".
        seed: of the order of train.
        strict: write no card if anything was found, but that corrections were applied.
        repo: where the folder is to stand on the Hub, if not in the authors' repository: the card names it.
        previous: an earlier version, a built folder or a repository such as "ccvl/ImageNet3D@v1.0.0": the
            changelog of the card says what changed since.

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
    options = {"configs": sorted(configs), "shard_size": size, "seed": seed}
    refuse_strangers(folder)
    refuse_own_files(folder, [*corrections, *([previous] if previous else [])])
    earlier = None if previous is None else open_version(previous)
    _look_for_sources()
    if found := sorted(set("*?[") & set(str(folder))):
        tqdm.write(
            f"{folder}: `datasets` takes {' '.join(found)} in a path for a pattern and loads no folder "
            "from there; move it when it is built, or name another",
            file=sys.stderr,
        )
    with ExitStack() as stack:
        client = stack.enter_context(connected(scheduler))
        with stage("build: reads the lists of the release"):
            survey = ImageNet3D.survey(RawTree(raw), captions, seed, corrections)
        tables = _tables(survey, configs)
        work = Run(folder, build_key(survey, tables, options))
        # Nothing is made before it is known what to build.
        stack.enter_context(_full_disk_named(folder))
        stack.enter_context(locked(folder))
        replaced = replaced_configs(work, _of_tables(tables, configs))
        planned = plan.plan_shards(survey, size) if _reads_pictures(tables) else []
        beside = references.plan_references(survey, tables, size)
        files = _files(planned, beside, tables)
        make_ready(work, files)
        gone = "; the finished build that was there is gone" if replaced else ""
        results = _write_shards(survey, planned, beside, tables, work, workers, client)
        _check_unchanged(survey, ImageNet3D.fingerprint(RawTree(raw), captions, corrections), work)
        report = report_of(survey, results)
        write_whole(folder / LEDGER, report.ledger())
        report.books.check()
        odd = [finding for _, finding in report.findings if finding.reason not in ImageNet3D.OF_CORRECTIONS]
        if strict and odd:
            raise BuildError(f"{report}\n\n--strict: {len(odd)} findings, so no card was written{gone}")
        told = {"repository": repo or ImageNet3D.REPOSITORY, "synthetic": is_drawn(survey.release.tree)}
        manifest = _manifest_of_shards(work, options | told, planned, results, report)
        if earlier is not None:
            changes = since(earlier, str(folder), manifest)
            manifest = replace(manifest, options={**manifest.options, "changes": changes})
        sizes = sizes_of(manifest.files, configs)
        if not _has_rows(sizes, tables):
            why = "\n".join(_without_rows(configs, tables, sizes))
            raise ReleaseError(f"{report}\n\n{why}\n\n{raw}: has no row for any config{gone}")
        _check_undisturbed(work, results)
        remove(folder, half_written(folder))  # by workers of this build that were lost
        pages = _describe(work, files, survey, manifest)
        _write_manifest(work, manifest, pages)
    report.notes += [f"read from {survey.release.tree.taken}", *_notes(configs, tables, replaced, sizes)]
    return report


def _look_for_sources() -> None:
    """Raise BuildError where a file that the card is made of is not installed, before hours of work."""
    for path in (*MADE_OF, CAMERA):
        if not path.is_file():
            raise BuildError(f"{path}: is missing; install the package again")


def _notes(
    configs: Sequence[str], tables: Sequence[str], replaced: Collection[str], sizes: Sizes
) -> Iterator[str]:
    """What a build would be expected to have and has not, and what it has replaced."""
    if replaced:
        names = ", ".join(sorted(replaced))
        yield f"a finished build of other input, options or code, with {names}, was there and is replaced"
    yield from _without_rows(configs, tables, sizes)
    if not can_draw():
        yield NO_PLOTS
    if not configs and "captions" not in tables:
        yield NO_CAPTIONS


def _without_rows(configs: Sequence[str], tables: Sequence[str], sizes: Sizes) -> Iterator[str]:
    """What to say of configs that are left out."""
    for config in _of_tables(tables, configs):
        if config not in sizes:
            why = "the table above says why"
            if table_of(config) != config:  # the table says of all of pose what became of it
                why = "no object of such a category is posed and in its splits"
            yield f"{config} has no row, so that config is left out; {why}"


def _of_tables(tables: Sequence[str], configs: Sequence[str]) -> list[str]:
    """The configs that are asked for, all where none is, and have their files among these."""
    return [config for config in configs or PUBLISHED_CONFIGS if table_of(config) in tables]


def _files(planned: Sequence[Shard], beside: Sequence[ReferenceShard], tables: Sequence[str]) -> set[str]:
    """What a build may write, but for figures, which are known when they are drawn."""
    of_pictures = [name for name in tables if name not in REFERENCE_TABLES]
    shown = {shard_path(name, shard.name) for shard in planned for name in of_pictures}
    return {CARD, DATASHEET, CROISSANT, MANIFEST, *shown, *(shard.path for shard in beside)}


def _write_shards(
    survey: Survey,
    planned: Sequence[Shard],
    beside: Sequence[ReferenceShard],
    tables: Sequence[str],
    work: Run,
    workers: int | None,
    client: "Client | None",
) -> list[ShardResult]:
    """Have all shards written, categories last: they count the others."""
    tasks = list(_tasks(survey, planned, beside, tables, work))
    elsewhere = on_cluster(client, shared_view(work.file, survey))
    results = list(run(tasks, workers, "build", elsewhere, meanwhile=import_what_draws))
    for shard in beside:
        if shard.config == "categories":
            results.append(references.write_categories(survey, shard, results, work))
    return results


def _has_rows(sizes: Sizes, tables: Sequence[str]) -> bool:
    """Whether there is anything to publish: of pictures, if any are asked for."""
    of_pictures = set(tables) - set(REFERENCE_TABLES)
    return bool(sizes.keys() - set(REFERENCE_TABLES) if of_pictures else sizes)


def build_key(survey: Survey, tables: Sequence[str], options: Mapping[str, Any]) -> str:
    """What the bytes of a build depend on: input, options, code and the libraries that read and write."""
    parts = {
        "raw": survey.fingerprint,
        "tables": list(tables),
        "options": dict(options),
        "code": code_fingerprint(),
        "libraries": [
            *(pa.__version__, datasets.__version__, np.__version__, *pixels.libraries()),
            *(cad.libraries() if "cad" in tables else ()),
        ],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _full_disk_named(folder: Place) -> Iterator[None]:
    """Say what to do where the operating system only says that there is no room."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise BuildError(
            f"{folder}: {error.strerror}; make room there and run the same command again to go on"
        ) from error


def _check_unchanged(survey: Survey, fingerprint: str, work: Run) -> None:
    """Throw the shards away if the input changed while it was read: nothing tells old rows from new."""
    if fingerprint != survey.fingerprint:
        clear(work)
        raise BuildError(
            f"{survey.release.tree.path}: it, its captions or its corrections changed while they were read; "
            "run the same command again to build afresh"
        )


def _check_undisturbed(work: Run, results: Iterable[ShardResult]) -> None:
    """On a store, which has no locks: all files still are ours, or another build was at work meanwhile.

    Two builds with the same key write the same bytes and do not disturb each other.
    """
    if isinstance(work.folder, Path):
        return
    found = files_below(work.folder)
    for file in (file for result in results for file in result.files.values()):
        if not is_whole(work.folder, file, found.get(file.path)):
            raise BuildError(
                f"{work.folder / file.path}: changed since it was written; if another build is at work in "
                "this folder, wait for it or name another folder, then run the same command again"
            )
    work.check("the card")


def _tables(survey: Survey, configs: Sequence[str]) -> list[str]:
    """The configs that need files of their own, in the order of ALL_TABLES."""
    if "captions" in configs and not survey.has_captions:
        raise ReleaseError(
            f"{survey.release.tree.path} comes without captions; give them with --captions DIR"
        )
    wanted = {"pose" if name.startswith("open_vocab") else name for name in configs or PUBLISHED_CONFIGS}
    if not survey.has_captions:
        wanted.discard("captions")
    return [name for name in ALL_TABLES if name in wanted]


def _tasks(
    survey: Survey,
    planned: Sequence[Shard],
    beside: Sequence[ReferenceShard],
    tables: Sequence[str],
    work: Run,
) -> Iterator[Task[ShardResult]]:
    """What workers do, what takes longest first; categories are counted after it."""
    for part in beside:
        if part.config == "cad":
            arguments = (survey.release, part, work)
            yield Task(references.write_meshes, arguments, len(part.meshes), part.name, "meshes")
    of_pictures = [name for name in tables if name not in REFERENCE_TABLES]
    if _reads_pictures(tables):
        for shard in planned:
            task = (survey.release, shard, of_pictures, work)
            yield Task(shards.write_shard, task, len(shard.entries), shard.name)
        yield from count_tasks(survey, of_pictures)


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


def _manifest_of_shards(
    work: Run,
    options: Mapping[str, Any],
    planned: Sequence[Shard],
    results: Iterable[ShardResult],
    report: Report,
) -> Manifest:
    """The manifest but for what tells of the shards: their checksums, and the accounts."""
    files = (file for result in results for file in result.files.values())
    return Manifest(
        version=ImageNet3D.__version__,
        options=options,
        files={f.path: Listed(f.size, f.sha256, f.rows, f.table_bytes) for f in files},
        shards={shard.name: len(shard.entries) for shard in planned},
        books=report.books,
        categories=report.categories,
        pictures=report.pictures,
        objects=report.objects,
        findings=finding_counts(report.findings),
    )


def _describe(work: Run, files: Collection[str], survey: Survey, manifest: Manifest) -> list[str]:
    """Write what tells of the shards, the card last; the paths."""
    with stage("build: draws figures"):
        plots = draw_figures(work.folder)
    contents = {figure.path: figure.svg for figure in (*plots, camera_figure())}
    if survey.corrections:
        contents[CORRECTIONS] = ImageNet3D.corrections_text(survey.corrections).encode()
    described = describe(manifest, plots, survey.corrections, survey.release.categories)
    contents |= render_pages(described)
    work.begin({*files, *contents})
    for path, content in contents.items():
        write_whole(work.folder / path, content)
    return list(contents)


def _write_manifest(work: Run, manifest: Manifest, pages: Sequence[str]) -> None:
    """Add what is to be published besides the shards, as it came to stand there."""
    contents = zip(pages, read_all(work.folder, pages), strict=True)
    listed = {path: Listed(len(data), hashlib.sha256(data).hexdigest()) for path, data in contents}
    whole = replace(manifest, files={**manifest.files, **listed})
    write_whole(work.folder / MANIFEST, whole.to_json())
