"""The command `crop`: crops as files, in the layout that existing training code reads.

    <split>/images/<category>/<image_id>_<object_index:02d>.JPEG
    <split>/annotations/<category>/<image_id>_<object_index:02d>.npz    one object's fields, see `npz_fields`
    <split>/lists/<category>/mesh01.txt                                 names without ending, one a line

with split `train` or `val`. `docs/pixels.md` lists the fields.

A category of a split is the unit of work. Its two folders are written aside and get their names when they are
whole, the list after them and the marker last, so that running the same command again continues. An object
store cannot rename folders: there the files are written in their place, and the list, which names them, when
all are there. A category without crops in a split has neither folders nor list there: readers take an empty
list for one nameless crop.
"""

import hashlib
import json
import math
import shutil
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ImageNet3D
from ImageNet3D import SPLITS, Entry, Finding, Picture, RawTree, Release, Survey
from processing.build import shards
from processing.build.command import count_tasks
from processing.build.ownership import refuse_a_file
from processing.built import BuildError, Run, locked, read_run
from processing.crop import pixels
from processing.crop.pixels import Crop, CropOptions
from processing.ledger import NAME_TOO_LONG, Account, Report, ShardResult, report_of
from processing.runtime.cluster import joined, there, view_of
from processing.runtime.fingerprint import code_fingerprint
from processing.runtime.store import (
    Place,
    StorePath,
    attempt,
    files_below,
    names_in,
    place,
    remove_tree,
    write_all,
    write_whole,
)
from processing.runtime.tasks import Task, run

BOOKKEEPING = ".crop"  # in the folder of crops; hidden
LIST_NAME = "mesh01.txt"
KINDS = ("images", "annotations")  # the files of a crop, each in a folder of its own
MAX_NAME_BYTES = 255  # of a file, on all common file systems
BATCH = 64  # files that are sent to a store side by side
CONFIG = "object_centric"  # whose row rules hold for crops


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
) -> CropReport:
    """Write a crop of every object that has one.

    Args:
        raw: the raw release, a folder or zip, local or any fsspec URL.
        out: the folder to write, local or the URL of an object store's; new, empty, or begun by this command.
        workers: processes; as many as there are cores where None. The bytes do not depend on it.
        scheduler: of a Dask cluster that does the work instead: its address or the path of its file.
        corrections: files of corrections, which the objects have instead of the release's values.

    Raises:
        ReleaseError: if the raw release cannot be read as a whole.
        BuildError: if the folder is in use or not ours, or the release changed on the way.
        WorkerDiedError: if a worker process was killed.
        ClusterError: if the cluster cannot be used.
    """
    folder, options, tree = place(out), options or CropOptions(), RawTree(raw)
    refuse_a_file(folder)
    if (held := names_in(folder)) and BOOKKEEPING not in held:
        raise BuildError(f"{folder}: holds files that no crop made; name another folder")
    with joined(scheduler) as client, locked(folder, BOOKKEEPING):
        survey = ImageNet3D.survey(tree, corrections=corrections)
        work = Run(folder, _key(survey, options), BOOKKEEPING)
        begun = read_run(folder, BOOKKEEPING)
        replaced = begun is not None and begun.key != work.key
        _prepare(work, anew=begun is None or replaced)
        tasks = [*_category_tasks(survey, options, work), *count_tasks(survey, [CONFIG])]
        results = list(run(tasks, workers, "crop", there(client, view_of(work.file, survey))))
        if ImageNet3D.fingerprint(RawTree(raw), None, corrections) != survey.fingerprint:
            _clear(work)
            raise BuildError(f"{raw}: changed while it was read; run the same command again to start afresh")
        report = report_of(survey, results)
        report.books.check()
        write_whole(folder / BOOKKEEPING / "ledger.jsonl", report.ledger())
    return CropReport(report, _lacking(folder), replaced)


def _lacking(folder: Place) -> dict[str, tuple[str, ...]]:
    """Split -> categories that only the other split has crops of."""
    found = {
        split: {path.partition("/")[0] for path in files_below(folder / split / "lists")}
        for split in SPLITS.values()
    }
    every = set().union(*found.values())
    return {split: tuple(sorted(every - categories)) for split, categories in found.items()}


def _key(survey: Survey, options: CropOptions) -> str:
    """What the files depend on: input, options, code, and the libraries that decode and encode."""
    parts = [survey.fingerprint, repr(options), code_fingerprint()]
    return hashlib.sha256(json.dumps([*parts, *pixels.libraries()]).encode()).hexdigest()


def _prepare(work: Run, anew: bool) -> None:
    """Make the folder ready: continue, or clear what another command left."""
    if isinstance(work.folder, Path):
        shutil.rmtree(work.folder / BOOKKEEPING / "tmp", ignore_errors=True)
    if anew:
        _clear(work)
    work.begin()


def _clear(work: Run) -> None:
    """Remove all crops, the markers first, so that nothing half-removed is taken for finished."""
    work.file.unlink(missing_ok=True)  # no worker of an earlier command writes more
    for name in (f"{BOOKKEEPING}/done", *SPLITS.values()):
        remove_tree(work.folder / name)


def _category_tasks(survey: Survey, options: CropOptions, work: Run) -> Iterator[Task[ShardResult]]:
    for entries in survey.entries.values():
        ordered = sorted(entries, key=lambda e: (e.category, e.stem))
        for _, group in groupby(ordered, key=lambda e: e.category):
            pictures = tuple(group)
            arguments = (survey.release, pictures, options, work)
            name = f"{SPLITS[pictures[0].split]}-{pictures[0].category}"
            yield Task(write_category, arguments, len(pictures), name)


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
        ReplacedError: if another command has begun in the folder.
    """
    split, category, folder = SPLITS[entries[0].split], entries[0].category, work.folder
    name = f"{split}-{category}"
    if (done := _finished(work, name, folder / split, category)) is not None:
        return done
    result = ShardResult(name, entries[0].split, entries[0].known)
    aside = folder / BOOKKEEPING / "tmp" / f"{result.name}.{attempt()}"
    on_disk = isinstance(folder, Path)
    try:
        target = aside if on_disk else _Batches(folder / split, category)
        names = write_crops(release, entries, options, target, result)
        work.check(name)
        if (done := _finished(work, name, folder / split, category)) is not None:
            return done  # two workers were at it, because one was taken for dead
        if on_disk:
            _give_names(aside, folder / split, category, names)
        if names:
            _write(aside, folder / split / "lists" / category / LIST_NAME, "\n".join(names).encode())
        work.finish(result)
    finally:
        if on_disk:
            shutil.rmtree(aside, ignore_errors=True)
    return result


def write_crops(
    release: Release,
    entries: Sequence[Entry],
    options: CropOptions,
    target: "Path | _Batches",
    result: ShardResult,
) -> list[str]:
    """Write the two files of every crop of a category.

    Args:
        target: a folder that is made for them, or what sends them to a store.
        result: gets the account and the findings.

    Returns:
        The files' names without ending, in order.
    """
    files = _NewFolder(target) if isinstance(target, Path) else target
    account = result.accounts[CONFIG] = Account()
    names: list[str] = []
    step = ImageNet3D.CHUNK
    chunks = (entries[start : start + step] for start in range(0, len(entries), step))
    for near, entry in ((near, entry) for near, chunk in release.fetched_ahead(chunks) for entry in chunk):
        findings: list[Finding] = []
        for picture in shards.read_group(near, [entry], [CONFIG], result):
            for crop in pixels.crops(picture, options, findings):
                name = f"{picture.entry.stem}_{crop.item.index:02d}"
                if len(f"{name}.JPEG".encode()) > MAX_NAME_BYTES:
                    account.left_out[NAME_TOO_LONG] += 1
                    continue
                files.write("images", f"{name}.JPEG", crop.jpeg())
                files.write("annotations", f"{name}.npz", npz(npz_fields(name, picture, crop)))
                names.append(name)
        result.findings += findings
        account.left_out.update(finding.reason for finding in findings)
    files.finish()
    account.written = len(names)
    return names


class _NewFolder:
    """A folder of this machine with one for each kind of file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for kind in KINDS:
            (folder / kind).mkdir(parents=True)

    def write(self, kind: str, name: str, data: bytes) -> None:
        with open(self._folder / kind / name, "xb", buffering=0) as file:  # noqa: PTH123 - as fast as it gets
            file.write(data)

    def finish(self) -> None:
        pass


class _Batches:
    """A category's folders on a store; files are sent side by side, since each takes its time to arrive."""

    def __init__(self, folder: StorePath, category: str) -> None:
        self._folder, self._category = folder, category
        self._waiting: dict[str, bytes] = {}

    def write(self, kind: str, name: str, data: bytes) -> None:
        self._waiting[f"{kind}/{self._category}/{name}"] = data
        if len(self._waiting) == BATCH:
            self.finish()

    def finish(self) -> None:
        write_all(self._folder, self._waiting)
        self._waiting = {}


def _give_names(aside: Path, folder: Path, category: str, names: Sequence[str]) -> None:
    """Move finished folders to their place, in the stead of what an interrupted run left there.

    A folder that is there with files of the same names and sizes is that of another worker, at the same task
    because this one was taken for dead, and stays: to replace it would leave a moment without it.
    """
    for kind in KINDS:
        new, final = aside / kind, folder / kind / category
        if final.exists():
            if names and files_below(new) == files_below(final):
                continue
            shutil.rmtree(final)
        if names:
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                new.replace(final)
            except OSError:
                if files_below(new) != files_below(final):  # else the other one was faster
                    raise


def _write(aside: Place, path: Place, data: bytes) -> None:
    """Write a file under its name at once; on a disk it may be lost with the power, as crops may."""
    if isinstance(path, StorePath):
        write_whole(path, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside / path.name
    temporary.write_bytes(data)
    temporary.replace(path)


def _finished(work: Run, name: str, folder: Place, category: str) -> ShardResult | None:
    """The result of a category that this command has finished already, if all its files still are there."""
    if (result := work.finished(name)) is None:
        return None
    written = result.accounts[CONFIG].written
    if not written:
        return result
    try:
        names = set((folder / "lists" / category / LIST_NAME).read_text("utf-8").split("\n"))
    except FileNotFoundError:
        return None
    # A machine that lost its power may leave empty files under their names.
    whole = all(
        names
        == {Path(name).stem for name, state in files_below(folder / kind / category).items() if state.size}
        for kind in KINDS
    )
    return result if whole and len(names) == written else None


# --------------------------------------------------------------------------------------------------------
# One crop's annotation
# --------------------------------------------------------------------------------------------------------


def npz_fields(name: str, picture: Picture, crop: Crop) -> dict[str, NDArray[np.generic]]:
    """What the npz of a crop holds; `docs/pixels.md` says what each field means.

    padding_params and cropping_params are six numbers: what is added and what is cut, after resizing, at the
    top, bottom, left and right, and twice 0 for the channels; not whole pixels, since the map is exact. So
    crop = picture · resize_rate + padding - cropping, as code in the wild inverts it, with these of the top
    for y and of the left for x.
    """
    item, cropped = crop.item, crop.place.annotation(crop.item)
    scale, (left, top) = crop.place.scale, crop.place.offset
    right = crop.image.width - (left + picture.width * scale)
    bottom = crop.image.height - (top + picture.height * scale)
    margins = (top, bottom, left, right)
    numbers = {
        "bbox": cropped.bbox,
        "bbox_original": item.bbox,
        "principal": (cropped.px, cropped.py),
        "principal_original": (item.px, item.py),
        "px": cropped.px,
        "py": cropped.py,
        "px_original": item.px,
        "py_original": item.py,
        "distance": cropped.distance,
        "distance_original": item.distance,
        "azimuth": item.azimuth,
        "elevation": item.elevation,
        "theta": item.theta,
        "viewport": item.viewport,
        "padding_params": (*(max(margin, 0.0) for margin in margins), 0.0, 0.0),
        "cropping_params": (*(max(-margin, 0.0) for margin in margins), 0.0, 0.0),
        "resize_rate": scale,
    }
    return {
        "name": np.array(name),
        **{field: np.array(value, np.float64) for field, value in numbers.items()},
        "cad_index": np.array(item.cad_index or 0, np.int64),
        "focal": np.array(1, np.int64),
        "class": np.array(picture.entry.category),
    }


_DATE = (1980 - 1980) << 9 | 1 << 5 | 1  # 1 January 1980, as MS-DOS packs it: the same bytes every time


def npz(fields: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The bytes of an .npz that `numpy.load` reads without pickle: stored, not compressed.

    `numpy.savez` takes as long as encoding a crop does, for twenty arrays of one number. This writes the
    same format (PKWARE's APPNOTE 6.3.3, sections 4.3.7, 4.3.12 and 4.3.16) at a tenth of that.

    Args:
        fields: name -> array of numbers or text; together well below 4 GB.
    """
    members: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for field, array in fields.items():
        name = f"{field}.npy".encode()
        data = _npy_header(array.dtype.str, array.shape) + array.tobytes()
        common = struct.pack(
            "<5H3L2H", 20, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(name), 0
        )
        members += [b"PK\3\4", common, name, data]
        directory += [b"PK\1\2\x14\0", common, struct.pack("<3H2L", 0, 0, 0, 0, offset), name]
        offset += 4 + len(common) + len(name) + len(data)
    size = sum(map(len, directory))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(fields), len(fields), size, offset, 0)
    return b"".join([*members, *directory, end])


@lru_cache(maxsize=256)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of version 1.0 of the .npy format, padded to a multiple of 64 bytes."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    length = 64 * math.ceil((len(text) + 11) / 64)
    return b"\x93NUMPY\1\0" + struct.pack("<H", length - 10) + text.ljust(length - 11).encode() + b"\n"
