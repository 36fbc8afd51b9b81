"""What became of every picture and object: the reject ledger, the results of tasks, and a command's report.

The ledger has one JSON line for every `Finding`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tabulate import tabulate

from ImageNet3D import KEPT, REASONS, SPLITS, Finding, Survey
from processing.accounts import Account, Books, CategoryCounts, views_of_pose
from processing.runtime.strict import Field, is_plain_path

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
