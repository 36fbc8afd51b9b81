"""The benchmarks run: the ways of each on a tree of a few pictures, once and without most of the peers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from support import PROJECT, WITH_TORCH

from processing.crop.place import MODES

pytestmark = pytest.mark.slow


def tables_of(benchmark: str, raw: Path, tmp_path: Path) -> dict[str, list[list[object]]]:
    """Run the quick mode of one benchmark; the rows by table."""
    written = tmp_path / "tables.json"
    command = ["-m", "benchmarks", "--quick", "--only", benchmark, "--raw", str(raw), "--json", str(written)]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT,
        env={**os.environ, **(WITH_TORCH if benchmark == "streaming" else {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {table["name"]: table["rows"] for table in json.loads(written.read_text("utf-8"))["tables"]}


@pytest.fixture(autouse=True)
def _needs_psutil() -> None:
    pytest.importorskip("psutil", reason="the benchmarks need the extra `benchmarks`")


def test_build(sample_folder: Path, tmp_path: Path) -> None:
    rows = {name: numbers for name, *numbers in tables_of("build", sample_folder, tmp_path)["build"]}
    assert {"tar", "build, pose", "build, whole pictures", "build, all", "datasets"} <= set(rows)
    assert rows["datasets"][2] == 1
    programs = [row for name, row in rows.items() if name != "tar"]  # which copies 60 pictures in no time
    assert all(row[4] > 0 and row[5] > 20 for row in programs), "time and memory were looked at"


def test_crops(sample_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="the plain way crops with OpenCV")
    rows = tables_of("crops", sample_folder, tmp_path)["crops"]
    assert [row[:2] for row in rows] == [[mode, way] for mode in MODES for way in ("plain", "crop")]
    assert all(row[2] == 1 for row in rows[::2])
    assert all(row[-1] > 20 for row in rows), "objects were cropped, as many by both ways"


def test_loading(sample_folder: Path, tmp_path: Path) -> None:
    rows = {name: numbers for name, *numbers in tables_of("loading", sample_folder, tmp_path)["loading"]}
    assert {"first load", "load again"} <= set(rows)
    assert all(row[0] > 0 for row in rows.values())  # which is faster, 60 pictures do not tell


def test_growth(sample_folder: Path, tmp_path: Path) -> None:
    tables = tables_of("growth", sample_folder, tmp_path)
    assert [row[2] for row in tables["growth"]] == ["tar", "build, whole pictures", "verify"]
    assert all(row[4] == 1 for row in tables["growth"] if row[2] == "tar")
    assert [row[0] for row in tables["names"]] == [1_000]


def test_streaming(sample_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="streaming is measured through torch's DataLoader")
    tables = tables_of("streaming", sample_folder, tmp_path)
    ours = {f"{page}, datasets {datasets.__version__}" for page in ("README.md", "docs/training.md")}
    speeds = {name: numbers for name, *numbers in tables["streaming"]}
    assert ours | {"decoding alone", "JPEG and npz files"} <= set(speeds)
    assert all(row[2] > 0 and row[4] > 0 for row in speeds.values()), "samples a second, and memory"
    mixed = {name: numbers for name, *numbers in tables["mixing"]}
    assert ours <= set(mixed)
    assert all(0.5 < found <= 1.05 for name in ours for found in mixed[name])
