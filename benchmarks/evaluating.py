"""Evaluating: `evaluate` on a million predictions in each format, against a loop over objects.

    python -m benchmarks.evaluating [--quick]

The loop does what evaluation scripts do: one rotation matrix after the other, with numpy. It has its numbers
in memory; `evaluate` also reads and checks the file, matches keys, and counts by category, status and kind.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.measuring import Setting, Table, Usage, alternate, apart, command, median, ratio
from ImageNet3D import ANGLES, CATEGORIES, OBJECT_STATUS
from processing.evaluate.command import evaluate

OBJECTS = 10**6
LOOPED = 10**4  # objects that the loop is timed on

FORMATS = ("parquet", "csv", "jsonl")


def tables(setting: Setting) -> list[Table]:
    """Time and memory by format."""
    objects = OBJECTS // 100 if setting.quick else OBJECTS
    truth, angles = _write(setting.scratch, objects)
    looped = min(LOOPED, objects)
    ways = {
        kind: partial(apart, _evaluated, str(setting.scratch / f"predictions.{kind}"), str(truth))
        for kind in FORMATS
    }
    ways["loop"] = partial(apart, _loop, angles[:looped])
    found: dict[str, list[Usage]] = alternate(ways, setting)
    scale = {"loop": objects / looped}
    seconds = {name: [u.seconds * scale.get(name, 1) for u in usages] for name, usages in found.items()}
    table = Table(
        "evaluating",
        f"Evaluating {objects:,} predictions (the loop: {looped:,}, scaled)",
        ("way", "s", "s of processor time", "peak memory, MB", "speed, over the loop"),
    )
    for name, usages in found.items():
        cpu = median([u.cpu * scale.get(name, 1) for u in usages])
        peak = max(u.peak for u in usages) // 10**6
        faster = ratio(seconds["loop"], seconds[name])
        table.rows.append((name, median(seconds[name]), cpu, peak, faster))
    return [table]


def _write(folder: Path, objects: int) -> tuple[Path, np.ndarray]:
    """Write a truth and predictions a little off it; the folder of the truth, and (objects, 2, 3) angles."""
    rng = np.random.default_rng(0)
    category = np.sort(rng.integers(0, len(CATEGORIES), objects))
    names = pa.array(CATEGORIES).take(pa.array(category))
    numbers = pa.array(np.arange(objects) // 2).cast(pa.string())
    key = {
        "image_id": pc.binary_join_element_wise(names, numbers, "/"),
        "object_index": np.arange(objects) % 2,
    }
    true = rng.uniform(0, 2 * np.pi, (objects, 3))
    predicted = true + rng.normal(0, 0.2, true.shape)
    told = {"category": category, "known": category < 63}
    told["object_status"] = rng.integers(0, len(OBJECT_STATUS), objects)
    truth = folder / "built"
    (truth / "pose").mkdir(parents=True)
    shard = truth / "pose" / "validation-00000-of-00001-known.parquet"
    pq.write_table(pa.table({**key, **dict(zip(ANGLES, true.T, strict=True)), **told}), shard)
    table = pa.table({**key, **dict(zip(ANGLES, predicted.T, strict=True)), "category": names})
    table = table.take(pa.array(rng.permutation(objects)))
    pq.write_table(table, folder / "predictions.parquet")
    pyarrow.csv.write_csv(table, folder / "predictions.csv")
    table.to_pandas().to_json(folder / "predictions.jsonl", orient="records", lines=True)
    return truth, np.stack([true, predicted], axis=1)


def _evaluated(predictions: str, truth: str) -> int:
    return evaluate(predictions, truth, population="all").overall.objects


def _loop(angles: np.ndarray) -> float:
    """Accuracy at pi / 6, as a loop finds it."""
    errors = []
    for true, predicted in angles:
        trace = np.trace(_rotation(*predicted).T @ _rotation(*true))
        errors.append(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    return float(np.mean(np.array(errors) < np.pi / 6))


def _rotation(azimuth: float, elevation: float, theta: float) -> np.ndarray:
    return _around_z(theta) @ _around_x(elevation - np.pi / 2) @ _around_z(-azimuth)


def _around_z(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def _around_x(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


if __name__ == "__main__":
    command(__doc__, {"evaluating": tables})
