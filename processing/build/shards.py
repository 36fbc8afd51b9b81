"""Writes one shard of every config: the unit of work, of resuming and of distribution.

A shard's files get their names when they are whole, and its marker is written after them. The marker holds
checksums, counts and findings, and the key of the build, so that running again continues where a build
stopped and never mixes two builds.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

import ImageNet3D
from ImageNet3D import Entry, Finding, ObjectAnnotation, Picture, Release, Unusable
from processing.build.categories import CategoryCounts
from processing.build.plan import MAX_ROW_GROUP_PICTURES, Shard
from processing.crop import rows as object_centric
from processing.crop.pixels import why_not_cropped
from processing.ledger import NO_CAPTION, Account, reason_of_objects
from processing.runtime.store import (
    FileState,
    NewFile,
    Place,
    StoreError,
    attempt,
    digest,
    new_file,
    state_of,
    write_whole,
)

# The configs of whole pictures that have files; open_vocab_known and open_vocab_unknown are views of pose.
TABLES = ("pose", "classification", "captions")
# The configs of other pictures, in shards of the same plan.
DERIVED_TABLES = ("object_centric",)

# Columns whose values repeat within a row group; a picture with several objects is stored once.
_DICTIONARY_COLUMNS = ["image.bytes", "image.path", "image_id", "category_caption"]
_DERIVED_DICTIONARY_COLUMNS = ["image_id"]
# Past its limit the writer falls back to plain without a word; a row group has at most 100 MB of pictures.
_DICTIONARY_LIMIT = 2**30

BOOKKEEPING = ".build"  # in the built folder; hidden, never published
PLAN = f"{BOOKKEEPING}/plan.json"  # names the build that is at work


class ReplacedError(RuntimeError):
    """Another command has begun in the folder; a worker that the first one lost must not write there."""


@dataclass(frozen=True)
class WrittenFile:
    """One Parquet file as it was written.

    Attributes:
        path: inside the built folder.
        size: bytes of the file.
        sha256: hexadecimal.
        rows: of the file.
        table_bytes: of the rows as Arrow tables.
        tag: of the content, as the store gave it; "" on a disk.
    """

    path: str
    size: int
    sha256: str
    rows: int
    table_bytes: int
    tag: str = ""


class Named(Protocol):
    """A shard of any kind: of it, this module's bookkeeping needs the name."""

    @property
    def name(self) -> str:
        """Of its marker."""


@dataclass
class ShardResult:
    """What became of one shard, or of pictures that no shard takes.

    Attributes:
        name: of the shard.
        split: of all its pictures.
        known: whether its categories are known ones; None for meshes and categories.
        files: config -> file; a config without rows has none.
        accounts: config -> account.
        findings: in the order of the pictures.
        pictures, objects: as read.
        categories: what there is of each.
        unknown_keys: name of a key that no column is made of -> objects that have it.
    """

    name: str
    split: str
    known: bool | None
    files: dict[str, WrittenFile] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    pictures: int = 0
    objects: int = 0
    categories: CategoryCounts = field(default_factory=CategoryCounts)
    unknown_keys: Counter[str] = field(default_factory=Counter)

    def to_json(self, key: str) -> str:
        """The marker of a shard of the build `key`."""
        data = {
            **asdict(self),
            "key": key,
            "accounts": {config: account.to_dict() for config, account in self.accounts.items()},
            "categories": self.categories.to_dict(),
            "unknown_keys": dict(self.unknown_keys),
        }
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str, key: str) -> "ShardResult | None":
        """The inverse of `to_json`; None for the marker of another build."""
        data = json.loads(text)
        if data.pop("key") != key:
            return None
        data["files"] = {config: WrittenFile(**file) for config, file in data["files"].items()}
        data["accounts"] = {
            config: Account.from_dict(account) for config, account in data["accounts"].items()
        }
        data["categories"] = CategoryCounts.from_dict(data["categories"])
        data["unknown_keys"] = Counter(data["unknown_keys"])
        data["findings"] = [Finding(**finding) for finding in data["findings"]]
        return cls(**data)


def write_shard(
    release: Release, shard: Shard, configs: Sequence[str], folder: Place, key: str
) -> ShardResult:
    """Read a shard's pictures and write its file for each config.

    Args:
        configs: of `TABLES` and `DERIVED_TABLES`.
        folder: the built folder.
        key: of the build, for the marker.

    Raises:
        OSError: if the folder cannot be written; nothing half-written carries a final name then.
        ReplacedError: if another build has begun in the folder.
    """
    if (done := finished_shard(folder, shard, key)) is not None:
        return done
    result = ShardResult(shard.name, shard.split, shard.known)
    result.accounts = {config: Account() for config in configs}
    with ExitStack() as stack:
        writers = {
            c: stack.enter_context(ShardWriter(folder, f"{c}/{shard.name}.parquet", c)) for c in configs
        }
        for near, group in release.fetched_ahead(shard.row_groups):
            pictures = read_group(near, group, configs, result)
            result.categories.add_pictures(shard.split, pictures)
            for config, writer in writers.items():
                writer.write(_rows(config, pictures, release, result))
        if at_work(folder) != key:
            raise replaced(folder, shard.name)
        for config, writer in writers.items():
            if (written := writer.finish()) is not None:
                result.files[config] = written
                result.accounts[config].written = written.rows
    write_whole(marker_path(folder, shard.name), result.to_json(key).encode())
    return result


def _rows(config: str, pictures: Sequence[Picture], release: Release, result: ShardResult) -> pa.Table:
    """The rows of a config; pictures whose pixels cannot be decoded are entered in `result`."""
    if config in TABLES:
        return ImageNet3D.rows(config, pictures, release.category_captions)
    findings: list[Finding] = []
    table = object_centric.rows(pictures, findings)
    result.findings += findings
    result.accounts[config].left_out.update(finding.reason for finding in findings)
    return table


def at_work(folder: Place) -> str | None:
    """The key of the build that has a folder; None where none has."""
    try:
        return json.loads((folder / PLAN).read_text("utf-8"))["key"]
    except (FileNotFoundError, ValueError, KeyError):
        return None


def replaced(folder: Place, name: str) -> ReplacedError:
    """The error of a worker whose command has lost its folder to another."""
    return ReplacedError(
        f"{folder}: {name} is of a command that another one has replaced; "
        "run one command at a time in a folder"
    )


def finished_shard(folder: Place, shard: Named, key: str) -> ShardResult | None:
    """The result of a shard that this build has finished already, if its files still are what was written."""
    try:
        result = ShardResult.from_json(marker_path(folder, shard.name).read_text("utf-8"), key)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if result is None or not all(is_whole(folder, file) for file in result.files.values()):
        return None
    return result


def is_whole(folder: Place, file: WrittenFile, state: FileState | None = None) -> bool:
    """Whether a file's bytes are those that were written; a store tells by its tag, without reading them.

    Args:
        state: of the file, where it is known already.
    """
    if file.tag and (state or state_of(folder / file.path)) == FileState(file.size, file.tag):
        return True
    return digest(folder / file.path) == (file.size, file.sha256)


def count_left_out(release: Release, entries: Sequence[Entry], configs: Sequence[str]) -> ShardResult:
    """Account for pictures of one split and kind that no shard takes; their objects are counted too."""
    result = ShardResult("left out", entries[0].split, entries[0].known)
    result.accounts = {config: Account() for config in configs}
    release = release.fetched((entry for entry in entries if entry.reason != "list_bad_id"), pictures=False)
    for entry in entries:
        objects = 0
        if entry.reason != "list_bad_id":
            with suppress(Unusable):  # the picture is left out for its own reason already
                objects = ImageNet3D.read_annotation(release, entry, []).num_objects
        result.findings.append(Finding(entry.reason, entry.picture_file))
        _count_picture(result, entry, objects, entry.reason)
    return result


def read_group(
    release: Release, entries: Sequence[Entry], configs: Sequence[str], result: ShardResult
) -> list[Picture]:
    """The usable pictures of a row group: those that every config has first, then those that lack the same.

    Runs of pictures that stand alike in several configs are stored once.
    """
    pictures: list[Picture] = []
    for entry in entries:
        findings: list[Finding] = []
        objects, file = 0, entry.annotation_file
        try:
            annotation = ImageNet3D.read_annotation(release, entry, findings)
            objects, file = annotation.num_objects, entry.picture_file
            result.unknown_keys.update(annotation.unknown_keys)
            picture = ImageNet3D.read_picture(release, entry, annotation, findings)
        except Unusable as error:
            findings.append(Finding(error.reason, file, None, error.value))
            _count_picture(result, entry, objects, error.reason)
        else:
            pictures.append(picture)
            _count_picture(result, entry, objects, "", findings, picture.annotation.objects)
        result.findings += findings
    whole = [config for config in configs if config in TABLES]
    return sorted(pictures, key=lambda p: [not ImageNet3D.has_rows(c, p.entry, p.annotation) for c in whole])


def _count_picture(
    result: ShardResult,
    entry: Entry,
    objects: int,
    reason: str,
    findings: Sequence[Finding] = (),
    usable: Sequence[ObjectAnnotation] = (),
) -> None:
    """Enter a picture and its objects in the accounts as read, and as left out for `reason` if it is."""
    result.pictures += 1
    result.objects += objects
    for config, account in result.accounts.items():
        if config in ("pose", *DERIVED_TABLES):
            account.read += objects
            lost = Counter({reason: objects} if reason else reason_of_objects(findings).values())
            if config != "pose":
                lost.update(why for item in usable if item.posed and (why := why_not_cropped(item)))
        else:
            account.read += 1
            no_caption = config == "captions" and entry.caption is None
            lost = {reason or NO_CAPTION: 1} if reason or no_caption else {}
        account.left_out.update({why: count for why, count in lost.items() if count})


class ShardWriter:
    """Writes one Parquet file, which gets its name from `finish`."""

    def __init__(self, folder: Place, path: str, config: str) -> None:
        self._folder, self._path = folder, path
        self._schema = shard_schema(config)
        repeated = config in TABLES
        self._dictionary_columns = _DICTIONARY_COLUMNS if repeated else _DERIVED_DICTIONARY_COLUMNS
        # Pictures that repeat are cut into row groups by the plan; a crop is a picture of its own.
        self._rows_per_group = None if repeated else MAX_ROW_GROUP_PICTURES
        self._rows = self._table_bytes = 0

    def __enter__(self) -> "ShardWriter":
        aside = self._folder / BOOKKEEPING / "tmp" / f"{self._path.replace('/', '-')}.{attempt()}"
        self._sink = _HashingFile(new_file(self._folder / self._path, aside))
        try:
            self._parquet = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression="NONE",
                use_dictionary=self._dictionary_columns,
                dictionary_pagesize_limit=_DICTIONARY_LIMIT,
                write_page_checksum=True,
            )
        except BaseException:
            self._sink.discard()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as stack:  # all of it, also when the disk is full
            stack.callback(self._parquet.close)  # its footer goes nowhere
            stack.callback(self._sink.discard)

    def write(self, table: pa.Table) -> None:
        """Write the rows of one row group of the plan."""
        if len(table):
            self._parquet.write_table(
                table.cast(self._schema), row_group_size=self._rows_per_group or len(table)
            )
            self._rows += len(table)
            self._table_bytes += table.nbytes

    def finish(self) -> WrittenFile | None:
        """Close the file and give it its final name; None, and no file, if it has no rows."""
        self._parquet.close()
        if not self._rows:
            return None
        self._sink.commit()
        state = state_of(self._folder / self._path)
        if state is None or state.size != self._sink.size:
            raise StoreError(
                f"{self._folder / self._path}: changed as it was written; is another build at work?"
            )
        sha256 = self._sink.sha256.hexdigest()
        return WrittenFile(self._path, state.size, sha256, self._rows, self._table_bytes, state.tag)


class _HashingFile:
    """A new file that knows the checksum of its bytes; once it is done, what is written goes nowhere."""

    closed = False  # for pyarrow

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._done = False
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> None:
        """Write and digest."""
        if not self._done:
            self.sha256.update(data)
            self.size += len(data)
            self._file.write(data)

    def flush(self) -> None:
        """Nothing: `commit` does it."""

    def close(self) -> None:
        """Nothing: `commit` or `discard` does it."""

    def commit(self) -> None:
        """Give the file its name."""
        self._file.commit()
        self._done = True

    def discard(self) -> None:
        """Throw the file away, unless it has its name."""
        self._done = True
        self._file.discard()


def shard_schema(config: str) -> pa.Schema:
    """The Arrow schema of a config's shards, with its features embedded for `load_dataset("parquet", …)`."""
    features = ImageNet3D.config_features(config)
    described = json.dumps({"info": {"features": portable(features.to_dict())}})
    return pa.schema(list(features.arrow_schema), metadata={"huggingface": described})


def portable(features: Any) -> Any:
    """Features as JSON that `datasets` from 3.6 on reads: before version 4 a List was a Sequence, or […]."""
    if isinstance(features, list):
        return [portable(item) for item in features]
    if not isinstance(features, Mapping):
        return features
    if features.get("_type") == "List":
        if "length" not in features:
            return [portable(features["feature"])]
        return {"feature": portable(features["feature"]), "length": features["length"], "_type": "Sequence"}
    return {name: portable(value) for name, value in features.items()}


def marker_path(folder: Place, name: str) -> Place:
    """Where a finished shard's marker stands."""
    return folder / BOOKKEEPING / "done" / f"{name}.json"
