"""The rows of the config categories: what there is of each category, counted while the shards are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

import ImageNet3D
from ImageNet3D import (
    CATEGORIES,
    CATEGORY_COUNTS,
    CATEGORY_IDS,
    KNOWN_CATEGORIES,
    OBJECT_STATUS,
    Picture,
    Survey,
)


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
        for word, labels in columns:
            for label, count in Counter(labels).items():
                if label is not None and 0 <= label < len(CATEGORIES):
                    self.counts.setdefault(CATEGORIES[label], Counter())[f"{split}_{word}"] += count

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
    def from_dict(cls, data: Mapping[str, Mapping[str, int]]) -> CategoryCounts:
        """The inverse of `to_dict`."""
        return cls({category: Counter(counts) for category, counts in data.items()})


def categories_of(survey: Survey) -> list[str]:
    """The folders of a release that hold a picture, an annotation or a mesh, or a list names them."""
    pictures = (*survey.left_out, *(entry for split in survey.entries.values() for entry in split))
    meshes = (file.split("/")[1] for file in survey.release.meshes)
    return sorted({*(entry.category for entry in pictures), *meshes})


def table(
    names: Sequence[str], found: CategoryCounts, captions: Mapping[str, str], with_meshes: bool
) -> pa.Table:
    """The rows of categories, as an Arrow table of the config's features.

    Args:
        names: of the rows; those that are none of `CATEGORIES` have none.
        found: in all shards.
        captions: category -> text.
        with_meshes: whether cad was built, so that its rows can be counted; else num_meshes is null.
    """
    rows = [
        {
            "name": name,
            "category": CATEGORY_IDS[name],
            "known": name in KNOWN_CATEGORIES,
            "caption": captions.get(name),
            **{column: found.counts.get(name, Counter())[column] for column in CATEGORY_COUNTS},
            "num_meshes": found.counts.get(name, Counter())["num_meshes"] if with_meshes else None,
        }
        for name in names
        if name in CATEGORY_IDS
    ]
    schema = pa.schema(list(ImageNet3D.config_features("categories").arrow_schema))
    return pa.Table.from_pylist(rows, schema)
