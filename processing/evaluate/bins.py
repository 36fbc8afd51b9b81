"""Angles as classes: the periodic bins that ImageNet3D's baselines predict (Ma et al., NeurIPS 2024)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

NUM_BINS = 40


def angle_to_bin(angle: ArrayLike, num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """Return the bin of an angle: the class that the baselines predict, for all three angles alike.

    The circle is cut into equal bins from 0 on. An angle on a border belongs to the bin above it: bin k
    holds 2πk/num_bins <= angle < 2π(k + 1)/num_bins, the borders being those float64 numbers. Angles are
    periodic: 2π is in bin 0 again, and an elevation of -0.1 in the last bin.

    Args:
        angle: (...), radians, any range.
        num_bins: how many bins go round the circle.

    Returns:
        (...) in [0, num_bins).

    Raises:
        ValueError: there is no bin, or an angle is not finite.
    """
    borders = _borders(num_bins)
    angle = np.asarray(angle, dtype=np.float64)
    if not np.isfinite(angle).all():
        raise ValueError("an angle is NaN or infinite; leave out the objects without a pose")
    # Of an angle a hair below 0 np.mod makes 2π itself, which has no border above it: the last bin, as it
    # should be.
    return np.searchsorted(borders, np.mod(angle, 2 * np.pi), side="right") - 1


def bin_to_angle(index: ArrayLike, num_bins: int = NUM_BINS) -> NDArray[np.float64]:
    """Return the middle of a bin, at most half a bin (4.5 degrees of 40 bins) from every angle in it.

    Args:
        index: (...), integers in [0, num_bins).
        num_bins: how many bins go round the circle.

    Returns:
        (...), radians in [0, 2π); `angle_to_bin` of it is the index again.

    Raises:
        ValueError: there is no bin, or an index is outside the range.
    """
    borders = _borders(num_bins)
    index = np.asarray(index)
    if index.size and (index.min() < 0 or index.max() >= num_bins):
        raise ValueError(f"bins run from 0 to {num_bins - 1}; got {index.min()} to {index.max()}")
    return borders[index] + np.pi / num_bins


def _borders(num_bins: int) -> NDArray[np.float64]:
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; at least one bin is needed")
    return 2 * np.pi * np.arange(num_bins) / num_bins
