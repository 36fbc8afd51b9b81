"""What a command made of the release, in numbers: accounts of every config and split, and of every category.

For every config and split it is counted what was read, what was written and what was left out for which
reason; read = written + left out, or the build fails.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from tabulate import tabulate

from ImageNet3D import CATEGORIES, OBJECT_STATUS, SPLITS, Picture, known_only
from processing.configs import PUBLISHED_CONFIGS, config_splits
from processing.runtime.strict import Field

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


def views_of_pose(split: str, known: bool | None) -> Iterable[str]:
    """The open_vocab configs that show a pose shard of this split and kind."""
    for config in ("open_vocab_known", "open_vocab_unknown"):
        if known_only(config) is known and split in config_splits(config):
            yield config
