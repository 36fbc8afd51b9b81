"""The figures against those of the authors' evaluation, written anew from their formulas.

Their rotation error is ‖log(R1ᵀ · R2)‖ / √2 with scipy's matrix logarithm, their accuracy the share of errors
strictly below a threshold, a wrong category an error of π; objects of status bad, without distance or with an
ignore flag are not evaluated.
"""

import numpy as np
import pytest
import scipy.linalg
from scipy.spatial.transform import Rotation
from support.scored import ANGLES, command, write

import ImageNet3D
from processing import geometry
from processing.evaluate.command import evaluate
from processing.evaluate.truth import DatasetError


def authors_rotation(azimuth, elevation, theta):
    """Return Rz(theta) · Rx(-(π/2 - elevation)) · Rz(-azimuth)."""
    turns = [("z", theta), ("x", -(np.pi / 2 - elevation)), ("z", -azimuth)]
    z, x, other = (Rotation.from_euler(axis, angle).as_matrix() for axis, angle in turns)
    return z @ x @ other


def authors_error(first, second):
    logarithm = scipy.linalg.logm(authors_rotation(*first).T @ authors_rotation(*second))
    return np.linalg.norm(logarithm, "fro") / np.sqrt(2)


@pytest.fixture(scope="module")
def truth(built_sample):
    """The rows of validation that the authors evaluate, as `datasets` reads them."""
    import datasets

    rows = datasets.load_dataset(str(built_sample), "pose", split="validation").remove_columns("image")
    kept = [row for row in rows.to_list() if row["object_status"] in (0, 1, 2) and row["distance"] > 0]
    assert len(kept) > 20
    return kept


@pytest.fixture(scope="module")
def predictions(truth):
    """Predictions of which some are right, some off, some of the wrong category."""
    rng = np.random.default_rng(7)
    found = []
    for row in truth:
        off = rng.normal(0, rng.choice([0.02, 0.15, 1.0]), 3)
        category = row["category"] if rng.random() < 0.7 else int(rng.integers(len(ImageNet3D.CATEGORIES)))
        pose = {angle: row[angle] + off[i] for i, angle in enumerate(ANGLES)}
        found.append(
            {name: row[name] for name in ("image_id", "object_index")} | pose | {"category": category}
        )
    return found


def test_figure_by_figure(built_sample, truth, predictions, tmp_path):
    report = evaluate(write(tmp_path / "predictions.csv", predictions), built_sample)
    pairs = list(zip(truth, predictions, strict=True))
    error = np.array([authors_error([p[a] for a in ANGLES], [t[a] for a in ANGLES]) for t, p in pairs])
    correct = np.array([t["category"] == p["category"] for t, p in pairs])
    joint = np.where(correct, error, np.pi)
    assert report.population.objects == len(truth)
    for label, threshold in (("π/6", np.pi / 6), ("π/18", np.pi / 18)):
        assert report.overall.accuracy[label] == np.mean(error < threshold)
        assert report.overall.joint.accuracy[label] == np.mean(joint < threshold)
    assert 0 < report.overall.accuracy["π/18"] < report.overall.accuracy["π/6"] < 1
    assert report.overall.joint.classification == np.mean(correct)
    assert report.overall.error.median == pytest.approx(np.degrees(np.median(error)))
    assert report.overall.error.mean == pytest.approx(np.degrees(np.mean(error)))
    assert report.overall.joint.error.median == pytest.approx(np.degrees(np.median(joint)))
    assert report.overall.joint.error.mean == pytest.approx(np.degrees(np.mean(joint)))
    names = np.array([ImageNet3D.CATEGORIES[t["category"]] for t in truth])
    assert len(report.by["category"]) > 3
    for summary in report.by["category"]:
        of_it = error[names == summary.name]
        assert summary.accuracy["π/6"] == np.mean(of_it < np.pi / 6)
        assert summary.error.median == pytest.approx(np.degrees(np.median(of_it)))
    per_category = [np.mean(error[names == name] < np.pi / 6) for name in np.unique(names)]
    assert report.average.accuracy["π/6"] == pytest.approx(np.mean(per_category))
    unknown = np.array([not t["known"] for t in truth])
    summary = next(summary for summary in report.by["known"] if summary.name == "unknown")
    assert summary.accuracy["π/6"] == np.mean(error[unknown] < np.pi / 6)


def test_half_a_turn_is_half_a_turn(truth):
    # The logarithm of half a turn is not unique: theirs is anything from 0 to 3.4 there, ours is π.
    for axis in np.eye(3):
        true = authors_rotation(*(truth[0][angle] for angle in ANGLES))
        half = true @ Rotation.from_rotvec(np.pi * axis).as_matrix()
        assert geometry.rotation_error(half, true) == pytest.approx(np.pi, abs=1e-7)


def test_the_sample_s_population_is_object_centric(built_sample, truth, predictions, tmp_path):
    report = evaluate(write(tmp_path / "predictions.jsonl", predictions), built_sample)
    assert report.population.read_from == ("pose", "object_centric")
    assert "no ignore flag" in report.population.rule
    result = command(tmp_path / "predictions.jsonl", built_sample, "--config", "object_centric")
    assert result.exit_code == 0, result.output
    assert report.population.keys_sha256 in result.output  # the same objects, read from their own config


def test_an_object_of_object_centric_that_pose_lacks_is_damage(built_sample, predictions, tmp_path):
    import pyarrow.parquet as pq

    for config in ("pose", "object_centric"):
        (tmp_path / config).mkdir()
        for shard in (built_sample / config).glob("validation-*"):
            columns = [name for name in pq.read_schema(shard).names if name != "image"]
            rows = pq.read_table(shard, columns=columns)
            pq.write_table(rows.slice(1) if config == "pose" else rows, tmp_path / config / shard.name)
    with pytest.raises(DatasetError, match=r"object_centric has \d+ objects, of which \d+ are in pose"):
        evaluate(write(tmp_path / "predictions.csv", predictions), tmp_path)
