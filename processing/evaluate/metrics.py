"""The figures over arrays: pose accuracy and error, classification, both together.

Everything is a pure function of arrays with one entry an object. Pose errors are angles in radians in [0,
π], as `geometry.rotation_error` gives them; figures that are angles are in degrees. An accuracy is a share in
[0, 1]. Of no objects at all every figure is NaN: there is nothing to be right or wrong about.

An accuracy counts the errors strictly below its threshold, as the authors' evaluation does, whose error is
‖log(R1ᵀ · R2)‖ / √2 with the matrix logarithm. That is the same angle; for rotations exactly half a turn
apart the logarithm is not unique and theirs comes out as 0 or as 3.2 to 3.4, where it is π here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from processing import geometry

COARSE = np.pi / 6
FINE = np.pi / 18

# Label -> radians.
THRESHOLDS: Mapping[str, float] = {"π/6": COARSE, "π/18": FINE}

# Degrees up to which there is an area under the curve of accuracy.
AREAS = (5, 10, 30)

ANGLES = ("azimuth", "elevation", "theta")


@dataclass(frozen=True)
class Errors:
    """How far each object's prediction is off."""

    rotation: NDArray[np.float64]  # (N,), radians in [0, π]
    angles: NDArray[np.float64]  # (N, 3) of azimuth, elevation and theta, radians in [0, π]
    correct: NDArray[np.bool_] | None  # (N,), whether the category is right; None where none was predicted

    def of(self, rows: NDArray[Any]) -> Errors:
        """The errors of some objects, chosen by index or by mask."""
        correct = None if self.correct is None else self.correct[rows]
        return Errors(self.rotation[rows], self.angles[rows], correct)


@dataclass(frozen=True)
class Spread:
    """The middle of some errors."""

    median: float  # degrees
    mean: float  # degrees

    @classmethod
    def of(cls, error: NDArray[np.float64]) -> Spread:
        """Of errors (N,) in radians."""
        if not error.size:
            return cls(float("nan"), float("nan"))
        return cls(float(np.degrees(np.median(error))), float(np.degrees(np.mean(error))))


@dataclass(frozen=True)
class Joint:
    """Pose and category together: a wrong category counts as an error of π, as in the authors' evaluation."""

    classification: float  # share of right categories
    accuracy: Mapping[str, float]  # as of Summary, and the category is right too
    error: Spread


@dataclass(frozen=True)
class Summary:
    """The figures of one group of objects."""

    name: str
    objects: int
    accuracy: Mapping[str, float]  # label of a threshold -> share of rotation errors below it
    error: Spread  # of the rotation
    area: Mapping[str, float]  # degrees -> area under the curve of accuracy up to there, 1 for no errors
    angles: Mapping[str, Spread]  # azimuth, elevation and theta apart
    joint: Joint | None = None  # None where no category was predicted


def summarise(name: str, errors: Errors, thresholds: Mapping[str, float] = THRESHOLDS) -> Summary:
    """Return the figures of one group of objects.

    Args:
        name: of the group.
        errors: of its objects.
        thresholds: label -> radians.
    """
    rotation = errors.rotation
    summary = Summary(
        name=name,
        objects=len(rotation),
        accuracy={label: _share(rotation < limit) for label, limit in thresholds.items()},
        error=Spread.of(rotation),
        area={str(limit): area_under_curve(rotation, np.radians(limit)) for limit in AREAS},
        angles={angle: Spread.of(errors.angles[:, i]) for i, angle in enumerate(ANGLES)},
    )
    if errors.correct is None:
        return summary
    both = np.where(errors.correct, rotation, np.pi)
    accuracy = {label: _share((both < limit) & errors.correct) for label, limit in thresholds.items()}
    return replace(summary, joint=Joint(_share(errors.correct), accuracy, Spread.of(both)))


def summarise_by(
    codes: ArrayLike,
    names: Sequence[str],
    errors: Errors,
    thresholds: Mapping[str, float] = THRESHOLDS,
) -> list[Summary]:
    """Return the figures of every group that has objects, in the order of the names.

    Args:
        codes: (N,), integers that say which of the names an object belongs to.
        names: of the groups.
        errors: of all objects.
        thresholds: label -> radians.

    Returns:
        One summary a group; a group without objects is left out.

    Raises:
        ValueError: the lengths differ, or a code has no name.
    """
    codes = np.asarray(codes)
    if codes.shape != errors.rotation.shape:
        raise ValueError(
            f"codes have the shape {codes.shape} and errors {errors.rotation.shape}; give one entry an object"
        )
    if codes.size and (codes.min() < 0 or codes.max() >= len(names)):
        raise ValueError(f"codes run from 0 to {len(names) - 1}; got {codes.min()} to {codes.max()}")
    # One sort makes every group a slice, instead of one pass over all objects for each.
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))
    members = [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [
        summarise(name, errors.of(group), thresholds)
        for name, group in zip(names, members, strict=True)
        if group.size
    ]


def average(name: str, summaries: Sequence[Summary]) -> Summary:
    """Return the average of groups, in which a large group counts as much as a small one.

    Args:
        name: of the average.
        summaries: at least one, all of the same thresholds.

    Returns:
        Every figure averaged, medians too; the objects are those of all groups.
    """
    objects = sum(summary.objects for summary in summaries)
    return replace(_average(list(summaries)), name=name, objects=objects)


def _average(figures: Sequence[Any]) -> Any:
    """The average of figures, number by number through what holds them."""
    first = figures[0]
    if isinstance(first, Mapping):
        return {key: _average([figure[key] for figure in figures]) for key in first}
    if isinstance(first, Summary | Joint | Spread):
        parts = {part.name: _average([getattr(f, part.name) for f in figures]) for part in fields(first)}
        return type(first)(**parts)
    return first if first is None or isinstance(first, str) else float(np.mean(figures))


def area_under_curve(error: ArrayLike, limit: float) -> float:
    """Return the area under the curve of accuracy against threshold, from 0 to a limit.

    The exact integral, not a sum over steps: an error e is below the thresholds in (e, limit].

    Args:
        error: (N,), radians.
        limit: radians.

    Returns:
        In [0, 1], as a share of what perfect predictions have; NaN for no objects.
    """
    error = np.asarray(error, dtype=np.float64)
    return float(np.mean(np.maximum(limit - error, 0)) / limit) if error.size else float("nan")


def accuracy_curve(error: ArrayLike, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Return the pose accuracy at every one of many thresholds.

    Args:
        error: (N,), radians.
        thresholds: (T,), radians, in any order.

    Returns:
        (T,) shares of errors strictly below each; NaN for no objects.
    """
    ordered = np.sort(np.asarray(error, dtype=np.float64))
    below = np.searchsorted(ordered, np.asarray(thresholds, dtype=np.float64), side="left")
    return below / ordered.size if ordered.size else np.full(below.shape, np.nan)


def angle_errors(predicted: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """Return how far azimuth, elevation and theta are off, each by itself.

    Both viewpoints are first written with an elevation in [-π/2, π/2]: (a, e, t) is the same as
    (a + π, π - e, t + π). Close to the poles azimuth and theta mean little: there they turn about one
    axis.

    Args:
        predicted: (N, 3) azimuth, elevation and theta, radians of any range.
        true: (N, 3).

    Returns:
        (N, 3), radians in [0, π].
    """
    return np.abs(_half_turn(_upright(predicted) - _upright(true)))


def _upright(viewpoint: ArrayLike) -> NDArray[np.float64]:
    """Return the same viewpoints (N, 3) with elevations in [-π/2, π/2]."""
    viewpoint = np.array(viewpoint, dtype=np.float64)
    elevation = viewpoint[:, 1] = _half_turn(viewpoint[:, 1])
    over = np.abs(elevation) > np.pi / 2
    viewpoint[over] = np.pi + viewpoint[over] * [1, -1, 1]
    return viewpoint


def symmetric_error(predicted: ArrayLike, true: ArrayLike, fold: int) -> NDArray[np.float64]:
    """Return the rotation error of objects that look the same after a turn about their vertical, z.

    Args:
        predicted: (N, 3, 3) object-to-camera rotations.
        true: (N, 3, 3).
        fold: how many turns of 2π/fold bring the object back to itself; 0 for every turn, where what is left
            is the angle between the two verticals.

    Returns:
        (N,), radians in [0, π]: the smallest error to any of the poses that look like the true one.
    """
    predicted, true = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if not fold:
        up, wanted = predicted[..., 2], true[..., 2]
        sine = np.linalg.norm(np.cross(up, wanted), axis=-1)
        return np.arctan2(sine, (up * wanted).sum(axis=-1))
    least = geometry.rotation_error(predicted, true)
    for turn in 2 * np.pi * np.arange(1, fold) / fold:
        about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        least = np.minimum(least, geometry.rotation_error(predicted, true @ about_z))
    return least


def _half_turn(angle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring angles into [-π, π)."""
    return np.mod(angle + np.pi, 2 * np.pi) - np.pi


def _share(hits: NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(hits) / hits.size) if hits.size else float("nan")
