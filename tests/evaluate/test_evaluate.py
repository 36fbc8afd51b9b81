"""The report: the figures of each object, as tables, JSON and a plot, and the command that writes them."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from support.scored import ANGLES, as_rotations, command, score, write

import ImageNet3D
from processing.geometry import rotation_error, rotation_from_viewpoint


@pytest.mark.parametrize("form", [list, as_rotations], ids=["angles", "rotation"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_errors_belong_to_their_objects(dataset, rows, tmp_path, ending, form):
    # All elevations are 0, where turning the azimuth by some degrees turns the object by as many.
    degrees = {"bed/validation_0": 20, "car/validation_1": 5, "yurt/validation_0": 90}
    for row in rows:
        row["azimuth"] += np.radians(degrees[row["image_id"]])
    report = score(write(tmp_path / f"predictions.{ending}", form(rows)), dataset)
    assert {summary.name: summary.error.median for summary in report.by["category"]} == {
        "bed": pytest.approx(20),
        "car": pytest.approx(5),
        "yurt": pytest.approx(90),
    }
    assert report.overall.accuracy["π/6"] == pytest.approx(4 / 6)
    assert report.overall.accuracy["π/18"] == pytest.approx(2 / 6)
    assert report.overall.error.median == pytest.approx(20)
    assert report.overall.error.mean == pytest.approx(230 / 6)
    known, unknown = report.by["known"]
    assert (known.name, known.objects, known.accuracy["π/6"]) == ("known", 4, 1)
    assert (unknown.name, unknown.objects, unknown.accuracy["π/6"]) == ("unknown", 2, 0)
    counts = {summary.name: summary.objects for summary in report.by["status"]}
    assert counts == {"good": 3, "partially": 1, "bad": 1, "none": 1}
    assert [report.curves["all"][degree] for degree in (19, 21, 91)] == pytest.approx([2 / 6, 4 / 6, 1])
    assert report.curves["known"][180] == 1


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_wrong_category_counts_as_a_wrong_pose(dataset, rows, tmp_path, ending):
    named = [row | {"category": row["image_id"].split("/")[0].replace("car", "bus")} for row in rows]
    report = score(write(tmp_path / f"predictions.{ending}", named), dataset)
    assert report.overall.accuracy["π/18"] == 1
    assert report.overall.joint.classification == pytest.approx(4 / 6)
    assert (
        report.overall.joint.accuracy["π/6"] == report.overall.joint.accuracy["π/18"] == pytest.approx(4 / 6)
    )
    assert {summary.name: summary.joint.accuracy["π/6"] for summary in report.by["category"]} == {
        "bed": 1,
        "car": 0,
        "yurt": 1,
    }


def test_groups_may_overlap_and_come_from_a_file(dataset, rows, tmp_path):
    predictions = write(tmp_path / "predictions.csv", rows)
    groups = {"furniture": ["bed"], "all of it": ["bed", "car", "yurt"], "absent": ["whisk"]}
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    report = score(predictions, dataset, groups=groups)
    assert [(summary.name, summary.objects) for summary in report.by["group"]] == [
        ("furniture", 2),
        ("all of it", 6),
        ("absent", 0),
    ]
    from_file = score(predictions, dataset, groups=tmp_path / "groups.json")
    assert from_file.to_json() == report.to_json()
    assert json.loads(report.to_json())["by"]["group"][2]["error"]["median"] is None


def test_groups_of_categories_that_do_not_exist_are_refused(dataset, rows, tmp_path):
    predictions = write(tmp_path / "predictions.csv", rows)
    with pytest.raises(ValueError, match="the groups: categories that do not exist") as caught:
        score(predictions, dataset, groups={"seats": ["sofas", "bed"], "crafts": ["spaceship"]})
    assert '"sofas" in group "seats" (sofa is the closest that does)' in str(caught.value)
    assert '"spaceship" in group "crafts"' in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'["bed"]', '["bed"] is not an object of groups; give'),
        (b"null", "null is not an object of groups; give"),
        (b'{"a": null}', 'group "a" is null, not a list of categories; give'),
        (b'{"a": "bed"}', 'group "a" is "bed", not a list of categories; give'),
        (b'{"a": {"bed": 1}}', 'group "a" is {"bed": 1}, not a list of categories; give'),
        (b'{"a": 1}', 'group "a" is 1, not a list of categories; give'),
        (b'{"a": ["bed", null, ["car"]]}', 'categories that do not exist: null in group "a"'),
        (b'{"a": ["bed", "cars"]}', '"cars" in group "a" (car is the closest'),
        (b"{a: []}", "not JSON (Expecting property name"),
        (b"", "not JSON (Expecting value"),
        (b"\xff\xfe\xff", "not JSON ("),
        (b"[" * 100_000, "not JSON ("),
    ],
)
def test_a_file_that_holds_no_groups_is_wrong_usage(dataset, tmp_path, content, message):
    folder = tmp_path / "groups [1]"
    folder.mkdir()
    (folder / "groups.json").write_bytes(content)
    # Before the work: there are no predictions.
    result = command(tmp_path / "nowhere.csv", dataset, "--groups", folder / "groups.json")
    assert result.exit_code == 2, result.output
    assert f"{folder / 'groups.json'}: " in result.output
    assert message in result.output


@pytest.fixture
def report(dataset, rows, tmp_path):
    named = [row | {"category": "bed", "azimuth": row["azimuth"] + np.radians(20)} for row in rows]
    return score(write(tmp_path / "predictions.parquet", named), dataset)


def table_lines(text):
    """Return the cells of the lines of a table."""
    return [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]


def test_table_has_a_row_a_group(report):
    lines = table_lines(str(report))
    assert [
        "all",
        "all",
        "6",
        "100.0",
        "0.0",
        "20.0",
        "20.0",
        "33.3",
        "33.3",
        "0.0",
        "180.0",
        "126.7",
    ] in lines
    assert [
        "category",
        "yurt",
        "2",
        "100.0",
        "0.0",
        "20.0",
        "20.0",
        "0.0",
        "0.0",
        "0.0",
        "180.0",
        "180.0",
    ] in lines
    main = table_lines(str(report).split("\n\n")[1])
    assert [line[1] for line in main if line[0] == "status"] == ["good", "partially", "bad", "none"]


def test_json_holds_the_figures(report):
    content = json.loads(report.to_json())
    assert (content["population"]["config"], content["population"]["split"]) == ("pose", "validation")
    assert content["overall"]["error"]["median"] == pytest.approx(20)
    assert [group["name"] for group in content["by"]["known"]] == ["known", "unknown"]
    assert len(content["curves"]["all"]) == 181


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot_is_written_in_the_format_of_its_ending(report, tmp_path, ending, start):
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / f"accuracy.{ending}")
    assert (tmp_path / f"accuracy.{ending}").read_bytes().startswith(start)


def test_without_matplotlib_the_extra_is_named(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[figures\]'"):
        report.plot(tmp_path / "accuracy.png")


@pytest.mark.parametrize("name", ["accuracy.foo", "accuracy", "accuracy.jpg"])
def test_an_ending_that_is_no_plot_s_is_refused_before_the_work(report, dataset, tmp_path, name):
    with pytest.raises(ValueError, match=rf"{name} does not end in \.png, \.svg, \.pdf"):
        report.plot(tmp_path / name)
    result = command(tmp_path / "nowhere.csv", dataset, "--plot", tmp_path / name)
    assert result.exit_code == 2, result.output
    assert f"{name} does not end in .png, .svg, .pdf" in result.output


def test_the_command_writes_all_that_it_is_asked_for(dataset, rows, tmp_path):
    pytest.importorskip("matplotlib")
    files = ["--json", tmp_path / "figures.json", "--plot", tmp_path / "accuracy.PNG"]
    result = command(write(tmp_path / "predictions.csv", rows), dataset, *files)
    assert result.exit_code == 0, result.output
    assert "π/6 %" in result.output
    assert json.loads((tmp_path / "figures.json").read_text("utf-8"))["overall"]["objects"] == 4
    assert (tmp_path / "accuracy.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_the_table_is_there_although_a_file_cannot_be_written(dataset, rows, tmp_path, option):
    pytest.importorskip("matplotlib")
    predictions = write(tmp_path / "predictions.csv", rows)
    result = command(predictions, dataset, option, "/proc/accuracy.svg")
    assert result.exit_code == 1
    assert "π/6 %" in result.output
    assert "/proc/" in result.output


@pytest.mark.slow  # three processes
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_the_table_says_what_the_terminal_can(dataset, rows, tmp_path, encoding):
    groups = {"椅子 ä": ["bed"]}
    (tmp_path / "groups.json").write_text(json.dumps(groups), "utf-8")
    predictions = write(tmp_path / "predictions.csv", rows)
    arguments = [predictions, "--dataset", dataset, "--groups", tmp_path / "groups.json"]
    done = subprocess.run(
        [sys.executable, "-m", "processing", "evaluate", *arguments],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    header, ruler, *lines = done.stdout.decode(encoding).split("\n\n")[1].splitlines()
    pi, degree = ("π", "°") if encoding == "utf-8" else ("pi", "deg")
    wanted = ["by", "name", "objects", f"{pi}/6 %", f"{pi}/18 %", f"median {degree}", f"mean {degree}"]
    assert re.split(r"\s{2,}", header.strip()) == wanted
    assert len(header) == len(ruler)  # the columns are as wide as what they are called
    group = next(line for line in lines if line.startswith("group"))
    assert {"latin-1": "\\u6905\\u5b50 ä", "ascii": "\\u6905\\u5b50 \\xe4", "utf-8": "椅子 ä"}[
        encoding
    ] in group


@pytest.mark.slow
def test_a_million_predictions_take_little_longer_than_to_merge_them(tmp_path):
    """Against pandas, which a user would take instead, and which brings one median a category for it."""
    size = 10**6
    rng = np.random.default_rng(0)
    category = rng.integers(0, len(ImageNet3D.CATEGORIES), size)
    names = pa.array(ImageNet3D.CATEGORIES).take(pa.array(category))
    numbers = pa.array(np.arange(size) // 2).cast(pa.string())
    truth = pa.table(
        {
            "image_id": pc.binary_join_element_wise(names, numbers, "/"),
            "object_index": np.arange(size) % 2,
            "category": category,
            "known": category < 63,
            **{angle: rng.uniform(0, 2 * np.pi, size) for angle in ANGLES},
            "object_status": rng.integers(0, 4, size),
        }
    )
    (tmp_path / "pose").mkdir()
    pq.write_table(truth, tmp_path / "pose" / "validation-00000-of-00001-known.parquet")
    predicted = truth.select(["image_id", "object_index", *ANGLES]).append_column("category", names)
    pq.write_table(predicted.take(rng.permutation(size)), tmp_path / "predictions.parquet")
    started = time.process_time()
    report = score(tmp_path / "predictions.parquet", tmp_path)
    ours = time.process_time() - started
    started = time.process_time()
    tables = [pd.read_parquet(tmp_path / name) for name in ("pose", "predictions.parquet")]
    merged = tables[0].merge(tables[1], on=["image_id", "object_index"])
    poses = [[merged[f"{angle}_{side}"].to_numpy() for angle in ANGLES] for side in ("x", "y")]
    errors = rotation_error(*(rotation_from_viewpoint(*angles) for angles in poses))
    assert merged.assign(error=errors).groupby("category_x")["error"].median().max() < 1e-6
    assert ours < 3 * (time.process_time() - started)
    assert report.overall.objects == size
    assert report.overall.joint.accuracy["π/18"] == 1


def test_symmetries_stand_beside_the_plain_figures(dataset, rows, tmp_path):
    about_z = [row | {"azimuth": row["azimuth"] + np.pi / 2} for row in rows]
    (tmp_path / "symmetries.json").write_text(json.dumps({"bed": 0, "car": 4, "yurt": 2, "whisk": 1}))
    predictions = write(tmp_path / "predictions.csv", about_z)
    report = score(predictions, dataset, symmetries=tmp_path / "symmetries.json")
    assert report.overall.error.median == pytest.approx(90)
    found = {summary.name: summary.error.median for summary in report.symmetric.by_category}
    assert found == {
        "bed": pytest.approx(0, abs=1e-5),
        "car": pytest.approx(0, abs=1e-5),
        "yurt": pytest.approx(90),
    }
    assert report.symmetric.average.accuracy["π/6"] == pytest.approx(2 / 3)
    lines = table_lines(report.table())
    assert ["symmetric", "yurt", "2", "0.0", "0.0", "90.0", "90.0"] in lines
    assert ["category", "bed", "2", "0.0", "0.0", "90.0", "90.0"] in lines
    content = json.loads(report.to_json())
    assert content["symmetric"]["overall"]["accuracy"]["π/18"] == pytest.approx(4 / 6)
    # Plain figures of each angle would stand beside those of another turn.
    for figures in (content["symmetric"]["overall"], content["symmetric"]["average"]):
        assert all(value is None for angle in figures["angles"].values() for value in angle.values())
    assert content["overall"]["angles"]["azimuth"]["median"] == pytest.approx(90)
    detail = table_lines(report.table().split("\n\n")[-1])
    assert [line[2:] for line in detail if line[:2] == ["symmetric", "yurt"]] == [["0.0"] * 3 + ["none"] * 6]
    assert "nan" not in report.table()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"bottles": 0}', '"bottles" (bottle is the closest'),
        ('{"bottle": -1}', "bottle has -1, not a whole number from 0"),
        ('{"bottle": 2.0}', "bottle has 2.0, not a whole number"),
        ('{"bottle": true}', "bottle has true, not a whole number"),
        ('["bottle"]', '["bottle"] is not an object of symmetries'),
    ],
)
def test_a_file_that_holds_no_symmetries_is_wrong_usage(dataset, tmp_path, content, message):
    (tmp_path / "symmetries.json").write_text(content)
    result = command(tmp_path / "nowhere.csv", dataset, "--symmetries", tmp_path / "symmetries.json")
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_thresholds_are_an_option(dataset, rows, tmp_path):
    off = [row | {"azimuth": row["azimuth"] + np.radians(25)} for row in rows]
    predictions = write(tmp_path / "predictions.csv", off)
    report = score(predictions, dataset, thresholds=["pi/6", "π/9", "24.9", "180"])
    assert report.overall.accuracy == {"π/6": 1, "π/9": 0, "24.9°": 0, "180°": 1}
    result = command(predictions, dataset, "--threshold", "26", "--threshold", "pi/12")
    assert "26° %" in result.output
    near = score(predictions, dataset, thresholds=["25", "25.0", "25.0000001"])
    assert near.overall.accuracy == {"25°": pytest.approx(0, abs=1), "25.0000001°": 1}
    assert "π/12 %" in result.output
    assert "π/6" not in result.output


@pytest.mark.parametrize("threshold", ["0", "-5", "181", "pi/0", "nan", "tau", "pi/"])
def test_thresholds_that_are_none_are_wrong_usage(dataset, tmp_path, threshold):
    result = command(tmp_path / "nowhere.csv", dataset, "--threshold", threshold)
    assert result.exit_code == 2, result.output
    assert "give pi/6, or degrees above 0 and up to 180" in result.output


def test_the_average_over_categories_stands_beside_that_over_objects(dataset, rows, tmp_path):
    for row in rows:
        row["azimuth"] += np.radians(90) * (row["image_id"].partition("/")[0] == "yurt")
    good = [row for row in rows if (row["image_id"], row["object_index"]) != ("bed/validation_0", 1)]
    predictions = write(tmp_path / "predictions.csv", good + [row for row in rows if row not in good])
    report = score(predictions, dataset, population="benchmark")  # bed twice, car and yurt once
    assert report.overall.accuracy["π/6"] == pytest.approx(3 / 4)
    assert report.average.accuracy["π/6"] == pytest.approx(2 / 3)
    assert ["all", "average of categories", "4", "66.7", "66.7", "30.0", "30.0"] in table_lines(str(report))


def test_names_of_groups_are_shown_and_not_sent(dataset, rows, tmp_path):
    report = score(write(tmp_path / "a.csv", rows), dataset, groups={"\x1b]0;owned\x07": ["bed"]})
    assert r"\x1b]0;owned\x07" in str(report)
    assert "\x1b" not in str(report)
