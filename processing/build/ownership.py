"""Whose a folder is: a build removes what builds wrote, by their lists, and says what it replaces."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from processing.built import BOOKKEEPING, FIGURES, FINISHED_BY, LEDGER, read_manifest
from processing.card.description import sizes_of
from processing.configs import ALL_TABLES
from processing.run import BuildError, Run, read_run, strangers, written_by_builds
from processing.runtime.paths import Place
from processing.runtime.store import files_below, half_written, remove, remove_tree


def refuse_a_file(folder: Place, inside: Iterable[str] = ()) -> None:
    """Raise BuildError where something else has a folder's name: a file, or a link that leads nowhere.

    Args:
        inside: folders in the folder that are to be one, too.
    """
    if not isinstance(folder, Path):
        return
    for path in (folder, *(folder / name for name in inside)):
        if (path.exists() or path.is_symlink()) and not path.is_dir():
            raise BuildError(f"{path}: is a file, or a link that leads nowhere; name or make a folder")


def refuse_strangers(folder: Place) -> None:
    """Leave a folder alone that holds files which no build made; hidden ones are no matter.

    Raises:
        BuildError: names the first of them.
    """
    refuse_a_file(folder, (*ALL_TABLES, FIGURES, BOOKKEEPING))
    if others := strangers(folder, files_below(folder)):
        raise BuildError(
            f"{folder}: holds {ascii(others[0])[1:-1]}, which no build made; move it elsewhere, or name "
            "another folder"
        )


def refuse_own_files(folder: Place, given: Iterable[str]) -> None:
    """Raise BuildError where a build is given what it would remove before it has read it.

    Args:
        given: paths or URLs of files or folders.
    """
    for path in given:
        fs, location = fsspec.core.url_to_fs(path)
        if isinstance(folder, Path):
            is_own = isinstance(fs, LocalFileSystem)
            is_own = is_own and Path(location).resolve().is_relative_to(folder.resolve())
        else:
            is_own = f"{path.rstrip('/')}/".startswith(f"{folder}/")
        if is_own and fs.exists(location):
            raise BuildError(
                f"{path}: lies in the folder that is to be built, where a build removes what the last one "
                "made; copy it elsewhere and give that, or build into another folder"
            )


def replaced_configs(run: Run, configs: Collection[str]) -> set[str]:
    """The configs of a finished build with another key, which this one is about to replace; none without one.

    Args:
        configs: of this build.

    Raises:
        BuildError: if this build has not all of them: they would be gone.
    """
    try:
        manifest = read_manifest(run.folder)
    except FileNotFoundError:
        return set()  # nothing that was finished
    if (begun := read_run(run.folder)) is not None and begun.key == run.key:
        return set()
    held = set(sizes_of(manifest.files, manifest.options.get("configs", ())))
    if lost := sorted(held.difference(configs)):
        raise BuildError(
            f"{run.folder}: holds a finished build with {', '.join(lost)}, which this one would remove; name "
            "another folder, build them too, or remove that one first"
        )
    return held


def make_ready(run: Run, files: Iterable[str]) -> None:
    """Begin in a folder: go on with what a build of the same key wrote, remove what any other did.

    Args:
        files: that this build may write.
    """
    files = set(files)
    begun, old = read_run(run.folder), written_by_builds(run.folder)
    goes_on = begun is not None and begun.key == run.key
    # At any moment a list names every file, and no worker of another key writes once this is there.
    Run(run.folder, run.key if goes_on else "").begin(old | files)
    remove(run.folder, FINISHED_BY)
    if not goes_on:
        remove_tree(run.folder / BOOKKEEPING / "done")
    remove(run.folder, {LEDGER, *(old - files if goes_on else old), *half_written(run.folder)})
    run.begin(files)


def clear(run: Run) -> None:
    """Remove all that was written; no worker writes more."""
    make_ready(Run(run.folder, ""), ())
