"""The rows of the config categories: what there is of each category, counted while the shards are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa

from ImageNet3D import KNOWN_CATEGORIES, Release, Survey
from processing.accounts import CategoryCounts
from processing.configs import CATEGORY_COUNTS, config_features


def categories_of(survey: Survey) -> list[str]:
    """The folders of a release that hold a picture, an annotation or a mesh, or a list names them."""
    pictures = (*survey.left_out, *(entry for split in survey.entries.values() for entry in split))
    meshes = (file.split("/")[1] for file in survey.release.meshes)
    return sorted({*(entry.category for entry in pictures), *meshes})


def table(names: Sequence[str], found: CategoryCounts, release: Release, with_meshes: bool) -> pa.Table:
    """The rows of categories, as an Arrow table of the config's features.

    Args:
        names: of the rows; those that have no label, since no list or mesh names them, have none.
        found: in all shards.
        release: with the captions and the names of label ids.
        with_meshes: whether cad was built, so that its rows can be counted; else num_meshes is null.
    """
    labels = {name: label for label, name in enumerate(release.categories)}
    rows = [
        {
            "name": name,
            "category": labels[name],
            "known": name in KNOWN_CATEGORIES,
            "caption": release.category_captions.get(name),
            **{column: found.counts.get(name, Counter())[column] for column in CATEGORY_COUNTS},
            "num_meshes": found.counts.get(name, Counter())["num_meshes"] if with_meshes else None,
        }
        for name in names
        if name in labels
    ]
    schema = pa.schema(list(config_features("categories", release.categories).arrow_schema))
    return pa.Table.from_pylist(rows, schema)
