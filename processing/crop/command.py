"""The command `crop`: crops as files, in the layout that existing training code reads.

    <split>/images/<category>/<image_id>_<object_index:02d>.JPEG
    <split>/annotations/<category>/<image_id>_<object_index:02d>.npz    one object's fields
    <split>/lists/<category>/mesh01.txt                                 names without ending, one a line

with split `train` or `val`. `docs/crops.md` lists the fields, and `npz` makes them.

A category of a split is the unit of work. Its list, which names its files, is written when all of them are
there, and its marker last, so that running the same command again continues. A category without crops in a
split has neither folders nor list there: readers take an empty list for one nameless crop.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import ImageNet3D
from ImageNet3D import SPLITS, Entry, Finding, RawTree, Release, Survey
from processing.accounts import NAME_TOO_LONG, Account
from processing.build import shards
from processing.build.command import count_tasks
from processing.build.ownership import refuse_a_file
from processing.crop import pixels
from processing.crop.files import (
    HIDDEN,
    LIST_NAME,
    MAX_NAME_BYTES,
    CategoryFiles,
    clear,
    write_at_once,
    written_by_crops,
)
from processing.crop.npz import npz, npz_fields
from processing.crop.place import CropOptions
from processing.ledger import Report, ShardResult, report_of
from processing.run import BuildError, Run, locked, read_run
from processing.runtime.cluster import connected, on_cluster, shared_view
from processing.runtime.fingerprint import code_fingerprint
from processing.runtime.paths import Place, place
from processing.runtime.store import files_below, half_written, names_in, remove, write_whole
from processing.runtime.tasks import Task, run

CONFIG = "object_centric"  # whose row rules hold for crops
_MADE = f"{HIDDEN}/made.json"  # what the crops in a folder are, for people


@dataclass(frozen=True)
class CropReport:
    """What the command did.

    Attributes:
        report: accounts and findings, as of a build.
        lacking: split -> categories that only the other split has crops of.
        replaced: whether crops of other input, options or code were there.
    """

    report: Report
    lacking: Mapping[str, Sequence[str]]
    replaced: bool

    def __str__(self) -> str:
        notes = [
            f"{split} has no crops of {', '.join(names)}: code that numbers the categories by listing a "
            "folder numbers them differently there, unless it is given their names"
            for split, names in self.lacking.items()
            if names
        ]
        if self.replaced:
            notes.append("crops of other input, options or code were there and are replaced")
        return "\n\n".join([str(self.report), *notes])


def write_crop_tree(
    raw: str,
    out: str | Path,
    options: CropOptions | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    corrections: Sequence[str] = (),
    replace: bool = False,
) -> CropReport:
    """Write a crop of every object that has one.

    Args:
        raw: the raw release, a folder or zip, local or any fsspec URL.
        out: the folder to write, local or the URL of an object store's; new, empty, or begun by this command.
        workers: processes; as many as there are cores where None. The bytes do not depend on it.
        scheduler: of a Dask cluster that does the work instead: its address or the path of its file.
        corrections: files of corrections, which the objects have instead of the release's values.
        replace: remove the crops of other input, options or code that are in the folder.

    Raises:
        ReleaseError: if the raw release cannot be read as a whole.
        BuildError: if the folder is in use, not ours or holds other crops, or the release changed on the way.
        DamagedError: if a list of what was written is not as it was written.
        WorkerDiedError: if a worker process was killed.
        ClusterError: if the cluster cannot be used.
    """
    folder, options, tree = place(out), options or CropOptions(), RawTree(raw)
    refuse_a_file(folder)
    if (held := names_in(folder)) and HIDDEN not in held:
        raise BuildError(f"{folder}: holds files that no crop made; name another folder")
    with connected(scheduler) as client, locked(folder, HIDDEN):
        survey = ImageNet3D.survey(tree, corrections=corrections)
        work = Run(folder, _key(survey, options), HIDDEN)
        replaced = _prepare(work, options, replace)
        tasks = [*_category_tasks(survey, options, work), *count_tasks(survey, [CONFIG])]
        results = list(run(tasks, workers, "crop", on_cluster(client, shared_view(work.file, survey))))
        if ImageNet3D.fingerprint(RawTree(raw), None, corrections) != survey.fingerprint:
            clear(work)
            raise BuildError(f"{raw}: changed while it was read; run the same command again to start afresh")
        report = report_of(survey, results)
        report.books.check()
        write_whole(folder / HIDDEN / "ledger.jsonl", report.ledger())
    return CropReport(report, _lacking(results), replaced)


def _lacking(results: Sequence[ShardResult]) -> dict[str, tuple[str, ...]]:
    """Split -> categories that only the other split has crops of."""
    found: dict[str, set[str]] = {split: set() for split in SPLITS.values()}
    for result in results:
        if result.files:
            split, _, category = result.name.partition("-")
            found[split].add(category)
    every = set().union(*found.values())
    return {split: tuple(sorted(every - categories)) for split, categories in found.items()}


def _key(survey: Survey, options: CropOptions) -> str:
    """What the files depend on: input, options, code, and the libraries that decode and encode."""
    parts = [survey.fingerprint, str(options), code_fingerprint()]
    return hashlib.sha256(json.dumps([*parts, *pixels.libraries()]).encode()).hexdigest()


def _prepare(work: Run, options: CropOptions, replace: bool) -> bool:
    """Make the folder ready: continue, or clear what another command left.

    Returns:
        Whether other crops were there.

    Raises:
        BuildError: if they were, and are not to be replaced.
    """
    folder, begun = work.folder, read_run(work.folder, HIDDEN)
    other = begun is not None and begun.key != work.key
    if other and not replace and (held := written_by_crops(folder).intersection(files_below(folder))):
        raise BuildError(
            f"{folder}: holds {_made(folder)} in {len(held):,} files, and these would be {options}, of this "
            "release and this code; name another folder, or give --replace to remove those"
        )
    if begun is None or other:
        clear(work)
    if left := half_written(folder):
        remove(folder, left)
    write_whole(folder / _MADE, json.dumps(str(options)).encode())
    work.begin()
    return other


def _made(folder: Place) -> str:
    """What the crops in a folder are, in words."""
    try:
        return ImageNet3D.shown(json.loads((folder / _MADE).read_text("utf-8")))
    except (OSError, ValueError):
        return "other crops"


def _category_tasks(survey: Survey, options: CropOptions, work: Run) -> Iterator[Task[ShardResult]]:
    """A task for each category of a split; its pictures in the order of the release's list."""
    for entries in survey.entries.values():
        ordered = sorted(entries, key=lambda e: (e.category, e.position))
        for _, group in groupby(ordered, key=lambda e: e.category):
            pictures = tuple(group)
            name = f"{SPLITS[pictures[0].split]}-{pictures[0].category}"
            yield Task(write_category, (survey.release, pictures, options, work), len(pictures), name)


# --------------------------------------------------------------------------------------------------------
# One category of a split
# --------------------------------------------------------------------------------------------------------


def write_category(
    release: Release, entries: Sequence[Entry], options: CropOptions, work: Run
) -> ShardResult:
    """Write the crops of one category of a split.

    Args:
        entries: its pictures, at least one, in the order of the list.

    Raises:
        BuildError: if files of someone else's have names that crops need.
        ReplacedError: if another command has begun in the folder.
    """
    split, category = SPLITS[entries[0].split], entries[0].category
    name = f"{split}-{category}"
    folders = {kind: f"{split}/{kind}/{category}" for kind in ("images", "annotations", "lists")}
    if (done := work.finished(name, folders.values())) is not None:
        return done
    result = ShardResult(name, entries[0].split, entries[0].known)
    files = CategoryFiles(work, name, folders.values())
    names = write_crops(release, entries, options, files, folders, result)
    if names:
        files.flush()  # the list names what is there
        files.write(f"{folders['lists']}/{LIST_NAME}", "\n".join(names).encode())
    files.finish()
    result.files = files.written
    work.finish(result, write_at_once)
    return result


def write_crops(
    release: Release,
    entries: Sequence[Entry],
    options: CropOptions,
    files: CategoryFiles,
    folders: Mapping[str, str],
    result: ShardResult,
) -> list[str]:
    """Write the two files of every crop of a category.

    Args:
        folders: kind of file -> folder.
        result: gets the account and the findings.

    Returns:
        The files' names without ending, in order.
    """
    account = result.accounts[CONFIG] = Account()
    names: list[str] = []
    step = ImageNet3D.CHUNK
    chunks = (entries[start : start + step] for start in range(0, len(entries), step))
    for near, entry in ((near, entry) for near, chunk in release.fetched_ahead(chunks) for entry in chunk):
        findings: list[Finding] = []
        for picture in shards.read_group(near, [entry], [CONFIG], result):
            for crop in pixels.crops(picture, options, findings, account.left_out):
                name = f"{picture.entry.stem}_{crop.item.index:02d}"
                if len(f"{name}.JPEG".encode()) > MAX_NAME_BYTES:
                    account.left_out[NAME_TOO_LONG] += 1
                    continue
                files.write(f"{folders['images']}/{name}.JPEG", crop.jpeg())
                files.write(f"{folders['annotations']}/{name}.npz", npz(npz_fields(name, picture, crop)))
                names.append(name)
        result.findings += findings
    account.written = len(names)
    return names
