"""Which source a path is: a raw release or a built folder."""

from __future__ import annotations

import fsspec

from ImageNet3D import ReleaseError
from processing.preview.raw import RawSource
from processing.preview.selection import Selection, Source
from processing.preview.shards import BuiltSource
from processing.runtime.store import paths_matching


def open_source(path: str, selection: Selection | None = None) -> Source:
    """Open a raw release or a built folder, whichever a path or fsspec URL is.

    Raises:
        NoCategoryError: it has no category of a selected name.
        ReleaseError: it is neither, or a built folder without the selected config.
    """
    selection = selection or Selection()
    fs, location = fsspec.core.url_to_fs(path)
    location = location.rstrip("/")
    finished = fs.isfile(f"{location}/README.md")
    if paths_matching(fs, f"{location}/{selection.config}", "*.parquet"):
        if not finished:
            raise ReleaseError(f"{path}: an unfinished build; run the same build again")
        return BuiltSource(path, selection)
    try:
        return RawSource(path, selection)
    except ReleaseError as error:
        if not finished:
            raise
        missing = "poses" if selection.config == "pose" else "crops"
        raise ReleaseError(
            f"{path}: a built folder without {missing}; build it with --config {selection.config}"
        ) from error
