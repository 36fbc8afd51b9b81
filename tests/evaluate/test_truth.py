"""Which objects are scored, and damage of the dataset that is not blamed on the predictions."""

import hashlib
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.scored import (
    ANGLES,
    SHARDS,
    command,
    damage_column,
    perfect,
    score,
    shard_table,
    write,
    write_dataset,
)

import ImageNet3D
from processing.built import MANIFEST, Listed, Manifest
from processing.evaluate.choices import ChoiceError
from processing.evaluate.predictions import PredictionError
from processing.evaluate.truth import DatasetError


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
    report = score(write(tmp_path / "predictions.jsonl", wanted), dataset, config, split)
    assert {summary.name for summary in report.by["category"]} == categories
    assert set(report.curves) == ({"all", "known", "unknown"} if len(categories) == 3 else {"all"})


def test_pictures_are_not_read(dataset, rows, tmp_path):
    # With the bytes of the pictures' column destroyed, only a reader that leaves them alone gets through.
    shutil.copytree(dataset / "pose", tmp_path / "pose")
    for shard in (tmp_path / "pose").glob("validation-*"):
        damage_column(shard, "image")
    with pytest.raises(OSError, match="page header"):
        pq.read_table(tmp_path / "pose")
    assert score(write(tmp_path / "predictions.csv", rows), tmp_path).overall.objects == 6


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
        score(write(tmp_path / "predictions.csv", rows), dataset, config, split)


def test_a_folder_without_the_config_names_what_it_looked_for(dataset, rows, tmp_path):
    predictions = write(tmp_path / "predictions.csv", rows)
    with pytest.raises(FileNotFoundError, match=r"no files pose/validation-\*\.parquet in"):
        score(predictions, tmp_path)
    (tmp_path / "pose").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no files pose/train-\*-known\.parquet in"):
        score(predictions, tmp_path, "open_vocab_known", "train")


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
        score(write(tmp_path / "predictions.csv", rows), tmp_path)
    assert "pose/validation-0000" in str(caught.value)
    assert "run `imagenet3d verify`" in str(caught.value)


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
    assert "run `imagenet3d verify` on the dataset's folder" in result.output


def test_shards_without_rows_are_told(tmp_path):
    (tmp_path / "pose").mkdir()
    pq.write_table(
        shard_table("validation-known", []), tmp_path / "pose/validation-00000-of-00001-known.parquet"
    )
    with pytest.raises(DatasetError, match=r"pose/validation-\*\.parquet in .* have no rows"):
        score(tmp_path / "predictions.csv", tmp_path)


# Populations


def with_object_centric(folder, dropped=()):
    """Add the config object_centric, of the objects that its rules take but for some."""
    (folder / "object_centric").mkdir()
    for name, objects in SHARDS.items():
        table = shard_table(name, objects)
        keep = [
            status in (0, 1, 2) and (image_id, index) not in dropped
            for (_, status), image_id, index in zip(
                objects, table["image_id"].to_pylist(), table["object_index"].to_pylist(), strict=True
            )
        ]
        pq.write_table(table.filter(pa.array(keep)), folder / "object_centric" / f"{name}.parquet")
    return folder


BENCHMARK = ["bed/validation_0 0", "bed/validation_0 1", "car/validation_1 0", "yurt/validation_0 1"]


def test_the_population_is_fixed_and_named_by_a_checksum(dataset, rows, tmp_path):
    report = score(write(tmp_path / "predictions.csv", rows), dataset, population="benchmark")
    wanted = hashlib.sha256("".join(f"{key}\n" for key in BENCHMARK).encode()).hexdigest()
    assert (report.population.objects, report.population.keys_sha256) == (4, wanted)
    assert report.aside == 2
    assert "no ignore flag" in report.population.note  # pose cannot tell it
    for text in (
        "benchmark: status good",
        f"4, SHA-256 of the keys {wanted}",
        "outside the population 2 predicted",
    ):
        assert text in str(report).replace("  ", " ")
    every = score(write(tmp_path / "predictions.csv", rows), dataset)
    assert (every.population.objects, every.aside, every.population.note) == (6, 0, "")
    assert every.population.keys_sha256 != wanted


@pytest.mark.parametrize("configs", [("pose",), ("object_centric",), ("pose", "object_centric")])
def test_whichever_config_is_there_gives_the_same_population(rows, tmp_path, configs):
    folder = with_object_centric(write_dataset(tmp_path / "built"))
    for config in {"pose", "object_centric"} - set(configs):
        shutil.rmtree(folder / config)
    wanted = [row for row in rows if f"{row['image_id']} {row['object_index']}" in BENCHMARK]
    report = score(write(tmp_path / "predictions.csv", wanted), folder, population="benchmark")
    assert report.population.keys_sha256 == hashlib.sha256("\n".join([*BENCHMARK, ""]).encode()).hexdigest()
    assert report.overall.error.mean < 1e-6
    assert bool(report.population.note) == (configs == ("pose",))
    unknown = [row for row in wanted if row["image_id"].startswith("yurt")]
    write(tmp_path / "predictions.csv", unknown)
    report = score(tmp_path / "predictions.csv", folder, "open_vocab_unknown", population="benchmark")
    assert (report.population.objects, report.aside) == (1, 0)


def test_object_centric_decides_where_it_is_there(rows, tmp_path):
    # As of an object with an ignore flag, which the columns of pose do not show.
    folder = with_object_centric(write_dataset(tmp_path / "built"), dropped=[("car/validation_1", 0)])
    report = score(write(tmp_path / "predictions.csv", rows), folder, population="benchmark")
    assert (report.population.objects, report.aside) == (3, 3)


@pytest.mark.parametrize("column", ["distance", "px", "py"])
def test_what_a_crop_needs_may_be_null_in_pose(rows, tmp_path, column):
    folder = write_dataset(tmp_path / "built")
    shard = folder / HARMED
    changed(column, lambda count: [None] * count)(shard)
    table = pq.read_table(shard)
    pq.write_table(
        table.set_column(table.column_names.index(column), column, pa.nulls(2, pa.float64())), shard
    )
    report = score(write(tmp_path / "predictions.csv", rows), folder, population="benchmark")
    assert (report.population.objects, report.aside) == (3, 3)


def test_a_split_of_which_files_are_missing_is_refused(dataset, rows, tmp_path):
    shutil.copytree(dataset / "pose", tmp_path / "pose")
    (tmp_path / HARMED).unlink()
    with pytest.raises(DatasetError, match=r"pose/ holds 1 of 2 files of validation"):
        score(write(tmp_path / "predictions.csv", rows), tmp_path)


def test_predictions_of_another_split_get_a_hint(dataset, tmp_path):
    predictions = write(tmp_path / "predictions.csv", perfect(dataset, "train"))
    result = command(predictions, dataset)
    assert result.exit_code == 1
    assert "2 of these predictions are of train in pose: give --split train?" in result.output
    assert command(predictions, dataset, "--split", "train").exit_code == 0


def test_predictions_of_other_categories_get_a_hint(dataset, rows, tmp_path):
    unknown = [row for row in rows if row["image_id"].startswith("yurt")]
    with pytest.raises(PredictionError, match=r"2 of these .* of validation in pose: give --config pose\?"):
        score(write(tmp_path / "predictions.csv", unknown), dataset, "open_vocab_known")


def test_predictions_of_all_of_validation_are_scored_on_a_part(rows, tmp_path):
    """As one file of them is for both entries of the leaderboards."""
    folder = with_object_centric(write_dataset(tmp_path / "built"))
    predictions = write(tmp_path / "predictions.csv", rows)
    for files in ({"pose", "object_centric"}, {"pose"}, {"object_centric"}):
        for config in {"pose", "object_centric"} - files:
            shutil.move(folder / config, tmp_path / config)
        if files == {"object_centric"}:
            write(
                predictions, [row for row in rows if f"{row['image_id']} {row['object_index']}" in BENCHMARK]
            )
        report = score(predictions, folder, "open_vocab_unknown", population="benchmark")
        keys = hashlib.sha256(b"yurt/validation_0 1\n").hexdigest()
        assert (report.population.objects, report.population.keys_sha256) == (1, keys)
        assert report.aside == (3 if files == {"object_centric"} else 5)
        assert report.overall.error.mean < 1e-6
        for config in {"pose", "object_centric"} - files:
            shutil.move(tmp_path / config, folder / config)
    write(predictions, rows)
    for config, objects in (("open_vocab_unknown", 2), ("open_vocab_known", 4)):
        report = score(predictions, folder, config)
        assert (report.population.objects, report.aside) == (objects, 6 - objects)


def test_a_hint_s_own_trouble_replaces_nothing(dataset, tmp_path):
    shutil.copytree(dataset / "pose", tmp_path / "pose")
    for shard in (tmp_path / "pose").glob("train-*"):
        shard.write_bytes(b"")
    predictions = write(tmp_path / "predictions.csv", perfect(dataset, "train"))
    with pytest.raises(
        PredictionError, match=r"^6 objects without a prediction.*2 objects predicted but not"
    ):
        score(predictions, tmp_path)


# Splits and shards without rows, which have no file


def manifest(folder):
    """Write down what a build has made, as it does: the files that are there; accounts of both configs."""
    files = [path.relative_to(folder).as_posix() for path in sorted(folder.glob("*/*.parquet"))]
    made = Manifest("1.0.0", files={name: Listed(1, "0" * 64) for name in files})
    for config in ("pose", "open_vocab_known", "open_vocab_unknown", "object_centric"):
        for split in ImageNet3D.config_splits(config):
            made.books.account(config, split)
    (folder / MANIFEST).write_bytes(made.to_json())
    return folder


@pytest.mark.parametrize("config", ["pose", "object_centric"])
def test_a_shard_without_rows_has_no_file(rows, tmp_path, config):
    folder = with_object_centric(write_dataset(tmp_path / "built"), dropped=[("yurt/validation_0", 1)])
    if config == "pose":
        (folder / HARMED).unlink()
        rows = [row for row in rows if not row["image_id"].startswith("yurt")]
    (folder / HARMED.replace("pose", "object_centric")).unlink()
    predictions = write(tmp_path / "predictions.csv", rows)
    with pytest.raises(DatasetError, match="holds 1 of 2 files"):  # nothing says that it should be so
        score(predictions, folder, population="benchmark")
    report = score(predictions, manifest(folder), population="benchmark")
    assert (report.population.objects, report.overall.error.mean < 1e-6) == (3, True)
    with pytest.raises(
        ChoiceError, match=r"no object of open_vocab_unknown, validation in .* give "
    ) as caught:
        score(predictions, folder, "open_vocab_unknown", population="benchmark")
    remedy = "another --split or --config" if config == "pose" else "--population all"
    assert str(caught.value).endswith(remedy)
    for shard in (folder / config).glob("validation-*-known.parquet"):  # one that the manifest lists
        shard.rename(tmp_path / shard.name)
        (folder / config / "validation-00002-of-00009-known.parquet").write_bytes(b"")
        with pytest.raises(DatasetError, match="holds 1 of 9 files"):
            score(predictions, folder, population="benchmark")


def test_a_population_without_objects_is_wrong_usage(rows, tmp_path):
    """As where every object of validation has an ignore flag: no crop is of that split."""
    folder = with_object_centric(write_dataset(tmp_path / "built"))
    listed = manifest(folder) / MANIFEST
    for shard in (folder / "object_centric").glob("validation-*"):
        shard.unlink()
    predictions = write(tmp_path / "predictions.csv", rows)
    # The build made some, which are not here: they are not taken for none.
    assert "ignore flag" in score(predictions, folder, population="benchmark").population.note
    listed.unlink()
    assert "ignore flag" in score(predictions, folder, population="benchmark").population.note
    manifest(folder)
    result = command(predictions, folder)
    assert result.exit_code == 2, result.output
    assert "is of the population benchmark (status good," in result.output
    assert result.output.endswith("give --population all\n")
    assert "broken" not in result.output
    assert command(predictions, folder, "--population", "all").exit_code == 0
    result = command(predictions, folder, "--config", "object_centric")
    assert (result.exit_code, "give --config pose --population all" in result.output) == (2, True)


def test_a_pipe_in_the_place_of_a_shard_is_refused(dataset, rows, tmp_path):
    shutil.copytree(dataset / "pose", tmp_path / "pose")
    (tmp_path / HARMED).unlink()
    os.mkfifo(tmp_path / HARMED)
    with pytest.raises(DatasetError, match="is no file"):
        score(write(tmp_path / "predictions.csv", rows), tmp_path)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_escape_sequences_of_a_key_are_shown_and_not_sent(dataset, rows, tmp_path, ending):
    strange = rows[0] | {"image_id": "bed/\x1b]0;owned\x07"}
    result = command(write(tmp_path / f"predictions.{ending}", [*rows, strange]), dataset)
    assert result.exit_code == 1
    assert r"bed/\x1b]0;owned\x07 object" in result.output
    assert "\x1b" not in result.output


def test_a_fault_of_our_own_is_not_told_as_wrong_usage(dataset, rows, tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("a fault inside")

    monkeypatch.setattr("processing.evaluate.command._curves", fail)
    result = command(write(tmp_path / "predictions.csv", rows), dataset)
    assert isinstance(result.exception, ValueError)
    assert result.exit_code == 1


def test_a_dataset_may_have_later_categories(rows, tmp_path):
    folder = write_dataset(tmp_path / "built")
    names = [*ImageNet3D.CATEGORIES, "hoverboard"]
    features = json.dumps({"info": {"features": {"category": {"names": names, "_type": "ClassLabel"}}}})
    table = pq.read_table(folder / HARMED)
    later = pa.array([len(ImageNet3D.CATEGORIES)] * table.num_rows)
    table = table.set_column(table.column_names.index("category"), "category", later)
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), folder / HARMED)
    named = [row | {"category": "hoverboard"} for row in rows]
    report = score(write(tmp_path / "a.csv", named), folder, groups={"new": ["hoverboard"]})
    assert report.by["category"][-1].name == "hoverboard"
    assert report.overall.joint.classification == pytest.approx(2 / 6)
    assert report.by["group"][0].objects == 2


def test_shards_that_name_other_categories_are_damage(rows, tmp_path):
    folder = write_dataset(tmp_path / "built")
    names = [*reversed(ImageNet3D.CATEGORIES)]
    features = json.dumps({"info": {"features": {"category": {"names": names}}}})
    table = pq.read_table(folder / HARMED)
    pq.write_table(table.replace_schema_metadata({"huggingface": features}), folder / HARMED)
    with pytest.raises(DatasetError, match="names other categories, or in another order"):
        score(write(tmp_path / "a.csv", rows), folder)
