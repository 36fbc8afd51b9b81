"""What became of every picture and object: the reject ledger, the books, and what a command reports of them.

The ledger has one JSON line for every `Finding`. The books count, for every config and split, what was read,
what was written and what was left out for which reason; read = written + left out, or the build fails.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
from tabulate import tabulate

from ImageNet3D import CATEGORIES, KEPT, OBJECT_STATUS, REASONS, SPLITS, Finding, Picture, Survey, known_only
from processing.configs import PUBLISHED_CONFIGS, config_splits
from processing.runtime.strict import Field, is_plain_path

NO_CAPTION = "no_caption"  # a rule of the captions config, not a fault of the release

# Why a posed object has no crop: rules of object_centric. The codes of faults of the release are in REASONS.
IGNORED = "ignore_set"
NO_STATUS = "status_missing"
BAD_STATUS = "status_bad"
NO_DISTANCE = "distance_not_positive"
NO_CENTRE = "centre_missing"
BEYOND_CROPPING = "pose_beyond_cropping"
EMPTY_CROP = "crop_empty"
NAME_TOO_LONG = "file_name_too_long"  # of the command `crop` alone
CROP_RULES = {
    IGNORED: "an object carries the old ignore flag",
    NO_STATUS: "an object has no status",
    BAD_STATUS: "an object's status is bad",
    NO_DISTANCE: "an object was never placed in depth: its distance is absent or not above 0",
    NO_CENTRE: "where an object's centre projects is not annotated: px or py is absent",
    BEYOND_CROPPING: "a distance, centre or box is so far out that no crop of it makes sense",
    EMPTY_CROP: "nothing of the picture would be in a crop about the object's centre: it would be black",
    NAME_TOO_LONG: "the names of the crop's files would be longer than the 255 bytes that file systems allow",
}

SHA256 = "[0-9a-f]{64}"


def finding_to_json(finding: Finding, split: str) -> str:
    """One line of the ledger."""
    line = {
        "split": split,
        "file": finding.file,
        "object": finding.object_index,
        "reason": finding.reason,
        "decision": finding.decision,
        "value": finding.value,
    }
    return json.dumps(line)


def finding_from_json(line: str, file: str) -> tuple[str, Finding]:
    """The inverse of `finding_to_json`: split and finding.

    Args:
        file: that the line is of, for messages.

    Raises:
        DamagedError: for anything else.
    """
    data = Field.parse(file, line)
    index = data.get("object")
    return data["split"].text(), _finding(data, None if index is None else index.count())


def _finding(data: Field, index: int | None) -> Finding:
    reason = data["reason"].text()
    if reason not in REASONS:
        data["reason"].refuse("a code of REASONS")
    return Finding(reason, data["file"].text(), index, data["value"].text())


@dataclass
class Account:
    """What became of a config's rows in one split; the unit is a config's row, an object or a picture."""

    read: int = 0
    written: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def balanced(self) -> bool:
        """Whether every row is accounted for."""
        return self.read == self.written + self.left_out.total()

    def add(self, other: Account) -> None:
        """Add another account of the same config and split."""
        self.read += other.read
        self.written += other.written
        self.left_out.update(other.left_out)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"read": self.read, "written": self.written, "left_out": dict(sorted(self.left_out.items()))}

    @classmethod
    def from_field(cls, data: Field) -> Account:
        """The inverse of `to_dict`.

        Raises:
            DamagedError: for anything else.
        """
        left_out = Counter(data["left_out"].map(Field.count))
        return cls(data["read"].count(), data["written"].count(), left_out)


class UnbalancedBooksError(RuntimeError):
    """Rows went missing on the way: a fault of this program, never of the data."""


class Books:
    """Accounts by config and split; the split "" holds what no list names."""

    def __init__(self) -> None:
        self.accounts: dict[tuple[str, str], Account] = {}

    def account(self, config: str, split: str) -> Account:
        """The account, made if it is new."""
        return self.accounts.setdefault((config, split), Account())

    def check(self) -> None:
        """Raise UnbalancedBooksError where read is not written + left out."""
        for (config, split), account in self.accounts.items():
            if not account.balanced:
                raise UnbalancedBooksError(
                    f"{config} {split or 'unlisted'}: read {account.read}, written {account.written}, "
                    f"left out {account.left_out.total()}; please report this"
                )

    def table(self) -> str:
        """The closing table of a build: counts, then the reasons."""
        order = {(config, split): None for config in PUBLISHED_CONFIGS for split in (*SPLITS, "")}
        rows = [
            (config, split or "unlisted", _unit(config), a.read, a.written, a.left_out.total(), _reasons(a))
            for config, split in order
            if (a := self.accounts.get((config, split))) is not None
        ]
        head = ("config", "split", "rows are", "read", "written", "left out", "why")
        return tabulate(rows, head, tablefmt="simple", intfmt=",")

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """For JSON: config -> split -> account."""
        data: dict[str, dict[str, Any]] = {}
        for (config, split), account in sorted(self.accounts.items()):
            data.setdefault(config, {})[split] = account.to_dict()
        return data

    @classmethod
    def from_field(cls, data: Field) -> Books:
        """The inverse of `to_dict`.

        Raises:
            DamagedError: for anything else.
        """
        books = cls()
        for config, splits in data.items():
            if config not in PUBLISHED_CONFIGS:
                data.refuse("accounts of the published configs")
            books.accounts |= {(config, split): Account.from_field(found) for split, found in splits.items()}
        return books


def _unit(config: str) -> str:
    units = {"classification": "pictures", "captions": "pictures", "cad": "meshes"}
    return units.get(config, "categories" if config == "categories" else "objects")


def _reasons(account: Account) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in account.left_out.most_common())


def label_names(schema: pa.Schema) -> tuple[str, ...]:
    """The categories that a shard's label ids stand for, from the features embedded in its schema.

    They are `CATEGORIES`, and behind them those that the code did not know when the shard was written.
    """
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        names = tuple(features["label" if "label" in features else "category"]["names"])
    except (KeyError, TypeError, ValueError):  # of another's making
        return CATEGORIES
    return names if names[: len(CATEGORIES)] == CATEGORIES else CATEGORIES


@dataclass
class CategoryCounts:
    """What some shards hold, by category.

    Attributes:
        counts: category -> columns of `CATEGORY_COUNTS` and, of meshes, "num_meshes" -> how many.
    """

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add_pictures(self, split: str, pictures: Iterable[Picture]) -> None:
        """Count pictures, which have rows in classification, and their posed objects, which have in pose."""
        for picture in pictures:
            counts = self.counts.setdefault(picture.entry.category, Counter())
            counts[f"{split}_pictures"] += 1
            for item in picture.annotation.objects:
                if item.posed:
                    counts[f"{split}_objects"] += 1
                    counts[f"{split}_{item.object_status or 'no_status'}"] += 1

    def add_rows(self, config: str, split: str, table: pa.Table) -> None:
        """Count the same in written rows of classification or pose; rows of other configs do not count."""
        if config == "classification":
            columns = [("pictures", table["label"].to_pylist())]
        elif config == "pose":
            labels, statuses = table["category"].to_pylist(), table["object_status"].to_pylist()
            columns = [("objects", labels)]
            for status, word in ((None, "no_status"), *enumerate(OBJECT_STATUS)):
                own = [label for label, found in zip(labels, statuses, strict=True) if found == status]
                columns.append((word, own))
        else:
            return
        names = label_names(table.schema)
        for word, labels in columns:
            for label, count in Counter(labels).items():
                if label is not None and 0 <= label < len(names):
                    self.counts.setdefault(names[label], Counter())[f"{split}_{word}"] += count

    def add_mesh(self, category: str) -> None:
        """Count a mesh that has a row in cad."""
        self.counts.setdefault(category, Counter())["num_meshes"] += 1

    def add(self, other: CategoryCounts) -> None:
        """Add the counts of other shards."""
        for category, counts in other.counts.items():
            self.counts.setdefault(category, Counter()).update(counts)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """For JSON."""
        return {category: dict(sorted(counts.items())) for category, counts in sorted(self.counts.items())}

    @classmethod
    def from_field(cls, data: Field) -> CategoryCounts:
        """The inverse of `to_dict`.

        Raises:
            DamagedError: for anything else.
        """
        return cls(data.map(lambda counts: Counter(counts.map(Field.count))))


@dataclass(frozen=True)
class WrittenFile:
    """One file as it was written.

    Attributes:
        path: inside its folder.
        size: bytes of the file.
        sha256: hexadecimal.
        rows: of a Parquet file.
        table_bytes: of the rows as Arrow tables.
        tag: of the content, as the store gave it; "" on a disk.
    """

    path: str
    size: int
    sha256: str
    rows: int = 0
    table_bytes: int = 0
    tag: str = ""

    @classmethod
    def from_field(cls, data: Field) -> WrittenFile:
        """From what `asdict` gives.

        Raises:
            DamagedError: for anything else.
        """
        if not is_plain_path(data["path"].text()):
            data["path"].refuse("the path of a file inside the folder")
        counts = {name: data[name].count() for name in ("size", "rows", "table_bytes")}
        return cls(data["path"].text(), sha256=data["sha256"].text(SHA256), tag=data["tag"].text(), **counts)


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

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "accounts": {config: account.to_dict() for config, account in self.accounts.items()},
            "categories": self.categories.to_dict(),
            "unknown_keys": dict(self.unknown_keys),
        }

    @classmethod
    def from_field(cls, data: Field) -> ShardResult:
        """The inverse of `to_dict`.

        Raises:
            DamagedError: for anything else.
        """
        found = data["findings"].elements()
        return cls(
            data["name"].text(),
            data["split"].text(),
            None if data.get("known") is None else data["known"].flag(),
            data["files"].map(WrittenFile.from_field),
            data["accounts"].map(Account.from_field),
            [_finding(f, None if (i := f.get("object_index")) is None else i.count()) for f in found],
            data["pictures"].count(),
            data["objects"].count(),
            CategoryCounts.from_field(data["categories"]),
            Counter(data["unknown_keys"].map(Field.count)),
        )


@dataclass
class Report:
    """What a command made of the whole release.

    Attributes:
        books: accounts by config and split.
        findings: split and finding, of the whole release.
        pictures, objects: in the release.
        categories: what there is of each.
        unknown_keys: name of a key that no column is made of -> objects that have it.
        notes: what else whoever ran it should know.
    """

    books: Books = field(default_factory=Books)
    findings: list[tuple[str, Finding]] = field(default_factory=list)
    pictures: int = 0
    objects: int = 0
    categories: CategoryCounts = field(default_factory=CategoryCounts)
    unknown_keys: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = f"{self.pictures:,} pictures and {self.objects:,} objects in the release"
        posed = {
            name: sum(counts[f"{split}_objects"] for split in SPLITS)
            for name, counts in self.categories.counts.items()
        }
        parts = [*alarms([finding for _, finding in self.findings], posed), self.books.table()]
        if self.findings:
            parts.append(findings_table(finding.reason for _, finding in self.findings))
        return "\n\n".join([*parts, *([total] if self.pictures else ()), *self.notes])

    def ledger(self) -> bytes:
        """The lines of the ledger."""
        return "".join(finding_to_json(finding, split) + "\n" for split, finding in self.findings).encode()


def report_of(survey: Survey, results: Iterable[ShardResult]) -> Report:
    """What became of the whole release."""
    report = Report(findings=[("", finding) for finding in survey.findings])
    for result in results:
        report.pictures += result.pictures
        report.objects += result.objects
        report.findings += [(result.split, finding) for finding in result.findings]
        report.unknown_keys.update(result.unknown_keys)
        report.categories.add(result.categories)
        for config, account in result.accounts.items():
            report.books.account(config, result.split).add(account)
        if "pose" in result.accounts:
            for config in views_of_pose(result.split, result.known):
                report.books.account(config, result.split).add(result.accounts["pose"])
    report.findings += [("", finding) for finding in unknown_key_findings(report.unknown_keys)]
    return report


def findings_table(reasons: Iterable[str]) -> str:
    """How often each reason was found, and what was done about it."""
    counts = Counter(reasons)
    rows = [(code, REASONS[code].decision, count, REASONS[code].rule) for code, count in counts.most_common()]
    return tabulate(rows, ("finding", "decision", "count", "rule"), tablefmt="simple", intfmt=",")


def reason_of_objects(findings: Iterable[Finding]) -> dict[tuple[str, int], str]:
    """(annotation file, object index) -> the first reason why an object has no row in pose."""
    reasons: dict[tuple[str, int], str] = {}
    for finding in findings:
        if finding.object_index is not None and finding.decision != KEPT:
            reasons.setdefault((finding.file, finding.object_index), finding.reason)
    return reasons


def unknown_key_findings(counts: Mapping[str, int]) -> Iterator[Finding]:
    """One finding for each key of objects that no column is made of."""
    for name, count in sorted(counts.items()):
        yield Finding("key_unknown", "annotations", None, f"{name}: {count} objects")


# Of a category's posed objects: less may be slips of the annotation tool, whose buttons turn on without end.
_MANY = 0.05


def alarms(findings: Sequence[Finding], posed: Mapping[str, int]) -> list[str]:
    """What to say first of all, before any count, since it must be settled before anything is published.

    Args:
        posed: category -> posed objects.
    """
    unknown = [finding.value for finding in findings if finding.reason == "category_unknown"]
    later = "\n  ".join(["UNKNOWN CATEGORIES, whose label ids may still move:", *unknown])
    return [text for text in (_degrees(findings, posed), later if unknown else "") if text]


def _degrees(findings: Sequence[Finding], posed: Mapping[str, int]) -> str:
    """Which categories' angles look like degrees; "" where none do."""
    counts = Counter(f.file.split("/")[1] for f in findings if f.reason == "angle_beyond_two_turns")
    parts = {name: count for name, count in sorted(counts.items()) if count >= _MANY * posed.get(name, 0)}
    if not parts:
        return ""
    shown_parts = ", ".join(f"{name} {count:,} of {posed.get(name, 0):,}" for name, count in parts.items())
    return (
        "ANGLES LOOK LIKE DEGREES: many are beyond 4π, and columns and users take them for radians. "
        f"Look at these categories before anything is published: {shown_parts} posed objects"
    )


def views_of_pose(split: str, known: bool | None) -> Iterable[str]:
    """The open_vocab configs that show a pose shard of this split and kind."""
    for config in ("open_vocab_known", "open_vocab_unknown"):
        if known_only(config) is known and split in config_splits(config):
            yield config
