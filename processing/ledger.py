"""The reject ledger and the books.

The ledger has one JSON line for every `Finding`. The books count, for every config and split, what was read,
what was written and what was left out for which reason; read = written + left out, or the build fails.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tabulate import tabulate

from ImageNet3D import KEPT, PUBLISHED_CONFIGS, REASONS, SPLITS, Finding, config_splits, known_only

NO_CAPTION = "no_caption"  # a rule of the captions config, not a fault of the release

# Why a posed object has no crop: rules of object_centric. The codes of faults of the release are in REASONS.
IGNORED = "ignore_set"
NO_STATUS = "status_missing"
BAD_STATUS = "status_bad"
NO_DISTANCE = "distance_not_positive"
NO_CENTRE = "centre_missing"
BEYOND_CROPPING = "pose_beyond_cropping"
NAME_TOO_LONG = "file_name_too_long"  # of the command `crop` alone
CROP_RULES = {
    IGNORED: "an object carries the old ignore flag",
    NO_STATUS: "an object has no status",
    BAD_STATUS: "an object's status is bad",
    NO_DISTANCE: "an object was never placed in depth: its distance is absent or not above 0",
    NO_CENTRE: "where an object's centre projects is not annotated: px or py is absent",
    BEYOND_CROPPING: "a distance, centre or box is so far out that no crop of it makes sense",
    NAME_TOO_LONG: "the names of the crop's files would be longer than the 255 bytes that file systems allow",
}


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

    def add(self, other: "Account") -> None:
        """Add another account of the same config and split."""
        self.read += other.read
        self.written += other.written
        self.left_out.update(other.left_out)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"read": self.read, "written": self.written, "left_out": dict(sorted(self.left_out.items()))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Account":
        """The inverse of `to_dict`."""
        return cls(data["read"], data["written"], Counter(data["left_out"]))


class UnbalancedBooksError(RuntimeError):
    """Rows went missing on the way: a fault of this program, never of the data."""


class Books:
    """The accounts of a build, by config and split; the split "" holds what no list names."""

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


def _unit(config: str) -> str:
    units = {"classification": "pictures", "captions": "pictures", "cad": "meshes"}
    return units.get(config, "categories" if config == "categories" else "objects")


def _reasons(account: Account) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in account.left_out.most_common())


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


def degrees_warning(findings: Iterable[Finding], posed: Mapping[str, int]) -> str:
    """What to say first of all where angles of some categories look like degrees; "" where none do.

    Args:
        posed: category -> posed objects.
    """
    counts = Counter(f.file.split("/")[1] for f in findings if f.reason == "angle_beyond_two_turns")
    parts = {name: count for name, count in sorted(counts.items()) if count >= _MANY * posed.get(name, 0)}
    if not parts:
        return ""
    shown_parts = ", ".join(f"{name} {count:,} of {posed.get(name, 0):,}" for name, count in parts.items())
    return (
        "ANGLES LOOK LIKE DEGREES: many are beyond 4π, and columns and users take them for radians. "
        f"Look at these categories before anything is published: {shown_parts} posed objects"
    )


def views_of_pose(split: str, known: bool) -> Iterable[str]:
    """The open_vocab configs that show a pose shard of this split and kind."""
    for config in ("open_vocab_known", "open_vocab_unknown"):
        if known_only(config) is known and split in config_splits(config):
            yield config
