"""The figures against their plain definitions."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.testing import assert_allclose
from support.processor import at_most

from processing import geometry
from processing.evaluate import metrics
from processing.evaluate.metrics import Errors, Spread

# A busy machine may take its time; what is measured here is numbers.
untimed = settings(deadline=None)

errors = arrays.arrays(np.float64, st.integers(1, 50), elements=st.floats(0, np.pi))
viewpoints = arrays.arrays(np.float64, (5, 3), elements=st.floats(-20, 20))
BOTH = {"π/6": metrics.COARSE, "π/18": metrics.FINE}


def errors_of(rotation, correct=None):
    """Errors of rotations alone."""
    rotation = np.asarray(rotation, dtype=np.float64)
    return Errors(
        rotation, np.zeros((len(rotation), 3)), None if correct is None else np.asarray(correct, dtype=bool)
    )


def test_an_error_at_the_threshold_is_not_below_it():
    errors = errors_of([np.pi / 6, np.nextafter(np.pi / 6, 0), 0.0, np.pi], [True] * 4)
    summary = metrics.summarise("all", errors)
    assert summary.accuracy["π/6"] == summary.joint.accuracy["π/6"] == 0.5
    assert metrics.summarise("all", errors, {"π": np.pi}).accuracy == {"π": 0.75}


@untimed
@given(errors, st.randoms(use_true_random=False))
def test_a_wrong_category_counts_as_half_a_turn(error, random):
    correct = np.array([random.random() < 0.5 for _ in error])
    joint = metrics.summarise("all", errors_of(error, correct)).joint
    as_pose = metrics.summarise("all", errors_of(np.where(correct, error, np.pi)))
    assert joint.accuracy == as_pose.accuracy
    assert joint.error == as_pose.error
    assert joint.classification == np.mean(correct)


def test_a_wrong_category_is_not_below_half_a_turn_either():
    joint = metrics.summarise("all", errors_of([0.1, 0.1], [True, False]), {"large": 4.0}).joint
    assert joint.accuracy == {"large": 0.5}


@untimed
@given(errors, arrays.arrays(np.float64, 7, elements=st.floats(-1, 4)))
def test_curve_is_the_accuracy_at_each_threshold(error, thresholds):
    # Thresholds that are errors themselves show which side of the border they are on.
    thresholds = np.concatenate([thresholds, error])
    expected = [np.mean(error < threshold) for threshold in thresholds]
    assert_allclose(metrics.accuracy_curve(error, thresholds), expected)


@untimed
@given(errors, st.floats(0.01, np.pi))
def test_area_is_the_average_accuracy_over_fine_steps(error, limit):
    steps = (np.arange(20_000) + 0.5) / 20_000 * limit
    assert metrics.area_under_curve(error, limit) == pytest.approx(
        metrics.accuracy_curve(error, steps).mean(), abs=1e-3
    )


def test_areas_of_known_errors():
    area = metrics.summarise("all", errors_of(np.radians([0, 5, 15, 100]))).area
    assert area == {"5": 0.25, "10": pytest.approx(0.375), "30": pytest.approx((1 + 25 / 30 + 0.5) / 4)}


# Angles apart


@untimed
@given(viewpoints, viewpoints, st.integers(-2, 2))
def test_angles_apart_do_not_depend_on_how_they_are_written(predicted, true, turns):
    plain = metrics.angle_errors(predicted, true)
    other = predicted + 2 * np.pi * turns
    beyond = np.column_stack([true[:, 0] + np.pi, np.pi - true[:, 1], true[:, 2] + np.pi])
    away = np.abs(np.cos(predicted[:, 1])) > 1e-3  # from the poles, where either way of writing will do
    away &= np.abs(np.cos(true[:, 1])) > 1e-3
    found = metrics.angle_errors(other, beyond)[away]
    # An error of half a turn may come out on either side of it.
    assert_allclose(np.cos(found), np.cos(plain[away]), atol=1e-9)
    assert ((plain >= 0) & (plain <= np.pi)).all()


def test_angles_apart_of_known_turns():
    true = np.array([[6.2, 0.1, 0.2], [1.0, 2 * np.pi - 0.1, 3.0]])
    predicted = true + np.array([[0.3, -0.3, 0.1], [-0.2, 0.3, np.pi]])
    assert_allclose(metrics.angle_errors(predicted, true), [[0.3, 0.3, 0.1], [0.2, 0.3, np.pi]], atol=1e-12)


# Symmetries


def turned_about_its_vertical(viewpoint, turn):
    """Return the rotation of an object that is turned about z before it is seen."""
    cos, sin = np.cos(turn), np.sin(turn)
    about_z = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    return geometry.rotation_from_viewpoint(*viewpoint.T) @ about_z


@untimed
@given(viewpoints, st.integers(1, 8), st.integers(0, 7))
def test_a_turn_by_the_symmetry_is_no_error(viewpoint, fold, steps):
    true = geometry.rotation_from_viewpoint(*viewpoint.T)
    turned = turned_about_its_vertical(viewpoint, 2 * np.pi * steps / fold)
    assert_allclose(metrics.symmetric_error(turned, true, fold), 0, atol=1e-7)
    assert_allclose(metrics.symmetric_error(turned, true, 0), 0, atol=1e-7)


@settings(deadline=None, max_examples=20)
@given(viewpoints, viewpoints)
def test_every_turn_is_the_limit_of_many(predicted, true):
    given_, wanted = (geometry.rotation_from_viewpoint(*pose.T) for pose in (predicted, true))
    every, many = metrics.symmetric_error(given_, wanted, 0), metrics.symmetric_error(given_, wanted, 36)
    assert (every <= many + 1e-7).all()
    assert_allclose(every, many, atol=np.radians(5.01))
    assert_allclose(metrics.symmetric_error(given_, wanted, 1), geometry.rotation_error(given_, wanted))


# Summaries


def test_summary_without_categories_has_pose_figures_only():
    summary = metrics.summarise("all", errors_of(np.radians([5, 20, 40, 50])))
    none = {"median": 0.0, "mean": 0.0}
    assert asdict(summary) == {
        "name": "all",
        "objects": 4,
        "accuracy": {"π/6": 0.5, "π/18": 0.25},
        "error": {"median": pytest.approx(30), "mean": pytest.approx(28.75)},
        "area": {"5": 0, "10": 0.125, "30": pytest.approx(35 / 120)},
        "angles": {"azimuth": none, "elevation": none, "theta": none},
        "joint": None,
    }


def test_summary_of_nothing_is_nan():
    summary = metrics.summarise("none", errors_of(np.zeros(0), np.zeros(0)))
    assert summary.objects == 0
    figures = [summary.error.median, summary.area["5"], summary.accuracy["π/6"], summary.joint.classification]
    assert np.isnan([*figures, summary.joint.error.mean, summary.angles["theta"].mean]).all()
    assert np.isnan(metrics.accuracy_curve([], [1.0, 2.0])).all()


@untimed
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, np.pi), st.booleans()), max_size=40))
def test_groups_are_summarised_as_if_alone(objects):
    codes = np.array([code for code, _, _ in objects], dtype=int)
    errors = errors_of([error for _, error, _ in objects], [correct for _, _, correct in objects])
    names = ["a", "b", "c", "d", "never"]
    expected = [
        metrics.summarise(name, errors.of(codes == code))
        for code, name in enumerate(names)
        if (codes == code).any()
    ]
    assert metrics.summarise_by(codes, names, errors) == expected


def test_in_the_average_a_small_group_counts_as_much_as_a_large_one():
    errors = errors_of(np.radians([5, 5, 5, 20]), [True, True, False, True])
    groups = metrics.summarise_by([0, 0, 0, 1], ["a", "b"], errors, BOTH)
    average = metrics.average("both", groups)
    assert (average.name, average.objects) == ("both", 4)
    assert average.accuracy == {"π/6": 1, "π/18": 0.5}
    assert average.error == Spread(pytest.approx(12.5), pytest.approx(12.5))
    assert average.joint.classification == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize("code", [-1, 2])
def test_codes_without_a_name_are_refused(code):
    with pytest.raises(ValueError, match="codes run from 0 to 1"):
        metrics.summarise_by([0, code], ["a", "b"], errors_of([0.1, 0.2]))


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="one entry an object"):
        metrics.summarise_by([0], ["a"], errors_of([0.1, 0.2]))


def test_a_million_objects_take_less_than_two_seconds():
    rng = np.random.default_rng(0)
    size = 10**6
    codes = rng.integers(0, 189, size)
    errors = Errors(rng.uniform(0, np.pi, size), rng.uniform(0, np.pi, (size, 3)), rng.random(size) < 0.5)
    with at_most(seconds=2):
        summaries = metrics.summarise_by(codes, [str(code) for code in range(189)], errors)
        metrics.accuracy_curve(errors.rotation, np.radians(np.arange(181)))
    assert sum(summary.objects for summary in summaries) == size
