"""Writes one shard of every config: the unit of work, of resuming and of distribution.

A shard's files get their names when they are whole, and its marker is written after them, so that running
again continues where a build stopped.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import ImageNet3D
from ImageNet3D import CATEGORIES, Entry, Finding, Picture, Release, Unusable
from processing.accounts import NO_CAPTION, Account
from processing.build.plan import MAX_REPEATED_BYTES, MAX_ROW_GROUP_PICTURES, Shard
from processing.built import shard_path
from processing.configs import DERIVED_TABLES, TABLES, config_features
from processing.crop import rows as object_centric
from processing.ledger import ShardResult, WrittenFile, reason_of_objects
from processing.run import Run
from processing.runtime.paths import Place
from processing.runtime.store import NewFile

# Columns whose values repeat within a row group; a picture with several objects is stored once.
_DICTIONARY_COLUMNS = ["image.bytes", "image.path", "image_id", "category_caption"]
_DERIVED_DICTIONARY_COLUMNS = ["image_id"]
# Past its limit the writer falls back to plain without a word; a row group has at most 100 MB of pictures.
_DICTIONARY_LIMIT = 2**30


def write_shard(release: Release, shard: Shard, configs: Sequence[str], run: Run) -> ShardResult:
    """Read a shard's pictures and write its file for each config.

    Args:
        configs: of `PICTURE_TABLES`.

    Raises:
        OSError: if the folder cannot be written; nothing half-written carries a final name then.
        ReplacedError: if another build has begun in the folder.
    """
    if (done := run.finished(shard.name)) is not None:
        return done
    result = ShardResult(shard.name, shard.split, shard.known)
    result.accounts = {config: Account() for config in configs}
    with ExitStack() as stack:
        writers = {
            c: stack.enter_context(ShardWriter(run.folder, shard_path(c, shard.name), c, release.categories))
            for c in configs
        }
        for near, group in release.fetched_ahead(shard.row_groups):
            pictures = read_group(near, group, configs, result)
            result.categories.add_pictures(shard.split, pictures)
            for portion in portions(pictures):
                for config, writer in writers.items():
                    for part in split_objects(portion) if config == "pose" else [portion]:
                        writer.write(_rows(config, part, release, result))
        run.check(shard.name)
        for config, writer in writers.items():
            if (written := writer.finish()) is not None:
                result.files[config] = written
                result.accounts[config].written = written.rows
    run.finish(result)
    return result


def portions(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    """The pictures in runs whose rows are within `MAX_REPEATED_BYTES`; all in one run, as a rule."""
    portion: list[Picture] = []
    size = 0
    for picture in pictures:
        more = len(picture.data) * max(1, len(picture.annotation.objects))
        if portion and size + more > MAX_REPEATED_BYTES:
            yield portion
            portion, size = [], 0
        portion.append(picture)
        size += more
    if portion:
        yield portion


def split_objects(portion: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    """A portion as it is; a picture that alone has too many bytes for its objects, with some of them each."""
    picture = portion[0]
    objects = picture.annotation.objects
    room = max(1, MAX_REPEATED_BYTES // max(1, len(picture.data)))
    if len(portion) > 1 or len(objects) <= room:
        yield portion
        return
    for start in range(0, len(objects), room):
        yield [
            replace(picture, annotation=replace(picture.annotation, objects=objects[start : start + room]))
        ]


def _rows(config: str, pictures: Sequence[Picture], release: Release, result: ShardResult) -> pa.Table:
    """The rows of a config; pictures whose pixels cannot be decoded are entered in `result`."""
    if config in TABLES:
        return ImageNet3D.rows(config, pictures, release)
    findings: list[Finding] = []
    left_out = result.accounts[config].left_out
    table = object_centric.rows(pictures, findings, left_out, release.categories)
    result.findings += findings
    return table


def count_left_out(release: Release, entries: Sequence[Entry], configs: Sequence[str]) -> ShardResult:
    """Account for pictures of one split and kind that no shard takes; their objects are counted too."""
    result = ShardResult("left out", entries[0].split, entries[0].known)
    result.accounts = {config: Account() for config in configs}
    release = release.fetched((entry for entry in entries if entry.reason != "list_bad_id"), pictures=False)
    for entry in entries:
        objects = 0
        if entry.reason != "list_bad_id":
            objects = ImageNet3D.read_annotation(release, entry, []).num_objects or 0
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
        annotation = ImageNet3D.read_annotation(release, entry, findings)
        objects = annotation.num_objects or 0
        result.unknown_keys.update(annotation.unknown_keys)
        try:
            picture = ImageNet3D.read_picture(release, entry, annotation, findings)
        except Unusable as error:
            findings.append(Finding(error.reason, entry.picture_file, None, error.value))
            _count_picture(result, entry, objects, error.reason)
        else:
            pictures.append(picture)
            _count_picture(result, entry, objects, "", findings)
        result.findings += findings
    whole = [config for config in configs if config in TABLES]
    return sorted(pictures, key=lambda p: [not ImageNet3D.has_rows(c, p.entry, p.annotation) for c in whole])


def _count_picture(
    result: ShardResult,
    entry: Entry,
    objects: int,
    reason: str,
    findings: Sequence[Finding] = (),
) -> None:
    """Enter a picture and its objects in the accounts as read, and as left out for `reason` if it is.

    What posed objects lack for a crop is entered where crops are made.
    """
    if reason != "list_both_splits":  # of the release it is one picture, which validation counts
        result.pictures += 1
        result.objects += objects
    for config, account in result.accounts.items():
        if config in ("pose", *DERIVED_TABLES):
            account.read += objects
            lost = Counter({reason: objects} if reason else reason_of_objects(findings).values())
        else:
            account.read += 1
            no_caption = config == "captions" and not entry.captioned
            lost = Counter({reason or NO_CAPTION: 1} if reason or no_caption else {})
        account.left_out.update({why: count for why, count in lost.items() if count})


class ShardWriter:
    """Writes one Parquet file, which gets its name from `finish`."""

    def __init__(self, folder: Place, path: str, config: str, categories: tuple[str, ...]) -> None:
        self._folder, self._path = folder, path
        self._schema = shard_schema(config, categories)
        repeated = config in TABLES
        self._dictionary_columns = _DICTIONARY_COLUMNS if repeated else _DERIVED_DICTIONARY_COLUMNS
        # Pictures that repeat are cut into row groups by the plan; a crop is a picture of its own.
        self._rows_per_group = None if repeated else MAX_ROW_GROUP_PICTURES
        self._rows = self._table_bytes = 0

    def __enter__(self) -> "ShardWriter":
        self._sink = NewFile(self._folder / self._path)
        try:
            self._parquet = pq.ParquetWriter(
                self._sink,
                self._schema,
                compression="NONE",
                use_dictionary=self._dictionary_columns,
                dictionary_pagesize_limit=_DICTIONARY_LIMIT,
                write_page_checksum=True,
                write_page_index=True,  # readers of the Hub fetch ranges of pages by it
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
        state = self._sink.commit()
        sha256 = self._sink.sha256
        return WrittenFile(self._path, state.size, sha256, self._rows, self._table_bytes, state.tag)


@functools.lru_cache(64)
def shard_schema(config: str, categories: tuple[str, ...] = CATEGORIES) -> pa.Schema:
    """The Arrow schema of a config's shards, with its features embedded for `load_dataset("parquet", …)`."""
    features = config_features(config, categories)
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
