"""Checks of a built folder as a whole: its files, names, books and card."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import yaml
from huggingface_hub import DatasetCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from processing.accounts import label_names
from processing.built import CARD, CROISSANT, LEDGER, MANIFEST, RUN, SHARD_NAME, Built, finding_counts
from processing.configs import (
    ALL_TABLES,
    PICTURE_TABLES,
    PUBLISHED_CONFIGS,
    REFERENCE_TABLES,
    config_features,
    table_of,
)
from processing.runtime.strict import DamagedError, Field
from processing.verify.checks import VIEWER_PAGE_BYTES, VIEWER_PAGE_ROWS, Problem, ShardFacts

_REFERENCE_NAME = re.compile(r"(train)-(\d{5,})-of-(\d{5,})")


def check_listing(built: Built) -> Iterator[Problem]:
    """The folder holds what the manifest lists, and nothing else.

    In a download from the Hub there may be more, the raw release and what people added, but for files that
    loaders would take for the dataset's.
    """
    present = set(built.files())
    for path in built.manifest.files.keys() - present:
        yield Problem(path, "file_missing")
    for path in present - built.manifest.files.keys() - {MANIFEST}:
        table = path.partition("/")[0] if path.endswith(".parquet") else ""
        if RUN in built.present or table in ALL_TABLES or path.endswith(".py"):
            yield Problem(path, "file_unlisted")


def check_names(built: Built) -> Iterator[Problem]:
    """Shards are numbered through, those of pictures over both kinds."""
    numbers: dict[tuple[str, str, str], list[int]] = {}
    for name in built.manifest.shards:
        if (match := SHARD_NAME.fullmatch(name)) is None:
            yield Problem(name, "shard_name")
        else:
            numbers.setdefault(("", match[1], match[3]), []).append(int(match[2]))
    for path in built.manifest.files:
        config, _, name = path.removesuffix(".parquet").partition("/")
        if config in REFERENCE_TABLES and (match := _REFERENCE_NAME.fullmatch(name)) is not None:
            numbers.setdefault((config, match[1], match[3]), []).append(int(match[2]))
        elif config in REFERENCE_TABLES or (config in PICTURE_TABLES and name not in built.manifest.shards):
            yield Problem(path, "shard_name", "not planned")
    for (config, split, total), found in numbers.items():
        if sorted(found) != list(range(int(total))):
            yield Problem(f"{config} {split}".strip(), "shard_name", f"{len(found)} shards of {int(total)}")


def check_pictures_once(facts: Iterable[ShardFacts]) -> Iterator[Problem]:
    """A picture is in one shard, and so in one split."""
    seen: dict[str, str] = {}
    for fact in facts:
        for image_id in sorted(fact.image_ids):
            first = seen.setdefault(image_id, fact.name)
            if first != fact.name:
                same = first.partition("-")[0] == fact.name.partition("-")[0]
                yield Problem(
                    fact.name, "key_duplicate" if same else "split_overlap", f"{image_id}, also in {first}"
                )


def check_books(built: Built, rows: Mapping[str, int]) -> Iterator[Problem]:
    """Rows are as many as were written, the books balance, and the ledger has every finding.

    Args:
        rows: path -> rows.
    """
    manifest = built.manifest
    for path, entry in manifest.files.items():
        if path in rows and rows[path] != entry.rows:
            yield Problem(path, "books", f"{rows[path]:,} rows, {entry.rows:,} written")
    for (config, split), account in manifest.books.accounts.items():
        where = f"{config} {split or 'unlisted'}"
        if not account.balanced:
            yield Problem(where, "books", "read is not written + left out")
        if config in ALL_TABLES:
            paths = [path for path in manifest.paths_of(config) if path.startswith(f"{config}/{split}-")]
            if (listed := sum(manifest.files[path].rows for path in paths)) != account.written and split:
                yield Problem(where, "books", f"{listed:,} rows are listed, {account.written:,} written")
    if built.ledger is not None and finding_counts(built.ledger) != manifest.findings:
        yield Problem(LEDGER, "books", "the ledger has other findings than the manifest counts")


def check_version(built: Built) -> Iterator[Problem]:
    """The manifest has the version that Croissant's metadata has."""
    if CROISSANT in built.present:
        try:
            data = (built.folder / CROISSANT).read_bytes()
            version = Field.parse(CROISSANT, data)["version"].text()
        except DamagedError as error:
            yield Problem(CROISSANT, "version_differs", str(error))
            return
        if version != built.manifest.version:
            yield Problem(MANIFEST, "version_differs", f"{built.manifest.version}, and {version} there")


def check_card(built: Built, seen: ShardFacts) -> Iterator[Problem]:
    """The card's YAML names the features, files and counts of every config, within the viewer's limits."""
    text = (built.folder / CARD).read_bytes()
    try:
        block = REGEX_YAML_BLOCK.search(text.decode())
        card = DatasetCardData(**(_yaml(block[2]) if block else {}))
        if not (listed := card.get("configs")):
            yield Problem(CARD, "card", "no YAML at its top, or no configs in it")
            return
        infos = datasets.info.DatasetInfosDict.from_dataset_card_data(card)
        patterns = {c["config_name"]: {f["split"]: f["path"] for f in c["data_files"]} for c in listed}
        counts = {c: {s: split.num_examples for s, split in infos[c].splits.items()} for c in infos}
    except Exception as error:  # YAML that anyone may have edited fails in many ways
        yield Problem(CARD, "card", f"{type(error).__name__}: {error}")
        return
    for config in (name for name in PUBLISHED_CONFIGS if name in counts.keys() | patterns.keys()):
        if counts.get(config, {}).keys() != patterns.get(config, {}).keys():
            yield Problem(CARD, "card", f"configs and dataset_info name other splits of {config}")
            continue
        names = label_names(infos[config].features.arrow_schema)
        if infos[config].features != config_features(config, names):
            yield Problem(CARD, "card", f"the features of {config}")
        for split, pattern in patterns[config].items():
            files = built.matching(pattern)
            if files != built.files_of(config, split):
                yield Problem(CARD, "card", f"{config} {split} shows {pattern}")
            elif seen.rows.keys() >= set(files):  # else one could not be read, which is said already
                yield from _check_split(f"{config} {split}", files, counts[config][split], seen)
    written = {table for table in built.manifest.tables if built.manifest.paths_of(table)}
    for table in written - {table_of(config) for config in patterns}:
        yield Problem(CARD, "card", f"no config shows {table}")


def _yaml(block: str) -> Any:
    """What `yaml.safe_load` gives, in C where there is libyaml: a card is read in a tenth of the time."""
    return yaml.load(block, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506 - both are safe


def _check_split(where: str, files: Sequence[str], expected: int, seen: ShardFacts) -> Iterator[Problem]:
    """One split of a config: its count, and what the viewer makes of it."""
    if (total := sum(seen.rows[path] for path in files)) != expected:
        yield Problem(CARD, "card", f"{where}: {total:,} rows, the card says {expected:,}")
    if not total:
        yield Problem(where, "viewer_empty_split")
    yield from check_pages(where, [size for path in files for size in seen.row_groups[path]])
    values: Counter[str] = Counter()
    for path in files:
        values.update(seen.values.get(path, {}))
    if lone := [column for column, count in values.items() if count == 1]:
        yield Problem(where, "viewer_lone_value", ", ".join(lone))


def check_pages(where: str, row_groups: Sequence[tuple[int, int]]) -> Iterator[Problem]:
    """No page of the viewer lies in row groups of more bytes than it fetches.

    Args:
        row_groups: (rows, bytes) of each, in the order of the split.
    """
    ends = list(itertools.accumulate(rows for rows, _ in row_groups))
    starts = [0, *ends[:-1]]
    total = ends[-1] if ends else 0
    worst = (0, 0)
    first = 0
    for page in range(0, total, VIEWER_PAGE_ROWS):
        while ends[first] <= page:
            first += 1
        size = 0
        for number in range(first, len(row_groups)):
            if starts[number] >= page + VIEWER_PAGE_ROWS:
                break
            size += row_groups[number][1]
        worst = max(worst, (size, page))
    if worst[0] > VIEWER_PAGE_BYTES:
        yield Problem(where, "viewer_page", f"rows from {worst[1]:,} on: {worst[0]:,} bytes")
