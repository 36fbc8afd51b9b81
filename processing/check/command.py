"""The command `check`: looks through a raw release, before anything is built of it."""

from __future__ import annotations

from collections.abc import Iterator

import ImageNet3D
from ImageNet3D import MAX_PICTURE_BYTES, Entry, Finding, RawTree, Survey
from processing.check.report import Check
from processing.check.tally import BATCH, Tally, tally_annotations
from processing.runtime.tasks import Task, run


def check(raw: str, *, captions: str | None = None, workers: int | None = None) -> Check:
    """Read names, lists, captions and annotations of a raw release; open no picture and write nothing.

    Args:
        raw: the raw release, a folder or zip, local or any fsspec URL.
        captions: a folder with captions; without it they are looked for inside and beside the release.
        workers: processes; as many as there are cores by default.

    Raises:
        ReleaseError: if the raw release cannot be read as a whole.
        WorkerDiedError: if a worker process was killed.
    """
    tree = RawTree(raw)
    survey = ImageNet3D.survey(tree, captions)
    tally = Tally()
    tally.note(survey.findings)
    tally.note(Finding(entry.reason, entry.picture_file) for entry in survey.left_out)
    tally.note(_pictures_gone(tree, survey))
    for part in run(list(_tasks(survey)), workers, "check"):
        tally.merge(part)
    return Check.of(raw, survey, tally)


def _tasks(survey: Survey) -> Iterator[Task[Tally]]:
    """All pictures, those in no list too, whose objects would be left out."""
    unlisted = (entry for entry in survey.left_out if entry.reason == "picture_unlisted")
    entries = [*(entry for split in survey.entries.values() for entry in split), *unlisted]
    entries.sort(key=lambda entry: entry.image_id)
    for start in range(0, len(entries), BATCH):
        batch = entries[start : start + BATCH]
        yield Task(tally_annotations, (survey.release, batch), len(batch), batch[0].category)


def _pictures_gone(tree: RawTree, survey: Survey) -> Iterator[Finding]:
    """Listed pictures that are not there, have no bytes or too many, by the names alone."""
    entries: list[Entry] = [e for split in survey.entries.values() for e in split if e.size == 0]
    sizes = tree.listing().sizes if entries else {}
    for entry in entries:
        size = sizes.get(entry.picture_file)
        if size is None:
            yield Finding("picture_missing", entry.picture_file)
        elif size == 0:
            yield Finding("picture_empty", entry.picture_file)
        elif size > MAX_PICTURE_BYTES:
            yield Finding("picture_too_large", entry.picture_file)
