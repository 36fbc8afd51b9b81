"""What the card and croissant.json are rendered from; all of it comes from a built folder and its manifest.

So both can be written for another repository at any time, without a look at the shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import ImageNet3D
from ImageNet3D import CATEGORIES, Correction
from processing.built import Listed, Manifest, shard_glob
from processing.card.figures import Figure
from processing.configs import PUBLISHED_CONFIGS, config_splits

PAPER = "2406.09613"  # on arXiv
DOI = "10.57967/hf/2461"

_NEWEST = 10  # corrections that the card shows
_LONGEST_WHY = 200  # letters of one


@dataclass(frozen=True)
class SplitSize:
    """One split of a config: its rows, and bytes as Arrow tables and as files."""

    rows: int
    table_bytes: int
    file_bytes: int


# Config -> split -> size.
Sizes = Mapping[str, Mapping[str, SplitSize]]


@dataclass(frozen=True)
class Erratum:
    """A correction of the release.

    Attributes:
        image_id, object_index: of the object.
        change: what was done, in words, such as "azimuth, theta" or "left out".
        date: when, such as "2026-11-28".
        why: the words of whoever made it.
    """

    image_id: str
    object_index: int
    change: str
    date: str
    why: str = ""


@dataclass(frozen=True)
class Errata:
    """The corrections that a build applied.

    Attributes:
        counts: what was done, in words -> objects.
        newest: the latest few, newest first.
    """

    counts: Mapping[str, int]
    newest: tuple[Erratum, ...] = ()


@dataclass(frozen=True)
class Changes:
    """How a build differs from an earlier version.

    Attributes:
        previous: the earlier version, such as "1.0.0".
        counts: what differs, in words -> how many, such as {"objects added": 12}; in the order of the card.
    """

    previous: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Description:
    """All that the two pages tell of one build.

    Attributes:
        sizes: of the configs that have rows.
        checksum: SHA-256 over lines `sha256  path` of the Parquet files, in the order of paths.
        figures: those that were drawn.
        repository: where the folder is to stand on the Hub.
        version: of the dataset.
        categories: the names of label ids.
        synthetic: whether the release was drawn by the command `sample`.
        errata, changes: None where there are none to tell of.
    """

    sizes: Sizes
    checksum: str
    figures: Sequence[Figure] = ()
    repository: str = ImageNet3D.REPOSITORY
    version: str = ImageNet3D.__version__
    categories: Sequence[str] = CATEGORIES
    synthetic: bool = False
    errata: Errata | None = None
    changes: Changes | None = None


def sizes_of(files: Mapping[str, Listed], configs: Sequence[str] = ()) -> Sizes:
    """The configs that the card lists, with the sizes of their splits.

    A split without rows is left out, for loaders and the viewer refuse it, and so is a config without splits.

    Args:
        files: of the manifest.
        configs: those asked for; all that there are files for where empty.
    """
    sizes = {
        config: _split_sizes(files, config)
        for config in PUBLISHED_CONFIGS
        if config in (configs or PUBLISHED_CONFIGS)
    }
    return {config: splits for config, splits in sizes.items() if splits}


def _split_sizes(files: Mapping[str, Listed], config: str) -> dict[str, SplitSize]:
    sizes = {}
    for split in config_splits(config):
        found = [entry for path, entry in files.items() if fnmatchcase(path, shard_glob(config, split))]
        if found:
            sizes[split] = SplitSize(
                sum(entry.rows for entry in found),
                sum(entry.table_bytes for entry in found),
                sum(entry.size for entry in found),
            )
    return sizes


def describe(
    manifest: Manifest,
    figures: Sequence[Figure],
    corrections: Iterable[Correction] = (),
    categories: Sequence[str] = CATEGORIES,
    repository: str | None = None,
) -> Description:
    """The description of a build.

    Args:
        manifest: with the shards among its files. Its options `configs`, `repository`, `synthetic` and
            `changes` (as a dict of `Changes`) are heeded where they are there.
        figures: plots that were drawn.
        corrections: that were applied.
        categories: the names of label ids.
        repository: where it is to stand, if not where the build was told.
    """
    options = manifest.options
    files = manifest.files
    shards = sorted(path for path in files if path.endswith(".parquet"))
    listing = "".join(f"{files[path].sha256}  {path}\n" for path in shards)
    changes = options.get("changes")
    return Description(
        sizes=sizes_of(files, options.get("configs", ())),
        checksum=hashlib.sha256(listing.encode()).hexdigest(),
        figures=figures,
        repository=repository or options.get("repository", ImageNet3D.REPOSITORY),
        version=manifest.version,
        categories=categories,
        synthetic=bool(options.get("synthetic")),
        errata=errata_of(corrections),
        changes=Changes(changes["previous"], changes["counts"]) if changes else None,
    )


def errata_of(corrections: Iterable[Correction]) -> Errata | None:
    """What the card tells of corrections; None where there are none.

    Somebody who looked and agreed with the release corrects nothing.
    """
    ordered = sorted(corrections, key=lambda correction: correction.order)
    if not ordered:
        return None
    differing: dict[tuple[str, int], set[str]] = {}  # object -> fields that are another than the release's
    added: set[tuple[str, int]] = set()
    left_out: set[tuple[str, int]] = set()
    for correction in ordered:
        key = correction.image_id, correction.object_index
        if correction.operation == "set":
            fields = differing.setdefault(key, set())
            fields -= set(correction.new)
            fields |= set(_changed(correction))
        elif correction.operation == "add":
            added.add(key)
        elif correction.operation == "leave_out":
            left_out.add(key)
        else:
            left_out.discard(key)
    corrected = sum(map(bool, differing.values()))
    counts = {"corrected": corrected, "added": len(added), "left out": len(left_out)}
    told = [correction for correction in ordered if correction.operation != "set" or _changed(correction)]
    newest = tuple(
        Erratum(
            correction.image_id,
            correction.object_index,
            ", ".join(_changed(correction)) or _WORDS[correction.operation],
            correction.when[:10],
            correction.why[:_LONGEST_WHY],
        )
        for correction in reversed(told[-_NEWEST:])
    )
    return Errata({what: count for what, count in counts.items() if count}, newest)


def _changed(correction: Correction) -> list[str]:
    """The fields that are another than the release's."""
    return [name for name, old in correction.old.items() if correction.new[name] != old]


_WORDS = {"add": "added", "leave_out": "left out", "take_back": "not left out any more"}
