"""A report as the Hub's leaderboards read it: the file of `.eval_results/` in a model's repository.

The format is that of the Hub's page "Evaluation Results" (https://huggingface.co/docs/hub/eval-results),
written with huggingface_hub's own classes. An entry has one value and names a task; the tasks are those of
the dataset's `eval.yaml`, and the values shares in [0, 1], of which the higher is the better. What the format
has no field for stands in the notes: config, split, population with its number and checksum, and the metric.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from urllib.parse import unquote

import yaml

import ImageNet3D
from ImageNet3D import shown
from processing.evaluate.choices import ChoiceError
from processing.evaluate.report import MARK, Report
from processing.runtime.output import write_output

YAML_MARK = f"# Written by {MARK}.".encode()

# Config -> the middle of a task's name; the figures of each are in `_figures`.
TASKS = {"pose": "pose", "object_centric": "pose", "open_vocab_unknown": "open_vocab_pose"}

_REVISION = re.compile(r"[0-9a-fA-F]{40}")
_ON_THE_HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/|$)")
_SNAPSHOT = re.compile(r"datasets--([^/\\]+)--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})")


@dataclass(frozen=True)
class Submission:
    """What an entry says besides the figures.

    Attributes:
        repository: of the dataset on the Hub.
        revision: the commit of the dataset that was evaluated on, 40 hexadecimal digits.
        source: a link to the paper, the code or the logs; None for none.
    """

    repository: str
    revision: str
    source: str | None


def submission(
    dataset: str | PathLike[str], repository: str | None, revision: str | None, source: str | None
) -> Submission:
    """What an entry says, told by the dataset's path where it is a download from the Hub.

    Args:
        dataset: as given to `evaluate`. hf://datasets/… is asked for its commit; a snapshot in the Hub's
            cache has it in its path.
        repository: None for the one that the path tells, or else the default one.
        revision: None for the one that the path tells.
        source: a link, or None.

    Raises:
        ChoiceError: the commit is not known or not one, or the source is no link.
    """
    named_repository, named_revision = _named_by(fspath(dataset))
    revision = revision or named_revision
    if not revision or not _REVISION.fullmatch(revision):
        raise ChoiceError(
            f"--eval-results names the dataset's commit, and {shown(revision or 'none')} is not 40 "
            "hexadecimal digits; give --revision with that of the dataset on the Hub (History, on its page)"
        )
    if source is not None and not re.fullmatch(r"https?://\S+", source):
        raise ChoiceError(f"--source {shown(source)} is no link; give one that begins with https://")
    return Submission(repository or named_repository or ImageNet3D.REPOSITORY, revision.lower(), source)


def check_fits(config: str, split: str, population: str, thresholds: tuple[str, ...]) -> None:
    """Refuse what the leaderboards have no task for, before the work.

    Raises:
        ChoiceError: as that.
        ImportError: the installed huggingface_hub does not know the format.
    """
    if config not in TASKS or split != "validation" or population != "benchmark" or thresholds:
        raise ChoiceError(
            f"--eval-results is for {' or '.join(TASKS)}, validation, the population benchmark and the "
            "default thresholds: those are the tasks of the dataset's eval.yaml"
        )
    _entry_class()


def write_entries(report: Report, about: Submission, path: str | Path) -> None:
    """Write the file of `.eval_results/`.

    Raises:
        ImportError: the installed huggingface_hub does not know the format.
        OutputError, OSError: as of `processing.runtime.output.write_output`.
    """
    entry_class, to_yaml = _entry_class()
    entries = [
        entry_class(
            dataset_id=about.repository,
            task_id=task,
            value=round(value, 6),
            dataset_revision=about.revision,
            date=report.day.isoformat(),
            source_url=about.source,
            notes=f"{metric}; {_population(report)}",
        )
        for task, value, metric in _figures(report)
    ]
    text = yaml.safe_dump(to_yaml(entries), sort_keys=False, allow_unicode=True, width=1000)
    write_output(path, YAML_MARK + b"\n" + text.encode(), YAML_MARK)


def _figures(report: Report) -> Iterator[tuple[str, float, str]]:
    """The tasks of a report's config, their values and what these are."""
    kind = TASKS[report.population.config]
    for label, short in (("π/6", "pi_6"), ("π/18", "pi_18")):
        accuracy = f"share of objects with a rotation error below {label}"
        yield f"{kind}_{short}", report.overall.accuracy[label], accuracy
        if report.overall.joint and kind == "pose":
            yield (
                f"{kind}_and_class_{short}",
                report.overall.joint.accuracy[label],
                f"{accuracy} and the right category",
            )


def _population(report: Report) -> str:
    population = report.population
    return (
        f"config {population.config}, split {population.split}, population {population.name} "
        f"({population.rule}): {population.objects} objects, keys sha256 {population.keys_sha256}"
        + (f"; {population.note}" if population.note else "")
    )


def _named_by(dataset: str) -> tuple[str | None, str | None]:
    """Return repository and commit that a path tells."""
    real = "" if "://" in dataset else os.path.realpath(dataset)  # from inside it, or through a link to it
    if found := _SNAPSHOT.search(dataset) or _SNAPSHOT.search(real):
        return f"{found[1]}/{found[2]}", found[3]
    if found := _ON_THE_HUB.match(dataset):
        from huggingface_hub import HfApi

        return found[1], HfApi().dataset_info(found[1], revision=unquote(found[2] or "main")).sha
    return None, None


def _entry_class():
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError as error:
        raise ImportError(
            "--eval-results needs a newer huggingface_hub, one that has EvalResultEntry: "
            "pip install -U huggingface_hub"
        ) from error
    return EvalResultEntry, eval_result_entries_to_yaml
