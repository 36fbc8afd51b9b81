"""What a built folder is: the names of its files, its manifest, and all of it as it is read.

    README.md datasheet.md croissant.json figures/*.svg      what is told of the data
    pose/train-00000-of-00008-known.parquet ...              shards: a folder for each config that has files
    imagenet3d_manifest.json                                 all of these with checksums, accounts and options
    .build/                                                  the build's own: never published
        lock run.json done/*.json ledger.jsonl

The card is written when all else that is published is there, and the manifest after it: a folder without
either is not finished. The manifest is published with the folder, and enough to verify it anywhere.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from fsspec.utils import glob_translate

from ImageNet3D import REASONS, Finding, known_only
from processing.accounts import Books, CategoryCounts
from processing.configs import ALL_TABLES, PICTURE_TABLES, table_of
from processing.ledger import SHA256, finding_from_json
from processing.runtime.paths import Place, PlaceError
from processing.runtime.store import FileState, files_below, read_file
from processing.runtime.strict import DamagedError, Field, is_plain_path

CARD = "README.md"
DATASHEET = "datasheet.md"
CROISSANT = "croissant.json"
CORRECTIONS = "corrections.jsonl"
FIGURES = "figures"
MANIFEST = "imagenet3d_manifest.json"

BOOKKEEPING = ".build"  # hidden, never published
LEDGER = f"{BOOKKEEPING}/ledger.jsonl"
RUN = f"{BOOKKEEPING}/run.json"

# Without these a folder is not finished; in the order of their removal.
FINISHED_BY = (CARD, MANIFEST)

_FORMAT = 1  # of the manifest; another one is not understood
_VERSION = r"\d{1,4}\.\d{1,4}\.\d{1,4}"
MAX_BOOKKEEPING_BYTES = 2**28  # of a file of bookkeeping

SHARD_NAME = re.compile(r"(train|validation)-(\d{5,})-of-(\d{5,})-(known|unknown)")


# --------------------------------------------------------------------------------------------------------
# Names
# --------------------------------------------------------------------------------------------------------


def numbered(number: int, total: int) -> str:
    """The number of a file among so many, as it stands in names: five digits, so that names sort, or more."""
    digits = max(5, len(str(total)))
    return f"{number:0{digits}d}-of-{total:0{digits}d}"


def shard_name(split: str, number: int, total: int, known: bool) -> str:
    """The name of a shard of pictures, the same in every config's folder; `SHARD_NAME` takes it apart."""
    return f"{split}-{numbered(number, total)}-{'known' if known else 'unknown'}"


def shard_path(config: str, name: str) -> str:
    """Where a shard of a config stands inside the folder."""
    return f"{config}/{name}.parquet"


def shard_glob(config: str, split: str) -> str:
    """The glob, in the folder, of the files of a config's split."""
    kind = {None: "", True: "-known", False: "-unknown"}[known_only(config)]
    return f"{table_of(config)}/{split}-*{kind}.parquet"


def is_hidden(path: str) -> bool:
    """Whether a path is not for publishing: its name, or that of a folder it is in, begins with a dot."""
    return any(part.startswith(".") for part in path.split("/"))


# --------------------------------------------------------------------------------------------------------
# The manifest, and all of a built folder
# --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listed:
    """A file of the manifest: bytes, SHA-256 (hexadecimal); rows and their bytes in Arrow, if it has any."""

    size: int
    sha256: str
    rows: int = 0
    table_bytes: int = 0


@dataclass(frozen=True)
class Manifest:
    """What a build made, written down when it was finished.

    Nothing in it tells where or when the release was read: the same input gives the same bytes.

    Attributes:
        version: of the dataset.
        options: of the build, for people.
        files: path -> all that is published, but for the manifest.
        shards: of pictures, by name -> pictures read; one without any row has no file.
        books: accounts of every config, views included.
        categories: what there is of each.
        pictures, objects: in the release.
        findings: code -> how often.
    """

    version: str
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Listed] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    books: Books = field(default_factory=Books)
    categories: CategoryCounts = field(default_factory=CategoryCounts)
    pictures: int = 0
    objects: int = 0
    findings: Mapping[str, int] = field(default_factory=dict)

    @property
    def tables(self) -> list[str]:
        """The configs that were built with files of their own in mind, with rows or without."""
        return [config for config in ALL_TABLES if any(config == built for built, _ in self.books.accounts)]

    def paths_of(self, table: str) -> list[str]:
        """The files of a table, as listed."""
        return [path for path in self.files if path.startswith(f"{table}/")]

    def to_json(self) -> bytes:
        """As it is written."""
        data = {
            "format": _FORMAT,
            "version": self.version,
            "options": dict(self.options),
            "pictures": self.pictures,
            "objects": self.objects,
            "findings": dict(sorted(self.findings.items())),
            "accounts": self.books.to_dict(),
            "categories": self.categories.to_dict(),
            "shards": dict(self.shards),
            "files": {path: asdict(entry) for path, entry in sorted(self.files.items())},
        }
        return json.dumps(data, indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, file: str = MANIFEST) -> Manifest:
        """The inverse of `to_json`.

        Args:
            file: its name, for messages.

        Raises:
            DamagedError: for anything else; it names file and field.
        """
        found = Field.parse(file, data)
        if found["format"].value != _FORMAT:
            found["format"].refuse(f"{_FORMAT}: another version of this code wrote it")
        for code, _ in found["findings"].items():
            if code not in REASONS:
                found["findings"].refuse("counts of codes of REASONS")
        options = {name: option.value for name, option in found["options"].items()}
        return cls(
            version=found["version"].text(_VERSION, "a version such as 1.0.0"),
            options=options,
            files=read_files(found["files"]),
            shards=found["shards"].map(Field.count),
            books=Books.from_field(found["accounts"]),
            categories=CategoryCounts.from_field(found["categories"]),
            pictures=found["pictures"].count(),
            objects=found["objects"].count(),
            findings=found["findings"].map(Field.count),
        )


def read_files(data: Field) -> dict[str, Listed]:
    """The files that a manifest lists.

    Raises:
        DamagedError: for what is no such list, or a path that leads out of the folder.
    """
    files = {}
    for path, entry in data.items():
        if not is_plain_path(path):
            data.refuse("a list of paths inside the folder")
        size, rows, table_bytes = (entry[name].count() for name in ("size", "rows", "table_bytes"))
        files[path] = Listed(size, entry["sha256"].text(SHA256), rows, table_bytes)
    return files


class NotBuiltError(PlaceError):
    """There is no built folder; the message says what is there instead."""


class UnfinishedError(NotBuiltError):
    """A build has begun in the folder and has not come to its end."""


@dataclass(frozen=True)
class Built:
    """A finished built folder, on this machine, on a store or downloaded from the Hub.

    Attributes:
        folder: where it stands.
        manifest: what its build made.
        present: all its files, hidden ones too, by path.
        ledger: split and finding, in the ledger's order; None where there is no ledger, as on the Hub.
    """

    folder: Place
    manifest: Manifest
    present: Mapping[str, FileState]
    ledger: Sequence[tuple[str, Finding]] | None

    def files(self) -> list[str]:
        """What is in the folder to be published; hidden files and folders are not."""
        return sorted(path for path in self.present if not is_hidden(path))

    def matching(self, pattern: str) -> list[str]:
        """The files that a pattern of the card finds."""
        found = re.compile(glob_translate(pattern))
        return [path for path in self.files() if found.fullmatch(path)]

    def files_of(self, config: str, split: str) -> list[str]:
        """The files of a config's split that are there, views of pose included."""
        return self.matching(shard_glob(config, split))

    def shards(self) -> dict[str, dict[str, str]]:
        """Shard of pictures -> config -> path, of those that are there and listed."""
        shards: dict[str, dict[str, str]] = {}
        for path in self.files():
            config, _, name = path.removesuffix(".parquet").partition("/")
            if config in PICTURE_TABLES and path in self.manifest.files and SHARD_NAME.fullmatch(name):
                shards.setdefault(name, {})[config] = path
        return shards


def read_built(folder: Place) -> Built:
    """A built folder with its manifest and ledger; no shard is opened.

    Raises:
        NotBuiltError: if there is no such folder, or none that was built.
        UnfinishedError: if it has no card or no manifest.
        DamagedError: if manifest or ledger are not as they were written.
    """
    present = files_below(folder)
    if not present:
        raise NotBuiltError(f"{folder}: nothing is there; give the folder that `build` wrote")
    if missing := [name for name in FINISHED_BY if name not in present]:
        if RUN in present or MANIFEST in present:
            raise UnfinishedError(f"{folder}: has no {missing[0]}: the build has not come to its end")
        raise NotBuiltError(f"{folder}: no build has been here; give the folder that `build` wrote")
    ledger = None
    if LEDGER in present:
        lines = _text(folder / LEDGER).splitlines()
        ledger = [finding_from_json(line, f"{folder / LEDGER}: line {n}") for n, line in enumerate(lines, 1)]
    return Built(folder, read_manifest(folder), present, ledger)


def read_manifest(folder: Place) -> Manifest:
    """The manifest of a finished build.

    Raises:
        FileNotFoundError: if there is none.
        DamagedError: if it is not as it was written.
    """
    return Manifest.from_json(read_file(folder / MANIFEST, MAX_BOOKKEEPING_BYTES), str(folder / MANIFEST))


def _text(path: Place) -> str:
    try:
        return read_file(path, MAX_BOOKKEEPING_BYTES).decode()
    except UnicodeDecodeError as error:
        raise DamagedError(f"{path}: is no text; it is not as it was written") from error


def finding_counts(findings: Iterable[tuple[str, Finding]]) -> dict[str, int]:
    """How often each code is in the ledger."""
    return dict(Counter(finding.reason for _, finding in findings))
