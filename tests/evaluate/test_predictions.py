"""Predictions in every format and form; every way in which they can be wrong is named."""

import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.spatial.transform import Rotation
from support.scored import (
    ANGLES,
    ENDINGS,
    as_rotations,
    command,
    damage_column,
    score,
    without_angles,
    write,
)

import ImageNet3D
from processing import geometry
from processing.evaluate.predictions import PredictionError, read_predictions


@pytest.mark.parametrize("form", [list, as_rotations], ids=["angles", "rotation"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl", "ndjson"])
def test_perfect_predictions_have_no_error(dataset, rows, tmp_path, ending, form):
    report = score(write(tmp_path / f"predictions.{ending}", form(rows)), dataset)
    assert report.overall.objects == 6
    assert report.overall.accuracy["π/18"] == 1
    assert report.overall.error.mean < 1e-6
    assert report.overall.joint is None


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_category_may_be_an_id(dataset, rows, tmp_path, ending):
    for row in rows:
        row["category"] = ImageNet3D.CATEGORY_IDS[row["image_id"].partition("/")[0]]
    rows[0]["category"] = (rows[0]["category"] + 1) % len(ImageNet3D.CATEGORIES)
    report = score(write(tmp_path / f"predictions.{ending}", rows), dataset)
    assert report.overall.joint.classification == pytest.approx(5 / 6)
    rows[0]["category"] = len(ImageNet3D.CATEGORIES)
    with pytest.raises(PredictionError, match="a category that does not exist"):
        score(write(tmp_path / f"predictions.{ending}", rows), dataset)


def test_a_nested_rotation_is_told_what_is_wanted(dataset, rows, tmp_path):
    rows = [row | {"rotation": np.reshape(row["rotation"], (3, 3)).tolist()} for row in as_rotations(rows)]
    with pytest.raises(PredictionError, match="nine numbers in one, row by row"):
        score(write(tmp_path / "predictions.jsonl", rows), dataset)


def test_single_precision_and_other_columns_are_fine(dataset, rows, tmp_path):
    table = pa.Table.from_pylist([row | {"feature": [1.0] * 100} for row in as_rotations(rows)])
    single = table["rotation"].cast(pa.list_(pa.float32(), 9))
    table = table.set_column(table.column_names.index("rotation"), "rotation", single)
    pq.write_table(table, tmp_path / "predictions.parquet")
    assert read_predictions(tmp_path / "predictions.parquet").form == ("rotation",)
    assert score(tmp_path / "predictions.parquet", dataset).overall.error.mean < 1e-3


@pytest.mark.parametrize("category", ["bed", ImageNet3D.CATEGORY_IDS["bed"]])
def test_decimals_and_views_of_text_are_fine(dataset, rows, tmp_path, category):
    """DuckDB takes 1.57 for a decimal."""
    table = pa.Table.from_pylist([row | {"category": category} for row in rows])
    kinds = {**dict.fromkeys(ANGLES, pa.decimal128(38, 18)), "object_index": pa.decimal128(38, 2)}
    kinds |= {"image_id": pa.string_view()}
    kinds["category"] = pa.string_view() if category == "bed" else pa.decimal128(38, 1)
    table = pa.table({name: pa.array(table[name].to_pylist()).cast(kind) for name, kind in kinds.items()})
    pq.write_table(table, tmp_path / "predictions.parquet")
    report = score(tmp_path / "predictions.parquet", dataset)
    assert report.overall.error.mean < 1e-6
    assert report.overall.joint.classification == pytest.approx(2 / 6)


def test_lines_of_json_may_begin_with_an_empty_one(dataset, rows, tmp_path):
    path = write(tmp_path / "predictions.jsonl", rows)
    path.write_text("\n  \n" + path.read_text())
    assert score(path, dataset).overall.error.mean < 1e-6


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_json_that_is_no_lines_is_told_what_is_wanted(dataset, rows, tmp_path, indent, whole):
    if not whole and not indent:
        rows = [list(row.values()) for row in rows]
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps(rows if whole else rows[0], indent=indent))
    assert "predictions.jsonl: it" in (message := refusal(dataset, path))
    assert "write one JSON object a line" in message


def refusal(dataset, path, **options):
    with pytest.raises(PredictionError) as caught:
        score(path, dataset, **options)
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


@pytest.mark.parametrize("value", [0.5, -1.25, float("inf"), 1e300])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_numbers_of_objects_that_are_none_are_named(dataset, rows, tmp_path, ending, value):
    rows[2]["object_index"] = value
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert (
        f"predictions.{ending}: column object_index holds {value:g}, which is no object's number; " in message
    )


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_missing_number_is_no_number(dataset, rows, tmp_path, ending):
    rows[2]["object_index"] = None if ending == "jsonl" else float("nan")
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert "1 object predicted but not in the dataset: car/validation_1 object None" in message


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
    assert category is None or "(spaceship)" in message
    rows[2]["category"] = ""
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert "does not exist (empty text): car/validation_1" in message


def test_half_precision_gets_a_remedy(dataset, rows, tmp_path):
    table = pa.Table.from_pylist(as_rotations(rows))
    half = pa.array(
        [np.array(row, np.float16) for row in table["rotation"].to_pylist()], pa.list_(pa.float16())
    )
    table = table.set_column(table.column_names.index("rotation"), "rotation", half)
    pq.write_table(table, tmp_path / "predictions.parquet")
    message = refusal(dataset, tmp_path / "predictions.parquet")
    assert "not a rotation matrix" in message
    assert message.endswith("orthonormal: U Vh of numpy.linalg.svd(M)")
    u, _, vh = np.linalg.svd(np.reshape(np.stack(half.to_numpy(False)).astype(float), (-1, 3, 3)))
    mended = [
        row | {"rotation": r.ravel().tolist()} for row, r in zip(as_rotations(rows), u @ vh, strict=True)
    ]
    assert score(write(tmp_path / "predictions.jsonl", mended), dataset).overall.error.mean < 0.1


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("column", ["image_id", "object_index", "theta"])
def test_missing_columns_are_named(dataset, rows, tmp_path, ending, column):
    rows = [{name: value for name, value in row.items() if name != column} for row in rows]
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert f"has the columns {', '.join(rows[0])}; it needs image_id and object_index" in message


def test_angles_and_rotation_at_once_are_refused(dataset, rows, tmp_path):
    both = [row | rotated for row, rotated in zip(rows, as_rotations(rows), strict=True)]
    assert "not 2 of them" in refusal(dataset, write(tmp_path / "predictions.parquet", both))


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
        score(tmp_path / "predictions.txt", dataset)


def test_a_file_that_is_not_there_is_named(dataset, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        score(tmp_path / "nowhere.csv", dataset)


# Forms of a pose


def as_form(rows, form):
    """Return predictions with the pose in another form."""
    found = []
    for row in rows:
        angles = [row[angle] for angle in ANGLES]
        matrix = geometry.rotation_from_viewpoint(*angles)
        x, y, z, w = Rotation.from_matrix(matrix).as_quat()
        a, e, t = np.degrees(angles)
        other = {
            "quaternion": {"qw": -w, "qx": -x, "qy": -y, "qz": -z},
            "orient anything": {"ref_az_pred": a, "ref_el_pred": e, "ref_ro_pred": -t},
            "entries": {f"r{i}{j}": matrix[i, j] for i in range(3) for j in range(3)},
            "degrees": {"azimuth": a + 360, "elevation": e, "theta": t - 720},
        }[form]
        found.append(without_angles(row) | {name: float(value) for name, value in other.items()})
    return found


@pytest.mark.parametrize("form", ["quaternion", "orient anything", "entries", "degrees"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_poses_in_other_forms(dataset, rows, tmp_path, form, ending):
    predictions = write(tmp_path / f"predictions.{ending}", as_form(rows, form))
    report = score(predictions, dataset, degrees=True if form == "degrees" else None)
    assert report.overall.error.mean < 1e-6
    assert max(spread.mean for spread in report.overall.angles.values()) < 1e-6


@pytest.mark.parametrize("ending", ENDINGS)
def test_degrees_are_noticed_and_asked_about(dataset, rows, tmp_path, ending):
    predictions = write(tmp_path / f"predictions.{ending}", as_form(rows, "degrees"))
    result = command(predictions, dataset)
    assert result.exit_code == 1
    assert re.search(r"values up to \d+: degrees\? give --degrees", result.output)
    assert command(predictions, dataset, "--degrees").exit_code == 0
    assert command(predictions, dataset, "--radians").exit_code == 0


@pytest.mark.parametrize("option", ["--degrees", "--radians"])
@pytest.mark.parametrize("form", ["quaternion", "orient anything", "entries"])
def test_units_of_what_has_its_own_are_wrong_usage(dataset, rows, tmp_path, form, option):
    result = command(write(tmp_path / "predictions.csv", as_form(rows, form)), dataset, option)
    if (form, option) == ("orient anything", "--degrees"):  # as they are
        assert result.exit_code == 0, result.output
        return
    assert result.exit_code == 2, result.output
    assert f"leave out {option}" in result.output


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_few_turns_more_are_no_degrees(dataset, rows, tmp_path, ending):
    more = [row | {"theta": row["theta"] - 2 * np.pi} for row in rows]
    assert score(write(tmp_path / f"predictions.{ending}", more), dataset).overall.error.mean < 1e-6


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_quaternion_of_another_length_is_named(dataset, rows, tmp_path, ending):
    rows = as_form(rows, "quaternion")
    rows[2]["qw"] += 0.5
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert "1 object with a quaternion that is not of length 1: car/validation_1 object 1" in message


# One clear error, or the right figure, in every format


def write_doubled(path, rows):
    """Write predictions in which theta stands twice, wrong in its second place."""
    names = [*rows[0], "theta"]
    values = [[*row.values(), 0.0] for row in rows]
    if path.suffix == ".parquet":
        columns = [pa.array(column) for column in zip(*values, strict=True)]
        pq.write_table(pa.Table.from_arrays(columns, names=names), path)
    elif path.suffix == ".csv":
        path.write_text("\n".join(",".join(map(str, line)) for line in [names, *values]) + "\n")
    else:
        path.write_text("".join(json.dumps(row)[:-1] + ', "theta": 0.0}\n' for row in rows))
    return path


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_column_that_stands_twice_is_refused(dataset, rows, tmp_path, ending):
    message = refusal(dataset, write_doubled(tmp_path / f"predictions.{ending}", rows))
    assert f"predictions.{ending}: it has the column theta 2 times" in message


def test_a_field_that_stands_twice_in_a_later_line_is_refused(dataset, rows, tmp_path):
    path = write(tmp_path / "predictions.jsonl", rows)
    path.write_text(path.read_text()[:-2] + ', "theta": 0.0}\n')
    assert "theta" in refusal(dataset, path)


@pytest.mark.parametrize("value", [3, 0.5, "left", True, {"a": 1}, [[1.0] * 3] * 3])
@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_rotation_of_another_type_is_refused(dataset, rows, tmp_path, ending, value):
    odd = [without_angles(row) | {"rotation": value} for row in rows]
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", odd))
    assert f"predictions.{ending}: " in message
    assert "rotation" in message


def test_a_rotation_in_one_column_of_csv_is_refused(dataset, rows, tmp_path):
    path = tmp_path / "predictions.csv"
    path.write_text("image_id,object_index,rotation\nbed/validation_0,0,3\n")
    assert "nine columns, r00 to r22" in refusal(dataset, path)


@pytest.mark.parametrize("column", ["theta", "object_index"])
@pytest.mark.parametrize("value", ["left", True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_number_of_another_type_is_refused(dataset, rows, tmp_path, ending, value, column):
    odd = [row | {column: value} for row in rows]
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", odd))
    assert f"predictions.{ending}: " in message
    assert column in message


@pytest.mark.parametrize("ending", ENDINGS)
def test_whole_numbers_may_be_written_as_floats(dataset, rows, tmp_path, ending):
    rows = [
        row
        | {
            "object_index": float(row["object_index"]),
            "category": float(ImageNet3D.CATEGORY_IDS[row["image_id"].partition("/")[0]]),
        }
        for row in rows
    ]
    report = score(write(tmp_path / f"predictions.{ending}", rows), dataset)
    assert report.overall.joint.classification == 1
    rows[0]["object_index"] = 0.5
    assert "predictions" in refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_first_category_that_is_null_is_named(dataset, rows, tmp_path, ending):
    rows = [row | {"category": 12} for row in rows]
    rows[0]["category"] = None
    message = refusal(dataset, write(tmp_path / f"predictions.{ending}", rows))
    assert "1 object with a category that does not exist" in message


@pytest.mark.parametrize("ending", ENDINGS)
def test_ignored_columns_may_be_long_and_odd(dataset, rows, tmp_path, ending):
    odd = [row | {"feature": "x," * 1_500_000, "note": "a\nb"} for row in rows]
    assert score(write(tmp_path / f"predictions.{ending}", odd), dataset).overall.objects == 6


@pytest.mark.parametrize("column", ["theta", "category", "image_id"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_escape_sequences_of_values_do_not_reach_the_terminal(dataset, rows, tmp_path, ending, column):
    odd = [row | {"category": "bed"} | {column: "\x1b]0;owned\x07"} for row in rows]
    result = command(write(tmp_path / f"predictions.{ending}", odd), dataset)
    assert result.exit_code == 1
    assert not {"\x1b", "\x07"} & set(result.output)
    assert column == "theta" or "x1b]0;owned" in result.output
