"""Predictions in every format against a small built folder; every way in which they can be wrong is named."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import ImageNet3D
from processing import geometry
from processing.__main__ import main
from processing.evaluate.command import DatasetError, PredictionError, evaluate, read_predictions

# Name of a shard -> category and status of its objects; two objects a picture.
SHARDS = {
    "train-00000-of-00001-known": [("bed", 0), ("bed", 0)],
    "validation-00000-of-00002-known": [("bed", 0), ("bed", 1), ("car", 0), ("car", None)],
    "validation-00001-of-00002-unknown": [("yurt", 3), ("yurt", 0)],
}
ANGLES = ["azimuth", "elevation", "theta"]


def shard_table(name, objects):
    """Return a pose shard with the columns that evaluation reads, and a picture that it must not."""
    rng = np.random.default_rng(len(name))
    count = len(objects)
    split = name.split("-")[0]
    return pa.table(
        {
            "image": [{"bytes": b"no picture", "path": "a.JPEG"}] * count,
            "image_id": [f"{category}/{split}_{i // 2}" for i, (category, _) in enumerate(objects)],
            "object_index": [i % 2 for i in range(count)],
            "category": [ImageNet3D.CATEGORY_IDS[category] for category, _ in objects],
            "known": [name.endswith("-known")] * count,
            "azimuth": rng.uniform(0, 2 * np.pi, count),
            "elevation": np.zeros(count),
            "theta": rng.uniform(0, 2 * np.pi, count),
            "object_status": pa.array([status for _, status in objects], pa.int64()),
        }
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built [1]")
    (folder / "pose").mkdir()
    for name, objects in SHARDS.items():
        pq.write_table(shard_table(name, objects), folder / "pose" / f"{name}.parquet")
    return folder


@pytest.fixture
def rows(dataset):
    """Return perfect predictions for validation as dicts, not in the order of the dataset."""
    tables = [pq.read_table(path) for path in sorted((dataset / "pose").glob("validation-*"))]
    found = pa.concat_tables(tables).select(["image_id", "object_index", *ANGLES]).to_pylist()
    return found[::-1]


def as_rotations(rows):
    """Return predictions with a rotation of nine numbers in place of the angles."""
    return [
        {name: value for name, value in row.items() if name not in ANGLES}
        | {"rotation": geometry.rotation_from_viewpoint(*(row[angle] for angle in ANGLES)).ravel().tolist()}
        for row in rows
    ]


def write(path, rows):
    """Write predictions in the format of the path's ending."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        rows = [
            {name: value for name, value in row.items() if name != "rotation"}
            | {f"r{i // 3}{i % 3}": entry for i, entry in enumerate(row.get("rotation", []))}
            for row in rows
        ]
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(predictions, dataset, *options):
    """Run the command `evaluate`."""
    arguments = ["evaluate", predictions, "--dataset", dataset, *options]
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize("form", [list, as_rotations], ids=["angles", "rotation"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "ndjson"])
def test_perfect_predictions_have_no_error(dataset, rows, tmp_path, ending, form):
    report = evaluate(write(tmp_path / f"predictions.{ending}", form(rows)), dataset)
    assert report.overall.objects == 6
    assert report.overall.accuracy_pi_18 == 1
    assert report.overall.mean_error < 1e-6
    assert report.overall.classification is None


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_category_may_be_an_id(dataset, rows, tmp_path, ending):
    for row in rows:
        row["category"] = ImageNet3D.CATEGORY_IDS[row["image_id"].partition("/")[0]]
    rows[0]["category"] = (rows[0]["category"] + 1) % len(ImageNet3D.CATEGORIES)
    report = evaluate(write(tmp_path / f"predictions.{ending}", rows), dataset)
    assert report.overall.classification == pytest.approx(5 / 6)
    rows[0]["category"] = len(ImageNet3D.CATEGORIES)
    with pytest.raises(PredictionError, match="a category that does not exist"):
        evaluate(write(tmp_path / f"predictions.{ending}", rows), dataset)


def test_a_nested_rotation_is_told_what_is_wanted(dataset, rows, tmp_path):
    rows = [row | {"rotation": np.reshape(row["rotation"], (3, 3)).tolist()} for row in as_rotations(rows)]
    with pytest.raises(PredictionError, match="nine numbers in one, row by row"):
        evaluate(write(tmp_path / "predictions.jsonl", rows), dataset)


@pytest.mark.parametrize("form", [list, as_rotations], ids=["angles", "rotation"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_errors_belong_to_their_objects(dataset, rows, tmp_path, ending, form):
    # All elevations are 0, where turning the azimuth by some degrees turns the object by as many.
    degrees = {"bed/validation_0": 20, "car/validation_1": 5, "yurt/validation_0": 90}
    for row in rows:
        row["azimuth"] += np.radians(degrees[row["image_id"]])
    report = evaluate(write(tmp_path / f"predictions.{ending}", form(rows)), dataset)
    assert {summary.name: summary.median_error for summary in report.by["category"]} == {
        "bed": pytest.approx(20),
        "car": pytest.approx(5),
        "yurt": pytest.approx(90),
    }
    assert report.overall.accuracy_pi_6 == pytest.approx(4 / 6)
    assert report.overall.accuracy_pi_18 == pytest.approx(2 / 6)
    assert report.overall.median_error == pytest.approx(20)
    assert report.overall.mean_error == pytest.approx(230 / 6)
    known, unknown = report.by["known"]
    assert (known.name, known.objects, known.accuracy_pi_6) == ("known", 4, 1)
    assert (unknown.name, unknown.objects, unknown.accuracy_pi_6) == ("unknown", 2, 0)
    counts = {summary.name: summary.objects for summary in report.by["status"]}
    assert counts == {"good": 3, "partially": 1, "bad": 1, "none": 1}
    assert [report.curves["all"][degree] for degree in (19, 21, 91)] == pytest.approx([2 / 6, 4 / 6, 1])
    assert report.curves["known"][180] == 1


def test_single_precision_and_other_columns_are_fine(dataset, rows, tmp_path):
    table = pa.Table.from_pylist([row | {"feature": [1.0] * 100} for row in as_rotations(rows)])
    single = table["rotation"].cast(pa.list_(pa.float32(), 9))
    table = table.set_column(table.column_names.index("rotation"), "rotation", single)
    pq.write_table(table, tmp_path / "predictions.parquet")
    assert read_predictions(tmp_path / "predictions.parquet").column_names == [
        "image_id",
        "object_index",
        "rotation",
    ]
    assert evaluate(tmp_path / "predictions.parquet", dataset).overall.mean_error < 1e-3


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_wrong_category_counts_as_a_wrong_pose(dataset, rows, tmp_path, ending):
    named = [row | {"category": row["image_id"].split("/")[0].replace("car", "bus")} for row in rows]
    report = evaluate(write(tmp_path / f"predictions.{ending}", named), dataset)
    assert report.overall.accuracy_pi_18 == 1
    assert report.overall.classification == pytest.approx(4 / 6)
    assert report.overall.joint_pi_6 == report.overall.joint_pi_18 == pytest.approx(4 / 6)
    assert {summary.name: summary.joint_pi_6 for summary in report.by["category"]} == {
        "bed": 1,
        "car": 0,
        "yurt": 1,
    }


@pytest.mark.parametrize(
    ("config", "split", "categories"),
    [
        ("pose", "validation", {"bed", "car", "yurt"}),
        ("pose", "train", {"bed"}),
        ("open_vocab_known", "validation", {"bed", "car"}),
        ("open_vocab_unknown", "validation", {"yurt"}),
    ],
)
def test_configs_are_compared_with_their_own_shards(dataset, tmp_path, config, split, categories):
    tables = [pq.read_table(path) for path in sorted((dataset / "pose").glob(f"{split}-*"))]
    every = pa.concat_tables(tables).select(["image_id", "object_index", *ANGLES]).to_pylist()
    wanted = [row for row in every if row["image_id"].split("/")[0] in categories]
    report = evaluate(write(tmp_path / "predictions.jsonl", wanted), dataset, config, split)
    assert {summary.name for summary in report.by["category"]} == categories
    assert set(report.curves) == ({"all", "known", "unknown"} if len(categories) == 3 else {"all"})


def damage_column(path, name):
    """Overwrite the pages of a column, or of the fields of one; the file's footer stays as it is."""
    content = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    found = [column for column in columns if column.path_in_schema.split(".")[0] == name]
    assert found
    for column in found:
        start = column.dictionary_page_offset or column.data_page_offset
        content[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(content)


def test_pictures_are_not_read(dataset, rows, tmp_path):
    # With the bytes of the pictures' column destroyed, only a reader that leaves them alone gets through.
    shutil.copytree(dataset / "pose", tmp_path / "pose")
    for shard in (tmp_path / "pose").glob("validation-*"):
        damage_column(shard, "image")
    with pytest.raises(OSError, match="page header"):
        pq.read_table(tmp_path / "pose")
    assert evaluate(write(tmp_path / "predictions.csv", rows), tmp_path).overall.objects == 6


# What is wrong with predictions


def refusal(dataset, path, **options):
    with pytest.raises(PredictionError) as caught:
        evaluate(path, dataset, **options)
    return str(caught.value)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_keys_that_do_not_fit_are_named_and_counted(dataset, rows, tmp_path, ending):
    rows = [row for row in rows if row["image_id"] != "car/validation_1"]
    twice = next(row for row in rows if row["image_id"] == "bed/validation_0" and row["object_index"] == 1)
    foreign = twice | {"image_id": "boat/n0_1", "object_index": 7}
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", [*rows, twice, twice, foreign]))
    assert "1 object predicted more than once: bed/validation_0 object 1" in message
    assert "2 objects without a prediction: car/validation_1 object 0, car/validation_1 object 1" in message
    assert "1 object predicted but not in the dataset: boat/n0_1 object 7" in message


def test_only_the_first_few_keys_are_named(dataset, rows, tmp_path):
    foreign = [rows[0] | {"image_id": f"boat/{number}"} for number in (7, 3, 5, 1, 2, 6, 4, 0)]
    message = refusal(dataset, write(tmp_path / "predictions.csv", rows + foreign))
    assert message.startswith("8 objects predicted but not in the dataset: boat/7 object ")
    assert re.findall("boat/.", message) == ["boat/7", "boat/3", "boat/5", "boat/1", "boat/2"]
    assert message.endswith(", ...")


def test_a_missing_key_is_foreign(dataset, rows, tmp_path):
    message = refusal(dataset, write(tmp_path / "predictions.jsonl", [*rows, rows[0] | {"image_id": None}]))
    assert "1 object predicted but not in the dataset: None object" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("form", ["angles", "rotation"])
def test_values_that_are_not_finite_are_named(dataset, rows, tmp_path, ending, value, form):
    where = next(i for i, row in enumerate(rows) if row["image_id"] == "yurt/validation_0")
    if form == "angles":
        rows[where]["theta"] = value
    else:
        rows = as_rotations(rows)
        rows[where]["rotation"][4] = value
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert "1 object with a pose that is missing or not finite: yurt/validation_0 object" in message


@pytest.mark.parametrize("rotation", [None, [], [1.0] * 8, [1.0] * 10])
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_rotations_of_other_lengths_are_named(dataset, rows, tmp_path, ending, rotation):
    rows = as_rotations(rows)
    rows[2]["rotation"] = rotation
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert (
        "1 object with a rotation that is missing or not nine numbers: car/validation_1 object 1" in message
    )


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_what_is_no_rotation_is_named(dataset, rows, tmp_path, ending):
    rows = as_rotations(rows)
    rows[2]["rotation"] = np.diag([1.0, 1.0, -1.0]).ravel().tolist()
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert "1 object with nine numbers that are not a rotation matrix: car/validation_1 object 1" in message


@pytest.mark.parametrize("category", ["spaceship", None])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_categories_that_do_not_exist_are_named(dataset, rows, tmp_path, ending, category):
    rows = [row | {"category": "bed"} for row in rows]
    rows[2]["category"] = category
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert "1 object with a category that does not exist" in message
    assert "car/validation_1 object 1" in message
    assert category is None or "'spaceship'" in message


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("column", ["image_id", "object_index", "theta"])
def test_missing_columns_are_named(dataset, rows, tmp_path, ending, column):
    rows = [{name: value for name, value in row.items() if name != column} for row in rows]
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert f"has the columns {', '.join(rows[0])}; it needs image_id and object_index" in message


def test_angles_and_rotation_at_once_are_refused(dataset, rows, tmp_path):
    both = [row | rotated for row, rotated in zip(rows, as_rotations(rows), strict=True)]
    assert "not both" in refusal(dataset, write(tmp_path / "predictions.parquet", both))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.csv", "image_id,object_index,azimuth,elevation,theta\nbed/1,0,left,0,0\n"),
        ("empty.csv", ""),
        ("empty.jsonl", ""),
        ("array.jsonl", '[{"image_id": "bed/1"}]'),
        ("broken.jsonl", '{"image_id": "bed/1",\n'),
        (
            "text.jsonl",
            '{"image_id": "b", "object_index": "first", "azimuth": 0, "elevation": 0, "theta": 0}\n',
        ),
        ("csv.parquet", "image_id,object_index\n"),
    ],
)
def test_files_that_do_not_parse_are_named(dataset, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert name in refusal(dataset, tmp_path / name)


def test_predictions_that_are_not_text_are_named(dataset, tmp_path):
    (tmp_path / "predictions.jsonl").write_bytes(b'{"image_id": "b\xff"}\n')
    assert "predictions.jsonl" in refusal(dataset, tmp_path / "predictions.jsonl")


def test_predictions_with_damaged_pages_are_named(dataset, rows, tmp_path):
    path = write(tmp_path / "predictions.parquet", rows)
    damage_column(path, "theta")
    assert "predictions.parquet" in refusal(dataset, path)


def test_other_endings_are_refused(dataset, tmp_path):
    with pytest.raises(ValueError, match=r"predictions.txt does not end in \.parquet, \.csv, \.jsonl"):
        evaluate(tmp_path / "predictions.txt", dataset)


def test_a_file_that_is_not_there_is_named(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        evaluate(tmp_path / "nowhere.csv", dataset)


# What is wrong with the dataset, the choice or the groups


@pytest.mark.parametrize(
    ("config", "split", "message"),
    [
        ("captions", "validation", "config 'captions' has no poses"),
        ("pose", "test", "config 'pose' has no split 'test'"),
        ("open_vocab_unknown", "train", "config 'open_vocab_unknown' has no split 'train'"),
    ],
)
def test_choices_that_do_not_exist_are_refused(dataset, rows, tmp_path, config, split, message):
    with pytest.raises(ValueError, match=message):
        evaluate(write(tmp_path / "predictions.csv", rows), dataset, config, split)


def test_a_folder_without_the_config_names_what_it_looked_for(dataset, rows, tmp_path):
    predictions = write(tmp_path / "predictions.csv", rows)
    with pytest.raises(FileNotFoundError, match=r"no files pose/validation-\*\.parquet in"):
        evaluate(predictions, tmp_path)
    (tmp_path / "pose").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no files pose/train-\*-known\.parquet in"):
        evaluate(predictions, tmp_path, "open_vocab_known", "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda table: pa.concat_tables([table, table.slice(0, 1)]),
            "2 objects there twice: bed/validation_0 object 0, yurt/validation_0 object 0",
        ),
        (
            lambda table: table.set_column(5, "azimuth", [[np.nan] * table.num_rows]),
            "angles that are not finite",
        ),
    ],
)
def test_a_broken_dataset_is_not_blamed_on_the_predictions(rows, tmp_path, change, message):
    (tmp_path / "pose").mkdir()
    for name, objects in SHARDS.items():
        pq.write_table(change(shard_table(name, objects)), tmp_path / "pose" / f"{name}.parquet")
    with pytest.raises(DatasetError, match=f"the dataset itself is broken: .*{message}") as caught:
        evaluate(write(tmp_path / "predictions.csv", rows), tmp_path)
    assert "pose/validation-0000" in str(caught.value)
    assert "run `python -m processing verify`" in str(caught.value)


HARMED = "pose/validation-00001-of-00002-unknown.parquet"  # the shard that is harmed


def changed(name, values):
    """Return what replaces a column of a shard."""

    def change(path):
        table = pq.read_table(path)
        where = table.column_names.index(name)
        pq.write_table(table.set_column(where, name, pa.array(values(table.num_rows))), path)

    return change


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "cannot be read (Parquet magic bytes"),
        (lambda path: path.write_bytes(b""), "cannot be read ("),
        (lambda path: damage_column(path, "theta"), "cannot be read ("),
        (lambda path: pq.write_table(pq.read_table(path).drop("known"), path), "has no column known"),
        (changed("category", lambda rows: ["yurt"] * rows), "cannot be read ("),
        (
            changed("category", lambda rows: [len(ImageNet3D.CATEGORIES)] * rows),
            "has category outside 0 to",
        ),
        (changed("object_status", lambda rows: [-1] * rows), "has object_status outside 0 to 3"),
        (changed("known", lambda rows: pa.nulls(rows, pa.bool_())), "has rows without known"),
        (changed("theta", lambda rows: [np.inf] * rows), "holds angles that are not finite"),
    ],
    ids=["cut off", "empty", "pages", "column", "type", "category", "status", "null", "infinite"],
)
def test_a_damaged_shard_is_named(dataset, rows, tmp_path, harm, message):
    shutil.copytree(dataset / "pose", tmp_path / "pose")
    harm(tmp_path / HARMED)
    result = command(write(tmp_path / "predictions.csv", rows), tmp_path)
    assert result.exit_code == 1, result.output
    assert f"{HARMED} {message}" in result.output
    assert "run `python -m processing verify` on the dataset's folder" in result.output


def test_shards_without_rows_are_told(tmp_path):
    (tmp_path / "pose").mkdir()
    pq.write_table(
        shard_table("validation-known", []), tmp_path / "pose/validation-00000-of-00001-known.parquet"
    )
    with pytest.raises(DatasetError, match=r"pose/validation-\*\.parquet in .* have no rows"):
        evaluate(tmp_path / "predictions.csv", tmp_path)


def test_groups_may_overlap_and_come_from_a_file(dataset, rows, tmp_path):
    predictions = write(tmp_path / "predictions.csv", rows)
    groups = {"furniture": ["bed"], "all of it": ["bed", "car", "yurt"], "absent": ["whisk"]}
    (tmp_path / "groups.json").write_text(json.dumps(groups))
    report = evaluate(predictions, dataset, groups=groups)
    assert [(summary.name, summary.objects) for summary in report.by["group"]] == [
        ("furniture", 2),
        ("all of it", 6),
        ("absent", 0),
    ]
    from_file = evaluate(predictions, dataset, groups=tmp_path / "groups.json")
    assert from_file.to_json() == report.to_json()
    assert json.loads(report.to_json())["by"]["group"][2]["median_error"] is None


def test_groups_of_categories_that_do_not_exist_are_refused(dataset, rows, tmp_path):
    predictions = write(tmp_path / "predictions.csv", rows)
    with pytest.raises(ValueError, match="the groups: categories that do not exist") as caught:
        evaluate(predictions, dataset, groups={"seats": ["sofas", "bed"], "crafts": ["spaceship"]})
    assert "\"sofas\" in group 'seats' (sofa is the closest that does)" in str(caught.value)
    assert "\"spaceship\" in group 'crafts'" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'["bed"]', '["bed"] is not an object of groups; give'),
        (b"null", "null is not an object of groups; give"),
        (b'{"a": null}', "group 'a' is null, not a list of categories; give"),
        (b'{"a": "bed"}', "group 'a' is \"bed\", not a list of categories; give"),
        (b'{"a": {"bed": 1}}', "group 'a' is {\"bed\": 1}, not a list of categories; give"),
        (b'{"a": 1}', "group 'a' is 1, not a list of categories; give"),
        (b'{"a": ["bed", null, ["car"]]}', "categories that do not exist: null in group 'a'"),
        (b'{"a": ["bed", "cars"]}', "\"cars\" in group 'a' (car is the closest"),
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


# The report


@pytest.fixture
def report(dataset, rows, tmp_path):
    named = [row | {"category": "bed", "azimuth": row["azimuth"] + np.radians(20)} for row in rows]
    return evaluate(write(tmp_path / "predictions.parquet", named), dataset)


def test_table_has_a_row_a_group(report):
    lines = [re.split(r"\s{2,}", line.strip()) for line in str(report).splitlines()]
    assert ["all", "all", "6", "100.0", "0.0", "20.0", "20.0", "33.3", "33.3", "0.0"] in lines
    assert ["category", "yurt", "2", "100.0", "0.0", "20.0", "20.0", "0.0", "0.0", "0.0"] in lines
    assert [line[1] for line in lines if line[0] == "status"] == ["good", "partially", "bad", "none"]


def test_json_holds_the_figures(report):
    content = json.loads(report.to_json())
    assert (content["config"], content["split"]) == ("pose", "validation")
    assert content["overall"]["median_error"] == pytest.approx(20)
    assert [group["name"] for group in content["by"]["known"]] == ["known", "unknown"]
    assert len(content["curves"]["all"]) == 181


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_plot_is_written_in_the_format_of_its_ending(report, tmp_path, ending, start):
    pytest.importorskip("matplotlib")
    report.plot(tmp_path / f"accuracy.{ending}")
    assert (tmp_path / f"accuracy.{ending}").read_bytes().startswith(start)


def test_without_matplotlib_the_extra_is_named(report, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[demo\]'"):
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
    assert json.loads((tmp_path / "figures.json").read_text("utf-8"))["overall"]["objects"] == 6
    assert (tmp_path / "accuracy.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_the_table_is_there_although_a_file_cannot_be_written(dataset, rows, tmp_path, option):
    pytest.importorskip("matplotlib")
    predictions = write(tmp_path / "predictions.csv", rows)
    result = command(predictions, dataset, option, tmp_path / "no folder/accuracy.svg")
    assert result.exit_code == 1
    assert "π/6 %" in result.output
    assert "no folder/accuracy.svg" in result.output


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_the_table_says_what_the_terminal_can(dataset, rows, tmp_path, encoding):
    groups = {"椅子 ä": ["bed"]}
    (tmp_path / "groups.json").write_text(json.dumps(groups), "utf-8")
    predictions = write(tmp_path / "predictions.csv", rows)
    arguments = [predictions, "--dataset", dataset, "--groups", tmp_path / "groups.json"]
    for options in (arguments, ["--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "processing", "evaluate", *options],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONIOENCODING": encoding},
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr
        if options is arguments:
            header, ruler, *lines = done.stdout.decode(encoding).splitlines()[2:]
    pi, degree = ("π", "°") if encoding == "utf-8" else ("pi", "deg")
    wanted = ["by", "name", "objects", f"{pi}/6 %", f"{pi}/18 %", f"median {degree}", f"mean {degree}"]
    assert re.split(r"\s{2,}", header.strip()) == wanted
    assert len(header) == len(ruler)  # the columns are as wide as what they are called
    group = next(line for line in lines if line.startswith("group"))
    assert {"latin-1": "\\u6905\\u5b50 ä", "ascii": "\\u6905\\u5b50 \\xe4", "utf-8": "椅子 ä"}[
        encoding
    ] in group


def test_a_million_predictions_take_less_than_five_seconds(tmp_path):
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
    # Processor time of all threads, which is no less than what a watch shows on an idle machine, and does not
    # depend on who else is at work on this one.
    started = time.process_time()
    report = evaluate(tmp_path / "predictions.parquet", tmp_path)
    assert time.process_time() - started < 5
    assert report.overall.objects == size
    assert report.overall.joint_pi_18 == 1
