"""The figures: what they are counted from, that they are small, plain and always the same."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import PROJECT
from support.raw_tree import RawTreeWriter, an_object

from ImageNet3D import ANGLES, CATEGORIES
from processing.build.command import build
from processing.card import figures
from processing.card.figures import draw_figures, figures_in, read_statistics
from processing.card.plots import Statistics, draw_plots

pytestmark = pytest.mark.slow

SVG = "{http://www.w3.org/2000/svg}"
NAMES = {
    "azimuth",
    "camera",
    "distance",
    "elevation",
    "objects-per-category",
    "picture-sizes",
    "status-and-density",
    "theta",
}


def test_statistics_count_the_rows(built_sample: Path) -> None:
    statistics = read_statistics(built_sample)
    poses = [pq.read_table(path).drop_columns("image") for path in built_sample.glob("pose/*.parquet")]
    assert statistics.posed.total() == sum(map(len, poses))
    assert len(statistics.distances) == sum(len(table["distance"].drop_null()) for table in poses)
    assert len(statistics.angles["theta"]) == statistics.quality.total() == sum(map(len, poses))
    labels = Counter(label for table in poses for label in table["category"].to_pylist())
    assert statistics.posed == {CATEGORIES[label]: count for label, count in labels.items()}
    pictures = [pq.read_metadata(path).num_rows for path in built_sample.glob("classification/*.parquet")]
    assert statistics.sizes.total() == sum(pictures)


def test_what_is_null_is_not_counted(tmp_path: Path) -> None:
    """Only angles are there in every row of pose."""
    (tmp_path / "pose").mkdir()
    angles = {name: [1.0, -1.0, 400.0] for name in ANGLES}
    numbers = {name: [None, 5.0, None] for name in ("distance", "px", "py", "viewport")}
    labels = {"category": [0, 0, 1], "object_status": [None, 3, 0], "dense": [None, True, False]}
    table = pa.table(
        {"image_id": ["a", "a", "b"], "width": [9, 9, 8], "height": [9, 9, 8], **labels, **angles, **numbers}
    )
    pq.write_table(table, tmp_path / "pose/train-00000-of-00001-known.parquet")
    statistics = read_statistics(tmp_path)
    assert list(statistics.distances) == [5.0]
    assert statistics.quality == {(None, None): 1, ("bad", True): 1, ("good", False): 1}
    assert {figure.name for figure in draw_figures(tmp_path)} | {"camera"} == NAMES


def test_angles_are_wrapped_before_they_are_counted() -> None:
    turns = np.array([0, 2 * np.pi, -2 * np.pi, 40 * np.pi])
    drawn = {
        tuple(plot.svg for plot in draw_plots(statistics_of(np.array([0.1, 3.0, 6.0]) + turn)))
        for turn in turns
    }
    assert len(drawn) == 1


def statistics_of(angles: np.ndarray) -> Statistics:
    statistics = Statistics(posed=Counter(bed=len(angles)))
    for name in ANGLES:
        statistics.angles[name].extend(angles.tolist())
    return statistics


def test_what_a_notebook_sets_is_not_heeded() -> None:
    backend = "module://no.such"  # theirs is module://matplotlib_inline.backend_inline
    code = (
        "import sys, os, numpy as np\n"
        "from processing.card.plots import Statistics, draw_plots\n"
        "statistics = Statistics()\n"
        "statistics.posed['bed'] = 1\n"
        "for angles in statistics.angles.values(): angles.append(1.0)\n"
        "print(len(draw_plots(statistics)), os.environ['MPLBACKEND'])"
    )
    environment = {**os.environ, "MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, env=environment
    )
    assert done.stdout.split() == ["4", backend], done.stderr


def test_figures_are_found_again_with_their_words(built_sample: Path) -> None:
    drawn = {figure.name: figure for figure in draw_figures(built_sample)}
    assert {figure.name: figure for figure in figures_in(built_sample)} == drawn


@pytest.fixture
def raw(tmp_path: Path) -> str:
    """A tree of a few pictures, one with two objects."""
    tree = RawTreeWriter().sound("bed", ("a", "b"), ("v", "w"))
    return tree.annotation("bed", "a", an_object(), an_object()).folder(tmp_path / "raw")


def test_pictures_of_pose_are_counted_once(raw: str, tmp_path: Path) -> None:
    build(raw, tmp_path / "out", configs=["pose"], workers=1)
    tables = [pq.read_table(path, columns=["image_id"]) for path in tmp_path.glob("out/pose/*.parquet")]
    ids = {key for table in tables for key in table["image_id"].to_pylist()}
    assert len(ids) < sum(map(len, tables))
    assert read_statistics(tmp_path / "out").sizes.total() == len(ids)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_stands_alone_and_is_small(built_sample: Path, name: str) -> None:
    data = (built_sample / f"figures/{name}.svg").read_bytes()
    assert len(data) <= 100_000
    root = ElementTree.fromstring(data)
    assert root.tag == f"{SVG}svg"
    assert float(root.get("width")) > 200
    assert float(root.get("height")) > 100  # few categories make few bars
    assert root.find(f"{SVG}title").text
    assert root.find(f"{SVG}desc").text
    assert b"<script" not in data
    assert b"<metadata" not in data


def test_are_small_for_the_whole_release(tmp_path: Path) -> None:
    """189 categories, 86,000 objects, and more different sizes of pictures than ImageNet has."""
    generator = np.random.default_rng(1)
    objects = 86_000
    labels = generator.permutation(np.arange(objects) % len(CATEGORIES))
    width, height = (np.exp(generator.normal(6.2, 0.8, objects)).astype(int).clip(20, 9000) for _ in "wh")
    columns = {
        "image_id": [f"{CATEGORIES[label]}/{number}" for number, label in enumerate(labels)],
        "width": width,
        "height": height,
        "category": labels,
        "object_status": [[0, 1, 2, 3, None][i] for i in generator.integers(0, 5, objects)],
        "dense": [[True, False, None][i] for i in generator.integers(0, 3, objects)],
        **{angle: generator.uniform(0, 2 * np.pi, objects) for angle in ANGLES},
        "distance": np.exp(generator.normal(1.5, 0.6, objects)),
        **{name: generator.normal(300, 200, objects) for name in ("px", "py", "viewport")},
    }
    (tmp_path / "pose").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "pose/train-00000-of-00001-known.parquet")
    drawn = draw_figures(tmp_path)
    assert {figure.name for figure in drawn} | {"camera"} == NAMES
    sizes = {figure.name: len(figure.svg) for figure in drawn}
    assert max(sizes.values()) <= 100_000, sizes


def test_there_are_no_others(built_sample: Path) -> None:
    assert {path.stem for path in (built_sample / "figures").iterdir()} == NAMES


def test_drawn_again_they_are_the_same(built_sample: Path, tmp_path: Path) -> None:
    for config in ("pose", "classification"):
        (tmp_path / config).symlink_to(built_sample / config)
    for figure in draw_figures(tmp_path):
        assert (built_sample / figure.path).read_bytes() == figure.svg


def test_colours_are_read_on_light_and_dark_pages() -> None:
    ink, dark = 0.197, 0.0048  # relative luminance of the ink #747b85, and of a page of #0b0f19
    channels = [int(figures._STYLE.partition("color:#")[2][i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [((c + 0.055) / 1.055) ** 2.4 for c in channels]
    assert 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] == pytest.approx(ink, abs=0.005)
    assert 1.05 / (ink + 0.05) > 4 < (ink + 0.05) / (dark + 0.05)


def test_without_matplotlib_the_build_goes_on_and_says_so(raw: str, tmp_path: Path) -> None:
    """A stand-in for an environment without it: the import machinery finds none."""
    code = (
        "import sys, importlib.util as util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest)\n"
        "sys.modules['matplotlib'] = None\n"
        "from processing.build.command import build\n"
        "print(build(sys.argv[1], sys.argv[2], configs=['pose'], workers=1))"
    )
    command = [sys.executable, "-c", code, raw, str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stderr
    assert "the card has no plots" in done.stdout
    assert [path.name for path in (tmp_path / "out/figures").iterdir()] == ["camera.svg"]
    assert "figures/azimuth.svg" not in (tmp_path / "out/README.md").read_text("utf-8")


def test_a_build_leaves_no_plots_of_an_earlier_one(raw: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(raw, out, workers=1, configs=["pose"])
    assert (out / "figures/azimuth.svg").exists()
    (out / "imagenet3d_manifest.json").unlink()  # it did not come to its end
    build(raw, out, workers=1, configs=["classification"])
    assert {path.stem for path in (out / "figures").iterdir()} == {"camera", "picture-sizes"}
