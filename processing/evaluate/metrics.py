"""The paper's figures over arrays: pose accuracy and error, classification, both together, and the bins.

Everything is a pure function of arrays with one entry an object. Pose errors are angles in radians in [0,
π], as `geometry.rotation_error` gives them. An accuracy is a share in [0, 1]. Of no objects at all every
figure is NaN: there is nothing to be right or wrong about.

Pose accuracy counts the errors strictly below the threshold, as the authors' evaluation does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

COARSE = np.pi / 6
FINE = np.pi / 18

NUM_BINS = 40


@dataclass(frozen=True)
class Summary:
    """The figures of one group of objects; the last three are None where no category was predicted."""

    name: str
    objects: int
    accuracy_pi_6: float  # share of errors below π/6
    accuracy_pi_18: float  # share of errors below π/18
    median_error: float  # degrees
    mean_error: float  # degrees
    classification: float | None = None  # share of right categories
    joint_pi_6: float | None = None  # share of errors below π/6 that have the right category too
    joint_pi_18: float | None = None


def pose_accuracy(error: ArrayLike, threshold: float) -> float:
    """Return the share of pose errors strictly below a threshold.

    Args:
        error: (N,), radians.
        threshold: radians, such as `COARSE` (π/6) or `FINE` (π/18).

    Returns:
        A share in [0, 1]; NaN for no objects.
    """
    return _share(np.asarray(error) < threshold)


def median_error(error: ArrayLike) -> float:
    """Return the median of pose errors (N,) in radians, in degrees; NaN for no objects."""
    error = np.asarray(error, dtype=np.float64)
    return float(np.degrees(np.median(error))) if error.size else float("nan")


def mean_error(error: ArrayLike) -> float:
    """Return the mean of pose errors (N,) in radians, in degrees; NaN for no objects."""
    error = np.asarray(error, dtype=np.float64)
    return float(np.degrees(np.mean(error))) if error.size else float("nan")


def classification_accuracy(predicted: ArrayLike, true: ArrayLike) -> float:
    """Return the share of objects whose predicted category is the true one.

    Args:
        predicted: (N,), category numbers or names.
        true: (N,), of the same kind.

    Returns:
        A share in [0, 1]; NaN for no objects.

    Raises:
        ValueError: the lengths differ.
    """
    return _share(_same_length(predicted, true, "predicted", "true")[0] == np.asarray(true))


def joint_accuracy(error: ArrayLike, correct: ArrayLike, threshold: float) -> float:
    """Return the share of objects with a pose error below a threshold and the right category.

    A wrong class counts as a wrong pose, whatever its error.

    Args:
        error: (N,), radians.
        correct: (N,) of bool, whether the category is right.
        threshold: radians.

    Returns:
        A share in [0, 1], never above `pose_accuracy` or `classification_accuracy`; NaN for no objects.

    Raises:
        ValueError: the lengths differ.
    """
    error, correct = _same_length(error, correct, "error", "correct")
    return _share((error < threshold) & correct.astype(bool))


def accuracy_curve(error: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Return the pose accuracy at every one of many thresholds.

    Args:
        error: (N,), radians.
        thresholds: (T,), radians, in any order.

    Returns:
        (T,) shares, each what `pose_accuracy` gives; NaN for no objects.
    """
    ordered = np.sort(np.asarray(error, dtype=np.float64))
    below = np.searchsorted(ordered, np.asarray(thresholds, dtype=np.float64), side="left")
    return below / ordered.size if ordered.size else np.full(below.shape, np.nan)


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


def summarise(name: str, error: ArrayLike, correct: ArrayLike | None = None) -> Summary:
    """Return the figures of one group of objects.

    Args:
        name: of the group.
        error: (N,), radians.
        correct: (N,) of bool, whether the category is right; None where none was predicted.

    Returns:
        The figures.

    Raises:
        ValueError: the lengths differ.
    """
    pose = Summary(
        name=name,
        objects=np.size(error),
        accuracy_pi_6=pose_accuracy(error, COARSE),
        accuracy_pi_18=pose_accuracy(error, FINE),
        median_error=median_error(error),
        mean_error=mean_error(error),
    )
    if correct is None:
        return pose
    return replace(
        pose,
        classification=_share(correct),
        joint_pi_6=joint_accuracy(error, correct, COARSE),
        joint_pi_18=joint_accuracy(error, correct, FINE),
    )


def summarise_by(
    codes: ArrayLike, names: Sequence[str], error: ArrayLike, correct: ArrayLike | None = None
) -> list[Summary]:
    """Return the figures of every group that has objects, in the order of the names.

    Args:
        codes: (N,), integers that say which of the names an object belongs to.
        names: of the groups.
        error: (N,), radians.
        correct: (N,) of bool, whether the category is right; None where none was predicted.

    Returns:
        One summary a group; a group without objects is left out.

    Raises:
        ValueError: the lengths differ, or a code has no name.
    """
    codes, error = _same_length(codes, error, "codes", "error")
    if correct is not None:
        correct = _same_length(correct, error, "correct", "error")[0]
    if codes.size and (codes.min() < 0 or codes.max() >= len(names)):
        raise ValueError(f"codes run from 0 to {len(names) - 1}; got {codes.min()} to {codes.max()}")
    # One sort makes every group a slice, instead of one pass over all objects for each.
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    members = [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [
        summarise(name, error[group], None if correct is None else correct[group])
        for name, group in zip(names, members, strict=True)
        if group.size
    ]


def _share(hits: ArrayLike) -> float:
    hits = np.asarray(hits)
    return float(np.count_nonzero(hits) / hits.size) if hits.size else float("nan")


def _borders(num_bins: int) -> NDArray[np.float64]:
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}; at least one bin is needed")
    return 2 * np.pi * np.arange(num_bins) / num_bins


def _same_length(
    left: ArrayLike, right: ArrayLike, left_name: str, right_name: str
) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    left, right = np.asarray(left), np.asarray(right)
    if left.shape != right.shape:
        raise ValueError(
            f"{left_name} has the shape {left.shape} and {right_name} {right.shape}; give one entry an object"
        )
    return left, right
