"""Proves a built folder: every file, row group, picture and count, and with the raw release every value.

The checks are listed in `CHECKS`, each with a stable code, its rule and what to do. They run from the outside
in: a file whose bytes are not those that were written is not looked into further.

What only the checksums find, should the manifest be rewritten along with a shard: a changed number that is
still a plausible one, and a changed bit of a picture that decodes all the same. With the raw release these
are found too, but for changes in the pixels of a crop or a thumbnail that are no larger than rounding.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from os import PathLike

import datasets
from huggingface_hub import DatasetCard

import ImageNet3D
from ImageNet3D import RawTree, ReleaseError, Survey
from processing.build.plan import LEFT_OUT_BATCH
from processing.built import (
    ALL_TABLES,
    CARD,
    CORRECTIONS,
    LEDGER,
    MANIFEST,
    PICTURE_TABLES,
    REFERENCE_TABLES,
    SHARD_NAME,
    Built,
    UnfinishedError,
    finding_counts,
    read_built,
    table_of,
)
from processing.ledger import label_names
from processing.runtime.cluster import joined, there, view_of
from processing.runtime.store import Place, place, read_columns
from processing.runtime.strict import DamagedError
from processing.runtime.tasks import Task, run
from processing.verify.checks import VIEWER_PAGE_BYTES, VIEWER_PAGE_ROWS, Problem, ShardFacts
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
        out: the built folder, local or the URL of an object store's.
        raw: the raw release, to compare every value with.
        captions: as given to the build.
        workers: processes; as many as there are cores by default.
        scheduler: of a Dask cluster that does the work instead: its address or the path of its file.

    Returns:
        What is wrong, by file; nothing where all is well.

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
    with joined(scheduler) as client:
        elsewhere = there(client, view_of(built.folder / MANIFEST, survey))
        facts: list[ShardFacts] = list(run(_tasks(built, survey), workers, "verify", elsewhere))
    seen = _all_seen(facts)
    tables = manifest.tables
    across: list[Iterable[Problem]] = [
        check_listing(built),
        check_names(built),
        check_pictures_once(facts),
        check_books(built, seen.rows),
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
    lacks_images = "captions" in built.manifest.tables and not survey.has_captions
    if lacks_images or (not survey.release.category_captions and _has_category_captions(built)):
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
        arguments = (built.folder, path, listed[path], release, meshes)
        tasks.append(Task(check_reference, arguments, 1, path))
    apart = {path for paths in shards.values() for path in paths.values()} | set(beside)
    others = {path: entry for path, entry in listed.items() if path not in apart}
    tasks.append(Task(check_files, (built.folder, others), 1, "other files"))
    missing = list(entries.values()) if built.manifest.shards else []
    for start in range(0, len(missing), LEFT_OUT_BATCH):
        batch = missing[start : start + LEFT_OUT_BATCH]
        arguments = (release, batch, of_pictures, built.ledger)
        tasks.append(Task(check_left_out, arguments, len(batch), "pictures that no shard has"))
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


_SHOWN = 5  # problems of one kind in one file


def _shortened(problems: Sequence[Problem]) -> Iterator[Problem]:
    """The first few of each kind in each file, and how many more there are."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((problem.file, problem.code), []).append(problem)
    for (file, code), same in kinds.items():
        yield from same[:_SHOWN]
        if len(same) > _SHOWN:
            yield Problem(file, code, f"… and {len(same) - _SHOWN:,} more")


# --------------------------------------------------------------------------------------------------------
# Across shards
# --------------------------------------------------------------------------------------------------------


def check_nothing_lost(built: Built, survey: Survey) -> Iterator[Problem]:
    """What the lists leave out is in the ledger; the rest is in a shard or was seen by `check_left_out`."""
    given = {(finding.file, finding.reason) for _, finding in built.ledger or ()}
    for entry in survey.left_out if built.ledger is not None else ():
        if (entry.picture_file, entry.reason) not in given:
            yield Problem(entry.split or "unlisted", "raw_picture_lost", f"{entry.image_id}: {entry.reason}")


def check_listing(built: Built) -> Iterator[Problem]:
    """The folder holds what the manifest lists, and nothing else."""
    present = set(built.files())
    for path in built.manifest.files:
        if path not in present:
            yield Problem(path, "file_missing")
    for path in present - built.manifest.files.keys() - {MANIFEST}:
        yield Problem(path, "file_unlisted")


def check_names(built: Built) -> Iterator[Problem]:
    """Shards are numbered through, over both kinds."""
    numbers: dict[tuple[str, str], list[int]] = {}
    for name in built.manifest.shards:
        if (match := SHARD_NAME.fullmatch(name)) is None:
            yield Problem(name, "shard_name")
            continue
        numbers.setdefault((match[1], match[3]), []).append(int(match[2]))
    for (split, total), found in numbers.items():
        if sorted(found) != list(range(int(total))):
            yield Problem(split, "shard_name", f"{len(found)} shards of {int(total)}")
    for path in built.manifest.files:
        config, _, name = path.removesuffix(".parquet").partition("/")
        if config in PICTURE_TABLES and name not in built.manifest.shards:
            yield Problem(path, "shard_name", "not planned")


def check_pictures_once(facts: Iterable[ShardFacts]) -> Iterator[Problem]:
    """A picture is in one shard, and so in one split."""
    seen: dict[str, str] = {}
    for fact in facts:
        for image_id in sorted(fact.image_ids):
            first = seen.setdefault(image_id, fact.name)
            if first != fact.name:
                same = first.partition("-")[0] == fact.name.partition("-")[0]
                yield Problem(
                    fact.name, "key_duplicate" if same else "split_overlap", f"{image_id}, also in {first}"
                )


def check_books(built: Built, rows: Mapping[str, int]) -> Iterator[Problem]:
    """Rows are as many as were written, the books balance, and the ledger has every finding.

    Args:
        rows: path -> rows.
    """
    manifest = built.manifest
    for path, entry in manifest.files.items():
        if path in rows and rows[path] != entry.rows:
            yield Problem(path, "books", f"{rows[path]:,} rows, {entry.rows:,} written")
    for (config, split), account in manifest.books.accounts.items():
        where = f"{config} {split or 'unlisted'}"
        if not account.balanced:
            yield Problem(where, "books", "read is not written + left out")
        if config in ALL_TABLES:
            paths = [path for path in manifest.paths_of(config) if path.startswith(f"{config}/{split}-")]
            if (listed := sum(manifest.files[path].rows for path in paths)) != account.written and split:
                yield Problem(where, "books", f"{listed:,} rows are listed, {account.written:,} written")
    if built.ledger is not None and finding_counts(built.ledger) != manifest.findings:
        yield Problem(LEDGER, "books", "the ledger has other findings than the manifest counts")


def check_card(built: Built, seen: ShardFacts) -> Iterator[Problem]:
    """The card's YAML names the features, files and counts of every config, within the viewer's limits."""
    try:
        card = DatasetCard((built.folder / CARD).read_text("utf-8")).data
        infos = datasets.info.DatasetInfosDict.from_dataset_card_data(card)
        patterns = {c["config_name"]: {f["split"]: f["path"] for f in c["data_files"]} for c in card.configs}
        counts = {c: {s: split.num_examples for s, split in infos[c].splits.items()} for c in infos}
    except Exception as error:  # YAML that anyone may have edited fails in many ways
        yield Problem("README.md", "card", f"{type(error).__name__}: {error}")
        return
    for config in (name for name in ImageNet3D.PUBLISHED_CONFIGS if name in counts.keys() | patterns.keys()):
        if counts.get(config, {}).keys() != patterns.get(config, {}).keys():
            yield Problem("README.md", "card", f"configs and dataset_info name other splits of {config}")
            continue
        names = label_names(infos[config].features.arrow_schema)
        if infos[config].features != ImageNet3D.config_features(config, names):
            yield Problem("README.md", "card", f"the features of {config}")
        for split, pattern in patterns[config].items():
            files = built.matching(pattern)
            if files != built.files_of(config, split):
                yield Problem("README.md", "card", f"{config} {split} shows {pattern}")
            elif seen.rows.keys() >= set(files):  # else one could not be read, which is said already
                yield from _check_split(f"{config} {split}", files, counts[config][split], seen)
    written = {table for table in built.manifest.tables if built.manifest.paths_of(table)}
    for table in written - {table_of(config) for config in patterns}:
        yield Problem("README.md", "card", f"no config shows {table}")


def _check_split(where: str, files: Sequence[str], expected: int, seen: ShardFacts) -> Iterator[Problem]:
    """One split of a config: its count, and what the viewer makes of it."""
    if (total := sum(seen.rows[path] for path in files)) != expected:
        yield Problem("README.md", "card", f"{where}: {total:,} rows, the card says {expected:,}")
    if not total:
        yield Problem(where, "viewer_empty_split")
    yield from check_pages(where, [size for path in files for size in seen.row_groups[path]])
    values: Counter[str] = Counter()
    for path in files:
        values.update(seen.values.get(path, {}))
    if lone := [column for column, count in values.items() if count == 1]:
        yield Problem(where, "viewer_lone_value", ", ".join(lone))


def check_pages(where: str, row_groups: Sequence[tuple[int, int]]) -> Iterator[Problem]:
    """No page of the viewer lies in row groups of more bytes than it fetches.

    Args:
        row_groups: (rows, bytes) of each, in the order of the split.
    """
    ends = list(itertools.accumulate(rows for rows, _ in row_groups))
    starts = [0, *ends[:-1]]
    total = ends[-1] if ends else 0
    worst = (0, 0)
    first = 0
    for page in range(0, total, VIEWER_PAGE_ROWS):
        while ends[first] <= page:
            first += 1
        size = 0
        for number in range(first, len(row_groups)):
            if starts[number] >= page + VIEWER_PAGE_ROWS:
                break
            size += row_groups[number][1]
        worst = max(worst, (size, page))
    if worst[0] > VIEWER_PAGE_BYTES:
        yield Problem(where, "viewer_page", f"rows from {worst[1]:,} on: {worst[0]:,} bytes")
