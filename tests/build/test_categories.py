"""The config categories: counts that agree with the rows, however a build came to its end."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support import SHARED
from support.raw_tree import RawTreeWriter, an_object
from support.reference import reference_categories, reference_rows

from ImageNet3D import CATEGORIES, CATEGORY_IDS
from processing.accounts import Account
from processing.build.command import build
from processing.ledger import ShardResult
from processing.run import Run
from processing.runtime.strict import Field

FILE = "categories/train-00000-of-00001.parquet"


def rows(out: Path) -> dict[str, dict[str, Any]]:
    """Name -> row, of a built folder."""
    found = pq.read_table(out / FILE).to_pylist()
    assert len({row["name"] for row in found}) == len(found)
    return {row["name"]: row for row in found}


def expected(tree: Path, captions: Path) -> dict[str, Mapping[str, Any]]:
    """The same from the raw tree, read by the reference; labels as ids."""
    found = reference_categories(tree, captions, reference_rows(tree, captions))
    return {name: {**row, "category": CATEGORY_IDS[name]} for (name, _), row in found.items()}


def counts(row: Mapping[str, Any]) -> dict[str, int]:
    """What is there at all."""
    words = ("train_", "validation_", "num_")
    return {name: count for name, count in row.items() if name.startswith(words) and count}


class TestCounts:
    def test_of_the_real_sample(self, built_real: Path, real_folder: Path) -> None:
        found = rows(built_real)
        assert found == expected(real_folder / "imagenet3d_v1", SHARED)
        assert len(found) > 100
        assert list(found) == sorted(found)

    def test_of_the_synthetic_tree(self, built_sample: Path, sample_folder: Path) -> None:
        found = rows(built_sample)
        assert found == expected(sample_folder, sample_folder / "captions")
        assert any(row["train_no_status"] for row in found.values())

    def test_agree_with_the_rows_of_pose(self, built_sample: Path) -> None:
        tables = [pq.read_table(path, columns=["category"]) for path in built_sample.glob("pose/train-*")]
        labels = [CATEGORIES[label] for table in tables for label in table["category"].to_pylist()]
        found = rows(built_sample)
        assert {name: row["train_objects"] for name, row in found.items() if row["train_objects"]} == {
            name: labels.count(name) for name in set(labels)
        }
        for row in found.values():
            for split in ("train", "validation"):
                parts = ("good", "partially", "barely", "bad", "no_status")
                assert sum(row[f"{split}_{part}"] for part in parts) == row[f"{split}_objects"]


class TestRows:
    def test_one_for_each_category_that_the_release_has(self, tmp_path: Path) -> None:
        tree = RawTreeWriter().sound("bed", ("a", "b"), ("v",)).mesh("ax").sound("spaceship")
        tree.lists("kettle", ["gone"])  # neither a picture nor an annotation
        tree.picture("chair", "unlisted")
        tree.annotation(
            "bed", "a", an_object(), an_object(object_status="status_bad"), an_object(azimuth=...)
        )
        tree.captions(categories={"bed": "to sleep in"})
        report = build(tree.zip(tmp_path / "raw.zip"), tmp_path / "out", workers=1)
        found = rows(tmp_path / "out")
        assert {name: counts(row) for name, row in found.items()} == {
            "ax": {"num_meshes": 1},
            "bed": {
                "train_pictures": 2,
                "train_objects": 3,
                "train_good": 2,
                "train_bad": 1,
                "validation_pictures": 1,
                "validation_objects": 1,
                "validation_good": 1,
                "num_meshes": 1,
            },
            "chair": {},
            "kettle": {},
            "spaceship": {
                **dict.fromkeys(("train_pictures", "train_objects", "train_good"), 1),
                **dict.fromkeys(("validation_pictures", "validation_objects", "validation_good"), 1),
                "num_meshes": 1,
            },
        }
        assert [row["caption"] for row in found.values()] == [None, "to sleep in", None, None, None]
        assert [row["known"] for row in found.values()] == [True, True, False, False, False]
        account = report.books.accounts["categories", "train"]
        assert (account.read, account.written, account.left_out) == (5, 5, {})

    def test_a_mesh_that_is_left_out_does_not_count(self, tmp_path: Path) -> None:
        tree = RawTreeWriter().sound("bed").mesh("bed", 2)
        tree.files["CAD/bed/03.off"] = b"OFF\n"
        build(tree.zip(tmp_path / "raw.zip"), tmp_path / "out", configs=["cad", "categories"], workers=1)
        assert rows(tmp_path / "out")["bed"]["num_meshes"] == 2

    def test_alone_it_counts_the_same_but_for_meshes(
        self, built_sample: Path, sample_folder: Path, tmp_path: Path
    ) -> None:
        build(str(sample_folder), tmp_path / "out", configs=["categories"], workers=1)
        assert rows(tmp_path / "out") == {
            name: {**row, "num_meshes": None} for name, row in rows(built_sample).items()
        }
        assert {path.parent.name for path in (tmp_path / "out").glob("*/*.parquet")} == {"categories"}

    def test_is_shown_as_text_labels_and_numbers(self, built_sample: Path) -> None:
        schema = pq.read_schema(built_sample / FILE)
        assert [str(schema.field(name).type) for name in ("name", "category", "known", "caption")] == [
            *("string", "int64", "bool", "string")
        ]
        assert {str(field.type) for field in list(schema)[4:]} == {"int32"}
        described = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        assert described["category"]["_type"] == "ClassLabel"


class TestResuming:
    SIZE = "200KB"

    def test_after_losing_shards(self, built_sample: Path, sample_folder: Path, tmp_path: Path) -> None:
        out = shutil.copytree(built_sample, tmp_path / "out")
        for name in ("pose/train-*-known.parquet", "cad/*.parquet", ".build/done/train-*.json"):
            sorted(out.glob(name))[0].unlink()
        (out / FILE).unlink()
        build(str(sample_folder), out, workers=2, shard_size=self.SIZE)
        assert (out / FILE).read_bytes() == (built_sample / FILE).read_bytes()

    @pytest.mark.slow
    def test_after_a_crash_on_the_way(
        self, built_sample: Path, sample_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half of the shards are finished by one run, the others by the next."""
        finished = []
        finish = Run.finish

        def crash(run: Run, result: ShardResult) -> None:
            finished.append(result.name)
            if len(finished) == 4:
                raise KeyboardInterrupt
            finish(run, result)

        monkeypatch.setattr(Run, "finish", crash)
        out = tmp_path / "out"
        with pytest.raises(KeyboardInterrupt):
            build(str(sample_folder), out, workers=1, shard_size=self.SIZE)
        assert not (out / FILE).exists()
        monkeypatch.undo()
        build(str(sample_folder), out, workers=1, shard_size=self.SIZE)
        assert (out / FILE).read_bytes() == (built_sample / FILE).read_bytes()

    def test_markers_hold_the_counts(self, built_sample: Path) -> None:
        markers = [json.loads(path.read_text("utf-8")) for path in built_sample.glob(".build/done/*.json")]
        total = sum(
            found.get("train_objects", 0) for marker in markers for found in marker["categories"].values()
        )
        assert total == sum(row["train_objects"] for row in rows(built_sample).values()) > 0
        result = ShardResult("x", "train", True, accounts={"pose": Account(1, 1)})
        result.categories.add_mesh("bed")
        again = ShardResult.from_field(Field.parse("x", json.dumps(result.to_dict()).encode()))
        assert again == result

    def test_another_release_is_counted_anew(self, sample_folder: Path, tmp_path: Path) -> None:
        tree = shutil.copytree(sample_folder, tmp_path / "tree")
        build(str(tree), tmp_path / "out", configs=["categories"], workers=1)
        before = rows(tmp_path / "out")
        listed = next(path for path in sorted(tree.glob("lists/*_train.txt")) if path.read_text("utf-8"))
        listed.write_text("", "utf-8")
        build(str(tree), tmp_path / "out", configs=["categories"], workers=1)
        name = listed.name.removesuffix("_imagenet_train.txt")
        after = rows(tmp_path / "out")
        assert before[name]["train_pictures"] > after[name]["train_pictures"] == 0
        assert {other for other in before if before[other] != after[other]} == {name}
