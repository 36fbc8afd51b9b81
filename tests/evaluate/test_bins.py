"""The baselines' bins, there and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.evaluate import bins

untimed = settings(deadline=None)  # a busy machine may take its time

angles = st.floats(-20, 20)
bin_counts = st.integers(1, 400)


@pytest.mark.parametrize("num_bins", [1, 7, 40, 360])
def test_bins_come_back_from_their_middles(num_bins):
    every = np.arange(num_bins)
    assert (bins.angle_to_bin(bins.bin_to_angle(every, num_bins), num_bins) == every).all()


@untimed
@given(angles, bin_counts)
def test_an_angle_is_at_most_half_a_bin_from_the_middle_of_its_bin(angle, num_bins):
    middle = bins.bin_to_angle(bins.angle_to_bin(angle, num_bins), num_bins)
    assert np.abs(np.angle(np.exp(1j * (middle - angle)))) <= np.pi / num_bins + 1e-12


@pytest.mark.parametrize("num_bins", [1, 7, 40, 360])
def test_a_border_belongs_to_the_bin_above(num_bins):
    borders = 2 * np.pi * np.arange(num_bins) / num_bins
    assert (bins.angle_to_bin(borders, num_bins) == np.arange(num_bins)).all()
    below = bins.angle_to_bin(np.nextafter(borders[1:], 0), num_bins)
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
    assert bins.angle_to_bin(angle) == index


def test_bins_keep_the_shape():
    assert bins.angle_to_bin(np.zeros((2, 3))).shape == (2, 3)
    assert bins.bin_to_angle(np.zeros((2, 3), dtype=int)).shape == (2, 3)


@pytest.mark.parametrize("angle", [np.nan, np.inf])
def test_an_angle_that_is_not_finite_has_no_bin(angle):
    with pytest.raises(ValueError, match="NaN or infinite"):
        bins.angle_to_bin([0.0, angle])


@pytest.mark.parametrize("index", [-1, 40])
def test_bins_outside_the_range_are_refused(index):
    with pytest.raises(ValueError, match="bins run from 0 to 39"):
        bins.bin_to_angle([0, index])


def test_no_bins_are_refused():
    with pytest.raises(ValueError, match="num_bins is 0"):
        bins.angle_to_bin(0.0, 0)
