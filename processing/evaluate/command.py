"""Predictions against the truth of a built folder: what is read, compared and reported.

What a file of predictions holds is in `predictions`, which objects count in `truth`, what a figure means
in `metrics`. Every object of the population needs exactly one prediction: a missing, doubled or foreign key
is an error that names it, for an average over whatever happens to be there compares with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

import ImageNet3D
from processing import geometry
from processing.evaluate import metrics
from processing.evaluate.choices import Choice, parse_thresholds, read_groups, read_symmetries
from processing.evaluate.metrics import Errors, Summary
from processing.evaluate.predictions import ForeignError, Predictions, in_chunks, read_predictions
from processing.evaluate.report import AVERAGE, CURVE, Report, Symmetric
from processing.evaluate.truth import DatasetError, Truth, read_keys, read_truth


def evaluate(
    predictions: str | PathLike[str],
    dataset: str | PathLike[str],
    config: str = "pose",
    split: str = "validation",
    population: str = "benchmark",
    groups: Choice = None,
    symmetries: Choice = None,
    thresholds: Iterable[str] = (),
    degrees: bool | None = None,
) -> Report:
    """Compare predictions with the truth of a built folder.

    Args:
        predictions: a file as `predictions` describes; a path or any fsspec URL.
        dataset: the folder that `build` wrote; a path or any fsspec URL, as hf://datasets/ccvl/ImageNet3D.
        config: pose, open_vocab_known, open_vocab_unknown or object_centric.
        split: train or validation; open_vocab_unknown has validation only.
        population: benchmark or all, as `truth` describes.
        groups: names of groups and the categories in each, or the path of a JSON file with that. A category
            may be in several groups, or in none.
        symmetries: categories with how many turns about their vertical bring them back to themselves, 0 for
            every turn; or the path of a JSON file with that. Their figures stand beside the plain ones.
        thresholds: of the rotation error, such as "pi/6", or degrees; π/6 and π/18 if there are none.
        degrees: whether the angles are degrees; None for radians, unless they look like degrees.

    Returns:
        The figures overall, for known and unknown categories, per status, per category and per group.

    Raises:
        PredictionError: keys are missing, doubled or foreign; values are missing, not finite, not a rotation
            or not a category; columns are missing. The message names the first few keys and counts all.
        DatasetError: a shard is damaged, or holds what no build writes.
        FileNotFoundError: a file or the config's shards are not there.
        ChoiceError: the config, the split, the population, a threshold, the file's ending or a category of a
            group or symmetry is none that exists, or a file of them is of another form; or no object is of
            the population.
    """
    limits = parse_thresholds(thresholds) or dict(metrics.THRESHOLDS)
    truth = read_truth(dataset, config, split, population)
    grouped = read_groups(groups, truth.categories)
    folds = read_symmetries(symmetries, truth.categories)
    try:
        predicted, aside = read_predictions(predictions, degrees, truth.categories).of(truth)
    except ForeignError as error:
        hint = _where_they_are(error.keys, dataset, config, split)
        raise ForeignError(hint + str(error), error.keys) from error
    errors = _errors(predicted, truth)
    by = _breakdown(truth, errors, grouped, limits)
    return Report(
        population=truth.population,
        aside=aside,
        thresholds=limits,
        overall=metrics.summarise("all", errors, limits),
        average=metrics.average(AVERAGE, by["category"]),
        by=by,
        curves=_curves(truth, errors),
        symmetric=_symmetric(predicted, truth, errors, folds, limits) if folds else None,
    )


def _where_they_are(keys: pa.Array, dataset: str | PathLike[str], config: str, split: str) -> str:
    """Return a hint for predictions that are of another split, or of objects that the config leaves out."""
    for other in ImageNet3D.SPLITS:
        if (config, split) == ("pose", other):
            continue  # they are what was read
        try:
            there = read_keys(dataset, "pose", other)
        except (DatasetError, OSError):  # the hint's own trouble is not what was asked about
            continue
        found = pc.sum(pc.is_in(keys, value_set=there)).as_py() or 0
        if 2 * found > len(keys):
            remedy = f"--split {other}" if other != split else "--config pose"
            return f"{found:,} of these predictions are of {other} in pose: give {remedy}? "
    return ""


def _errors(predicted: Predictions, truth: Truth) -> Errors:
    def both(rows: slice) -> NDArray[np.float64]:
        given, true = predicted.rotations(rows), geometry.rotation_from_viewpoint(*truth.angles[rows].T)
        rotation = geometry.rotation_error(given, true)
        return np.column_stack(
            [rotation, metrics.angle_errors(predicted.viewpoints(rows), truth.angles[rows])]
        )

    found = in_chunks(len(truth.keys), both)
    correct = None if predicted.category is None else predicted.category == truth.category
    return Errors(found[:, 0], found[:, 1:], correct)


def _symmetric(
    predicted: Predictions,
    truth: Truth,
    errors: Errors,
    folds: Mapping[str, int],
    thresholds: Mapping[str, float],
) -> Symmetric:
    least = errors.rotation.copy()
    for category, fold in folds.items():
        rows = np.flatnonzero(truth.category == truth.categories.index(category))
        if rows.size:
            true = geometry.rotation_from_viewpoint(*truth.angles[rows].T)
            least[rows] = metrics.symmetric_error(predicted.rotations(rows), true, fold)
    # No turn about the vertical is the right one for each angle by itself.
    fewer = Errors(least, np.full_like(errors.angles, np.nan), errors.correct)
    every = metrics.summarise_by(truth.category, truth.categories, fewer, thresholds)
    listed = [summary for summary in every if summary.name in folds]
    overall = metrics.summarise("all", fewer, thresholds)
    return Symmetric(folds, overall, metrics.average(AVERAGE, every), listed)


def _breakdown(
    truth: Truth, errors: Errors, groups: Mapping[str, Sequence[str]], thresholds: Mapping[str, float]
) -> dict[str, list[Summary]]:
    def by(codes: NDArray[np.int64], names: Sequence[str]) -> list[Summary]:
        return metrics.summarise_by(codes, names, errors, thresholds)

    found = {
        "known": by(np.where(truth.known, 0, 1), ["known", "unknown"]),
        "status": by(truth.status, [*ImageNet3D.OBJECT_STATUS, "none"]),
    }
    # Not by codes as the others: groups may share categories.
    for name, members in groups.items():
        inside = np.isin(truth.category, [truth.categories.index(member) for member in members])
        found.setdefault("group", []).append(metrics.summarise(name, errors.of(inside), thresholds))
    return found | {"category": by(truth.category, truth.categories)}


def _curves(truth: Truth, errors: Errors) -> dict[str, list[float]]:
    parts = {"all": np.ones(len(truth.known), dtype=bool)}
    if truth.known.any() and not truth.known.all():
        parts |= {"known": truth.known, "unknown": ~truth.known}
    return {
        name: metrics.accuracy_curve(errors.rotation[part], np.radians(CURVE)).tolist()
        for name, part in parts.items()
    }
