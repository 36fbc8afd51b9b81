"""The config object_centric of a built folder: rows, books, bytes, and loading by old and new `datasets`."""

import io
import json
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from processing.build.command import build
from processing.built import read_manifest

pytestmark = pytest.mark.slow

READ_WITH_DATASETS_3 = """
import json, sys
from datasets import load_dataset
loaded = load_dataset(sys.argv[1], "object_centric", cache_dir=sys.argv[2])
row = loaded["train"][0]
print(json.dumps([{s: len(rows) for s, rows in loaded.items()}, row["image"].size, row["offset"]]))
"""


@pytest.fixture(scope="module")
def built(sample_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("crops") / "ImageNet3D"
    options = {"configs": ["object_centric", "pose"], "shard_size": "200KB"}
    return out, build(str(sample_folder), out, workers=1, **options), options


@pytest.fixture(scope="module")
def loaded(built, tmp_path_factory: pytest.TempPathFactory):
    return load_dataset(str(built[0]), "object_centric", cache_dir=str(tmp_path_factory.mktemp("cache")))


def test_rows_agree_with_pose(built, loaded, tmp_path):
    poses = load_dataset(str(built[0]), "pose", cache_dir=str(tmp_path))
    for split, crops in loaded.items():
        rows = {(row["image_id"], row["object_index"]): row for row in poses[split]}
        for crop in crops:
            row, scale, offset = (
                rows[crop["image_id"], crop["object_index"]],
                crop["resize_rate"],
                crop["offset"],
            )
            assert (crop["width"], crop["height"]) == crop["image"].size == (512, 512)
            assert crop["image"].mode == "RGB"
            back = [(side - offset[i % 2]) / scale for i, side in enumerate(crop["bbox"])]
            assert back == pytest.approx(row["bbox"])
            assert scale == row["distance"] / 4
            assert (crop["distance"], crop["px"], crop["py"]) == pytest.approx((4, 256, 256))
            same = ("category", "known", "azimuth", "elevation", "theta", "viewport", "cad_index", "dense")
            assert {name: crop[name] for name in (*same, "object_status")} == {
                name: row[name] for name in (*same, "object_status")
            }


def test_books_balance_and_name_every_rule(built, loaded):
    _, report, _ = built
    accounts = {split: report.books.accounts["object_centric", split] for split in loaded}
    assert {split: account.written for split, account in accounts.items()} == {
        s: len(r) for s, r in loaded.items()
    }
    assert all(account.balanced for account in accounts.values())
    reasons = set().union(*(account.left_out for account in accounts.values()))
    assert reasons >= {"status_bad", "status_missing", "ignore_set", "distance_not_positive", "pose_missing"}


def test_shards_follow_the_plan_and_row_groups_are_small(built):
    out, _, _ = built
    plan = read_manifest(out).shards
    files = sorted((out / "object_centric").glob("*.parquet"))
    assert {file.stem for file in files} <= plan.keys()
    for file in files:
        parquet = pq.ParquetFile(file)
        groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
        assert all(group.num_rows <= 100 and group.total_byte_size <= 10**8 for group in groups)
        rows = parquet.read(["image", "image_id", "object_index"]).to_pylist()
        for row in rows:
            stem = row["image_id"].partition("/")[2]
            assert row["image"]["path"] == f"{stem}_{row['object_index']:02d}.JPEG"
            with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
                assert image.format == "JPEG"


def test_any_number_of_workers_and_a_resumed_build_write_the_same_bytes(built, sample_folder, tmp_path):
    out, _, options = built
    again = tmp_path / "ImageNet3D"
    build(str(sample_folder), again, workers=2, **options)
    files = [path.relative_to(out) for path in sorted(out.glob("*/*.parquet"))] + [Path("README.md")]
    assert any(path.parts[0] == "object_centric" for path in files)
    for path in files:
        assert (out / path).read_bytes() == (again / path).read_bytes(), path
    lost = next(again.glob("object_centric/*.parquet"))
    lost.unlink()
    build(str(sample_folder), again, workers=1, **options)
    assert lost.read_bytes() == (out / lost.relative_to(again)).read_bytes()


def test_datasets_3_loads_it(built, loaded, datasets3_python, tmp_path):
    command = [str(datasets3_python), "-c", READ_WITH_DATASETS_3, str(built[0]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    counts, size, offset = json.loads(done.stdout.splitlines()[-1])
    assert counts == {split: len(rows) for split, rows in loaded.items()}
    assert (size, offset) == ([512, 512], loaded["train"][0]["offset"])
