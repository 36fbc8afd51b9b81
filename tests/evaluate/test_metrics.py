"""The figures against their plain definitions, and the baselines' bins there and back."""

import time
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_allclose

from processing.evaluate import metrics

# A busy machine may take its time; what is measured here is numbers.
untimed = settings(deadline=None)

errors = arrays.arrays(np.float64, st.integers(1, 50), elements=st.floats(0, np.pi))
angles = st.floats(-20, 20)
bin_counts = st.integers(1, 400)


def test_an_error_at_the_threshold_is_not_below_it():
    assert metrics.pose_accuracy([np.pi / 6, np.nextafter(np.pi / 6, 0), 0.0, np.pi], np.pi / 6) == 0.5


def test_errors_are_given_in_degrees():
    error = np.radians([10, 20, 90, 100])
    assert metrics.median_error(error) == pytest.approx(55)
    assert metrics.mean_error(error) == pytest.approx(55)
    assert metrics.median_error(error[:3]) == pytest.approx(20)
    assert metrics.mean_error(error[:3]) == pytest.approx(40)


def test_classification_counts_equal_names_or_numbers():
    assert metrics.classification_accuracy(["bed", "car", "bed"], ["bed", "bed", "bed"]) == pytest.approx(
        2 / 3
    )
    assert metrics.classification_accuracy(np.array([3, 4]), np.array([3, 4])) == 1


def test_a_wrong_class_counts_as_a_wrong_pose():
    error = [0.0, 0.0, 3.0, 3.0]
    correct = [True, False, True, False]
    assert metrics.joint_accuracy(error, correct, metrics.COARSE) == 0.25


@untimed
@given(errors, st.randoms(use_true_random=False), st.floats(0, np.pi))
def test_joint_accuracy_lies_below_both(error, random, threshold):
    correct = [random.random() < 0.5 for _ in error]
    joint = metrics.joint_accuracy(error, correct, threshold)
    assert joint <= min(metrics.pose_accuracy(error, threshold), np.mean(correct))
    assert joint >= metrics.pose_accuracy(error, threshold) + np.mean(correct) - 1 - 1e-12


@untimed
@given(errors, arrays.arrays(np.float64, 7, elements=st.floats(-1, 4)))
def test_curve_is_the_accuracy_at_each_threshold(error, thresholds):
    # Thresholds that are errors themselves show which side of the border they are on.
    thresholds = np.concatenate([thresholds, error])
    expected = [metrics.pose_accuracy(error, threshold) for threshold in thresholds]
    assert_allclose(metrics.accuracy_curve(error, thresholds), expected)


# The baselines' bins


@pytest.mark.parametrize("num_bins", [1, 7, 40, 360])
def test_bins_come_back_from_their_middles(num_bins):
    bins = np.arange(num_bins)
    assert (metrics.angle_to_bin(metrics.bin_to_angle(bins, num_bins), num_bins) == bins).all()


@untimed
@given(angles, bin_counts)
def test_an_angle_is_at_most_half_a_bin_from_the_middle_of_its_bin(angle, num_bins):
    middle = metrics.bin_to_angle(metrics.angle_to_bin(angle, num_bins), num_bins)
    assert np.abs(np.angle(np.exp(1j * (middle - angle)))) <= np.pi / num_bins + 1e-12


@pytest.mark.parametrize("num_bins", [1, 7, 40, 360])
def test_a_border_belongs_to_the_bin_above(num_bins):
    borders = 2 * np.pi * np.arange(num_bins) / num_bins
    assert (metrics.angle_to_bin(borders, num_bins) == np.arange(num_bins)).all()
    below = metrics.angle_to_bin(np.nextafter(borders[1:], 0), num_bins)
    assert (below == np.arange(num_bins - 1)).all()


@pytest.mark.parametrize(
    ("angle", "index"),
    [
        (0, 0),
        (2 * np.pi, 0),
        (-1e-20, 39),
        (-0.1, 39),
        (np.nextafter(2 * np.pi, 0), 39),
        (np.pi, 20),
        (-np.pi / 2, 30),
    ],
)
def test_angles_go_round(angle, index):
    assert metrics.angle_to_bin(angle) == index


def test_bins_keep_the_shape():
    assert metrics.angle_to_bin(np.zeros((2, 3))).shape == (2, 3)
    assert metrics.bin_to_angle(np.zeros((2, 3), dtype=int)).shape == (2, 3)


@pytest.mark.parametrize("angle", [np.nan, np.inf])
def test_an_angle_that_is_not_finite_has_no_bin(angle):
    with pytest.raises(ValueError, match="NaN or infinite"):
        metrics.angle_to_bin([0.0, angle])


@pytest.mark.parametrize("index", [-1, 40])
def test_bins_outside_the_range_are_refused(index):
    with pytest.raises(ValueError, match="bins run from 0 to 39"):
        metrics.bin_to_angle([0, index])


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins is 0"):
        metrics.angle_to_bin(0.0, 0)


# Summaries


def test_summary_without_categories_has_pose_figures_only():
    summary = metrics.summarise("all", np.radians([5, 20, 40, 50]))
    assert asdict(summary) == {
        "name": "all",
        "objects": 4,
        "accuracy_pi_6": 0.5,
        "accuracy_pi_18": 0.25,
        "median_error": pytest.approx(30),
        "mean_error": pytest.approx(28.75),
        "classification": None,
        "joint_pi_6": None,
        "joint_pi_18": None,
    }


def test_summary_with_categories_has_the_joint_figure():
    summary = metrics.summarise("all", np.radians([5, 20, 5, 50]), [True, True, False, True])
    assert (summary.classification, summary.joint_pi_6, summary.joint_pi_18) == (0.75, 0.5, 0.25)


def test_summary_of_nothing_is_nan():
    summary = metrics.summarise("none", np.zeros(0), np.zeros(0, dtype=bool))
    assert summary.objects == 0
    assert np.isnan(list(asdict(summary).values())[2:]).all()
    assert np.isnan(metrics.accuracy_curve([], [1.0, 2.0])).all()


@untimed
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, np.pi), st.booleans()), max_size=40))
def test_groups_are_summarised_as_if_alone(objects):
    codes = np.array([code for code, _, _ in objects], dtype=int)
    error = np.array([error for _, error, _ in objects], dtype=float)
    correct = np.array([correct for _, _, correct in objects], dtype=bool)
    names = ["a", "b", "c", "d", "never"]
    expected = [
        metrics.summarise(name, error[codes == code], correct[codes == code])
        for code, name in enumerate(names)
        if (codes == code).any()
    ]
    assert metrics.summarise_by(codes, names, error, correct) == expected


@pytest.mark.parametrize("code", [-1, 2])
def test_codes_without_a_name_are_refused(code):
    with pytest.raises(ValueError, match="codes run from 0 to 1"):
        metrics.summarise_by([0, code], ["a", "b"], [0.1, 0.2])


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.classification_accuracy([1, 2], [1]),
        lambda: metrics.joint_accuracy([0.1, 0.2], [True], 1.0),
        lambda: metrics.summarise_by([0], ["a"], [0.1, 0.2]),
        lambda: metrics.summarise_by([0, 0], ["a"], [0.1, 0.2], [True]),
    ],
)
def test_lengths_that_differ_are_refused(call):
    with pytest.raises(ValueError, match="one entry an object"):
        call()


def test_a_million_objects_take_less_than_two_seconds():
    rng = np.random.default_rng(0)
    size = 10**6
    codes, error, correct = rng.integers(0, 189, size), rng.uniform(0, np.pi, size), rng.random(size) < 0.5
    started = time.process_time()
    summaries = metrics.summarise_by(codes, [str(code) for code in range(189)], error, correct)
    metrics.accuracy_curve(error, np.radians(np.arange(181)))
    metrics.bin_to_angle(metrics.angle_to_bin(error))
    assert time.process_time() - started < 2
    assert sum(summary.objects for summary in summaries) == size
