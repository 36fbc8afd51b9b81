"""Proves a built folder: every file, row group, picture and count, and with the raw release every value.

The checks are listed in `CHECKS`, each with a stable code, its rule and what to do. They run from the outside
in: a file whose bytes are not those that were written is not looked into further. What they need is in the
manifest, which is published with the folder: a download from the Hub is verified like what was built.

What only the checksums find, should the manifest be rewritten along with a shard: a changed number that is
still a plausible one, and a changed bit of a picture that decodes all the same. With the raw release these
are found too, but for changes in the pixels of a crop or a thumbnail that are no larger than rounding.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from os import PathLike

import ImageNet3D
from ImageNet3D import RawTree, ReleaseError, Survey
from processing.build.plan import LEFT_OUT_BATCH
from processing.built import CORRECTIONS, MANIFEST, Built, UnfinishedError, read_built
from processing.configs import PICTURE_TABLES, REFERENCE_TABLES
from processing.runtime.cluster import connected, on_cluster, shared_view
from processing.runtime.paths import Place, place
from processing.runtime.store import read_columns
from processing.runtime.strict import DamagedError
from processing.runtime.tasks import Task, run
from processing.verify.checks import Problem, ShardFacts
from processing.verify.folder import (
    check_books,
    check_card,
    check_listing,
    check_names,
    check_pictures_once,
    check_version,
)
from processing.verify.raw import check_left_out
from processing.verify.references import (
    check_categories,
    check_category_rows,
    check_meshes,
    check_reference,
    meshes_by_key,
)
from processing.verify.shard import check_files, check_shard


def verify(
    out: str | PathLike[str],
    raw: str | None = None,
    captions: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> list[Problem]:
    """Check a built folder.

    Args:
        out: the built folder, local, the URL of an object store's, or a download from the Hub.
        raw: the raw release, to compare every value with.
        captions: as given to the build.
        workers: processes; as many as there are cores by default.
        scheduler: of a Dask cluster that does the work instead: its address or the path of its file.

    Returns:
        What is wrong, and notes, by file; nothing where all is well.

    Raises:
        PlaceError: if there is no such folder, or none that was built.
        ReleaseError: if the raw release cannot be read as a whole, or comes without captions that rows have.
        WorkerDiedError: if a worker process was killed.
        ClusterError: if the cluster cannot be used.
    """
    folder = place(out)
    try:
        built = read_built(folder)
    except UnfinishedError as error:
        return [Problem(str(folder), "unfinished", str(error))]
    except DamagedError as error:
        return [Problem(str(folder), "bookkeeping_damaged", str(error))]
    manifest = built.manifest
    survey = _survey(built, raw, captions) if raw is not None else None
    with connected(scheduler) as client:
        elsewhere = on_cluster(client, shared_view(built.folder / MANIFEST, survey))
        facts: list[ShardFacts] = list(run(_tasks(built, survey), workers, "verify", elsewhere))
    seen = _all_seen(facts)
    tables = manifest.tables
    across: list[Iterable[Problem]] = [
        check_listing(built),
        check_names(built),
        check_pictures_once(facts),
        check_books(built, seen.rows),
        check_version(built),
        check_card(built, seen),
    ]
    read = [config for config in tables if all(path in seen.rows for path in manifest.paths_of(config))]
    if "cad" in read:
        across.append(check_meshes(seen.meshes, survey, built.ledger))
    if "categories" in read:
        across.append(
            check_categories(seen.category_rows, manifest.categories, seen.categories, tables, read)
        )
        if survey is not None:
            across.append(check_category_rows(seen.category_rows, manifest.categories, survey, tables))
    if survey is not None and tables != ["cad"]:
        across.append(check_nothing_lost(built, survey))
    return sorted(_shortened([*seen.problems, *itertools.chain.from_iterable(across)]))


def _all_seen(facts: Iterable[ShardFacts]) -> ShardFacts:
    """What was seen in all files together."""
    seen = ShardFacts()
    for fact in facts:
        seen.problems += fact.problems
        seen.rows |= fact.rows
        seen.row_groups |= fact.row_groups
        seen.values |= fact.values
        seen.meshes += fact.meshes
        seen.category_rows += fact.category_rows
        seen.categories.add(fact.categories)
    return seen


def _survey(built: Built, raw: str, captions: str | None) -> Survey:
    published = [str(built.folder / CORRECTIONS)] if CORRECTIONS in built.present else []
    survey = ImageNet3D.survey(RawTree(raw), captions, corrections=published)
    lacks_captions = "captions" in built.manifest.tables and not survey.has_captions
    if lacks_captions or (not survey.release.category_captions and _has_category_captions(built)):
        raise ReleaseError(f"{raw} comes without captions and {built.folder} has them; give --captions DIR")
    return survey


def _has_category_captions(built: Built) -> bool:
    """Whether any category has a caption; False where that cannot be read, which its own check says."""
    for path in built.manifest.paths_of("categories"):
        with suppress(Exception):  # damaged Parquet fails in many ways
            column = read_columns(built.folder / path, ["caption"])["caption"]
            if column.null_count < len(column):
                return True
    return False


def _tasks(built: Built, survey: Survey | None) -> list[Task["ShardFacts"]]:
    """A task for each shard, one for all other files, and with the raw release more for what no shard has."""
    shards, listed = built.shards(), built.manifest.files
    of_pictures = [table for table in built.manifest.tables if table in PICTURE_TABLES]
    entries = {e.image_id: e for split in survey.entries.values() for e in split} if survey else {}
    release = survey.release if survey else None
    tasks = []
    for name, paths in shards.items():
        own = {path: listed[path] for path in paths.values()}
        ids = _image_ids(built.folder, paths.values()) if survey else []
        its = {image_id: entries.pop(image_id) for image_id in ids if image_id in entries}
        arguments = (built.folder, name, paths, own, of_pictures, release, its)
        tasks.append(Task(check_shard, arguments, built.manifest.shards.get(name, 1), name))
    meshes = meshes_by_key(survey) if survey else {}
    beside = [path for table in REFERENCE_TABLES for path in built.manifest.paths_of(table)]
    for path in sorted(beside):
        tasks.append(Task(check_reference, (built.folder, path, listed[path], release, meshes), 1, path))
    apart = {path for paths in shards.values() for path in paths.values()} | set(beside)
    others = {path: entry for path, entry in listed.items() if path not in apart}
    tasks.append(Task(check_files, (built.folder, others), 1, "other files"))
    missing = list(entries.values()) if built.manifest.shards else []
    for start in range(0, len(missing), LEFT_OUT_BATCH):
        batch = missing[start : start + LEFT_OUT_BATCH]
        what = (release, batch, of_pictures, _given(built))
        tasks.append(Task(check_left_out, what, len(batch), "pictures that no shard has"))
    return tasks


def _image_ids(folder: Place, paths: Iterable[str]) -> dict[str, None]:
    """The pictures of a shard; none of a file that cannot be read, which its own check says."""
    ids: dict[str, None] = {}
    for path in paths:
        try:
            ids.update(dict.fromkeys(read_columns(folder / path, ["image_id"])["image_id"].to_pylist()))
        except Exception:  # noqa: S112 - damaged Parquet fails in many ways
            continue
    return ids


_SHOWN = 20  # problems of one kind in one file


def _shortened(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The first few of each kind in each file, and how many more there are."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.file, problem.code), []).append(problem)
    for (file, code), same in kinds.items():
        yield from same[:_SHOWN]
        if len(same) > _SHOWN:
            yield Problem(
                file, code, f"and {len(same) - _SHOWN:,} more; {_SHOWN} of a kind and file are shown"
            )


def _given(built: Built) -> set[tuple[str, str]] | None:
    """File and reason of all that the ledger says; None where there is no ledger, as on the Hub."""
    if built.ledger is None:
        return None
    return {(finding.file, finding.reason) for _, finding in built.ledger}


def check_nothing_lost(built: Built, survey: Survey) -> Iterator[Problem]:
    """What the lists leave out is in the ledger; the rest is in a shard or was seen by `check_left_out`."""
    if (given := _given(built)) is None:
        return
    for entry in survey.left_out:
        if (entry.picture_file, entry.reason) not in given:
            yield Problem(entry.split or "unlisted", "raw_picture_lost", f"{entry.image_id}: {entry.reason}")
