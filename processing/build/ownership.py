"""Whose a built folder is: a build removes what builds made and nothing else, and says what it replaces."""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from processing.build.references import REFERENCE_TABLES
from processing.build.shards import BOOKKEEPING, PLAN, at_work
from processing.card.card import DATASHEET
from processing.card.croissant import CROISSANT
from processing.card.figures import FIGURES
from processing.runtime.store import UNFINISHED, Place, files_below
from processing.verify.checks import ALL_TABLES, SHARD_NAME

# What only a finished build has, in the order of their removal.
FINISHED_BY = ("README.md", f"{BOOKKEEPING}/manifest.json")

# What tells of the shards, besides figures.
PAGES = ("README.md", DATASHEET.name, CROISSANT)
CORRECTIONS = "corrections.jsonl"  # those that the rows have, if any were given

_SHARD = re.compile(rf"(?:{'|'.join(ALL_TABLES)})/(?P<name>{SHARD_NAME.pattern})\.parquet")
_REFERENCES = re.compile(rf"(?:{'|'.join(REFERENCE_TABLES)})/\w+-\d{{5,}}-of-\d{{5,}}\.parquet")
_FIGURE = re.compile(rf"{FIGURES}/[a-z-]+\.svg")
_HALF_WRITTEN = re.compile(rf"(?:.+/)?\.[^/]*{re.escape(UNFINISHED)}")  # by a process that was killed


class BuildError(RuntimeError):
    """A build cannot start or go on; the message says why and what to do."""


def refuse_a_file(folder: Place) -> None:
    """Raise BuildError where a file has the folder's name."""
    if isinstance(folder, Path) and folder.exists() and not folder.is_dir():
        raise BuildError(f"{folder}: is a file; name a folder")


def refuse_strangers(folder: Place) -> None:
    """Leave a folder alone that holds files which no build made.

    Raises:
        BuildError: names the first of them.
    """
    refuse_a_file(folder)
    found = files_below(folder)
    begun = PLAN in found
    strangers = [path for path in found if not (_may_be_ours(path) if begun else _is_bookkeeping(path))]
    if strangers:
        remedy = "move it elsewhere" if begun else "name another folder"
        raise BuildError(f"{folder}: holds {strangers[0]}, which no build made; {remedy}")


def _is_bookkeeping(path: str) -> bool:
    return path.startswith(f"{BOOKKEEPING}/")


def _may_be_ours(path: str) -> bool:
    return (
        _is_bookkeeping(path)
        or path in (*PAGES, CORRECTIONS)
        or any(names.fullmatch(path) for names in (_SHARD, _REFERENCES, _FIGURE, _HALF_WRITTEN))
    )


def replaced_configs(folder: Place, key: str, tables: Collection[str]) -> set[str]:
    """The configs of a finished build with another key, which this one is about to replace; none without one.

    Args:
        key, tables: of this build.

    Raises:
        BuildError: if this build has not all of them: they would be gone.
    """
    if at_work(folder) == key:
        return set()
    try:
        files = json.loads((folder / BOOKKEEPING / "manifest.json").read_text("utf-8"))["files"]
    except (FileNotFoundError, ValueError, KeyError):
        return set()  # nothing that was finished
    held = {path.partition("/")[0] for path in files if path.endswith(".parquet")}
    if lost := sorted(held.difference(tables)):
        raise BuildError(
            f"{folder}: holds a finished build with {', '.join(lost)}, which this one would remove; name "
            "another folder, build them too, or remove that one first"
        )
    return held


def left_over(folder: Place, names: Collection[str], paths: Collection[str]) -> list[str]:
    """Files that are named as a build's are, and are none of this build's, and what killed processes left.

    Args:
        names: of its shards.
        paths: of its files of meshes and categories.
    """
    return [
        path
        for path in files_below(folder)
        if _HALF_WRITTEN.fullmatch(path)
        or ((shard := _SHARD.fullmatch(path)) and shard["name"] not in names)
        or (_REFERENCES.fullmatch(path) and path not in paths)
    ]


@contextmanager
def locked(folder: Place, bookkeeping: str = BOOKKEEPING) -> Iterator[None]:
    """Hold a folder for one command; the lock goes with the process, however it ends.

    An object store has no such locks: see `build._check_undisturbed`.

    Raises:
        BuildError: if another process holds it.
    """
    if not isinstance(folder, Path):
        yield
        return
    (folder / bookkeeping).mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / bookkeeping / "lock", blocking=False):
            yield
    except filelock.Timeout:
        raise BuildError(
            f"{folder}: another build or crop is at work in it; wait for it, or name another folder"
        ) from None
