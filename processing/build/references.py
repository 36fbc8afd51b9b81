"""Writes the configs that the rows of others refer to, meshes and categories, in shards of their own.

They follow the rules of `shards`: a file gets its name when it is whole and its marker after that, so that
running again goes on. Meshes are cut into shards by category and index; categories are one small file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ImageNet3D import Finding, Release, Survey, shown
from processing.accounts import Account, CategoryCounts
from processing.build import cad, categories
from processing.build.cad import MeshEntry
from processing.build.plan import MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_PICTURES, runs
from processing.build.shards import ShardWriter
from processing.built import numbered, shard_path
from processing.configs import config_splits
from processing.drawing.mesh import MeshError
from processing.ledger import ShardResult
from processing.run import Run


@dataclass(frozen=True)
class ReferenceShard:
    """One file of a config that has no pictures of the release.

    Attributes:
        config: of `REFERENCE_TABLES`.
        number: from 0.
        total: files of the config.
        meshes: that are to be in it, in order; of cad alone.
    """

    config: str
    number: int
    total: int
    meshes: tuple[MeshEntry, ...] = ()

    @property
    def split(self) -> str:
        """The only split."""
        return config_splits(self.config)[0]

    @property
    def name(self) -> str:
        """Of its marker."""
        return f"{self.config}-{self._stem}"

    @property
    def path(self) -> str:
        """Of its file inside the built folder."""
        return shard_path(self.config, self._stem)

    @property
    def _stem(self) -> str:
        return f"{self.split}-{numbered(self.number, self.total)}"


def plan_references(survey: Survey, tables: Sequence[str], shard_size: int) -> list[ReferenceShard]:
    """The shards of cad and categories; categories come last, for they count what is in all others.

    Args:
        tables: configs to build.
        shard_size: bytes of .off files a shard of cad should have at most; as GLB they take about half.
    """
    planned: list[ReferenceShard] = []
    if "cad" in tables:
        parts = list(runs(cad.meshes_of(survey), lambda entry: entry.size, shard_size))
        planned += [ReferenceShard("cad", number, len(parts), part) for number, part in enumerate(parts)]
    if "categories" in tables:
        planned.append(ReferenceShard("categories", 0, 1))
    return planned


def write_meshes(release: Release, shard: ReferenceShard, run: Run) -> ShardResult:
    """Read a shard's meshes and write its file; memory holds one row group at a time.

    Raises:
        OSError: if the folder cannot be written; nothing half-written carries a final name then.
    """
    if (done := run.finished(shard.name)) is not None:
        return done
    result = ShardResult(shard.name, shard.split, None)
    result.accounts[shard.config] = Account(read=len(shard.meshes))
    with ShardWriter(run.folder, shard.path, shard.config, release.categories) as writer:
        for rows in _row_groups(_mesh_rows(release, shard.meshes, result)):
            writer.write(cad.table(rows, release.categories))
        run.check(shard.name)
        _finish(writer, result, shard)
    run.finish(result)
    return result


def _mesh_rows(
    release: Release, meshes: Iterable[MeshEntry], result: ShardResult
) -> Iterator[dict[str, Any]]:
    """The rows of the meshes that can be used; the others are entered in `result`."""
    account = result.accounts["cad"]
    for entry in meshes:
        if entry.reason:  # which the survey has found, and told
            account.left_out[entry.reason] += 1
            continue
        try:
            row = cad.row(release.tree, entry, release.categories)
        except MeshError as error:
            reason = error.reason or "mesh_damaged"  # without one it vanished since the survey
            what = shown(str(error).removeprefix(f"{entry.file}: "))
            result.findings.append(Finding(reason, entry.file, None, what))
            account.left_out[reason] += 1
        else:
            result.categories.add_mesh(entry.category)
            yield row


def _row_groups(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], ...]]:
    """Runs within the limits of a row group."""

    def size(row: dict[str, Any]) -> int:
        return len(row["image"]["bytes"]) + len(row["mesh"]["bytes"])

    return runs(rows, size, MAX_ROW_GROUP_BYTES, MAX_ROW_GROUP_PICTURES)


def write_categories(
    survey: Survey, shard: ReferenceShard, results: Iterable[ShardResult], run: Run
) -> ShardResult:
    """Write the file of categories from what all other shards came to.

    Args:
        results: of all other shards.

    Raises:
        OSError: if the folder cannot be written.
    """
    if (done := run.finished(shard.name)) is not None:
        return done
    found, with_meshes = CategoryCounts(), False
    for other in results:
        found.add(other.categories)
        with_meshes = with_meshes or "cad" in other.accounts
    names = categories.categories_of(survey)
    result = ShardResult(shard.name, shard.split, None)
    account = result.accounts[shard.config] = Account(read=len(names))
    labels = survey.release.categories
    if unlisted := sum(name not in labels for name in names):
        account.left_out["picture_unlisted"] = unlisted  # all there is of these categories
    with ShardWriter(run.folder, shard.path, shard.config, labels) as writer:
        writer.write(categories.table(names, found, survey.release, with_meshes))
        _finish(writer, result, shard)
    run.finish(result)
    return result


def _finish(writer: ShardWriter, result: ShardResult, shard: ReferenceShard) -> None:
    if (written := writer.finish()) is not None:
        result.files[shard.config] = written
        result.accounts[shard.config].written = written.rows
