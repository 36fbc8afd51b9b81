"""The report: the figures of one file of predictions as tables, JSON and a plot."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import SEPARATING_LINE, tabulate

import ImageNet3D
from processing.card.plots import load_matplotlib
from processing.evaluate.choices import ChoiceError
from processing.evaluate.metrics import ANGLES, AREAS, Spread, Summary
from processing.evaluate.truth import Population
from processing.runtime.output import write_output

# What JSON and plots hold, by which the next run knows them for its own.
MARK = "imagenet3d evaluate"

PLOT_ENDINGS = (".png", ".svg", ".pdf")

# Degrees, of the plot and of the curves in the JSON.
CURVE = np.arange(181)

AVERAGE = "average of categories"


@dataclass(frozen=True)
class Symmetric:
    """The figures of the rotation where objects may look the same after a turn about their vertical.

    There are none of azimuth, elevation and theta apart: they are NaN.
    """

    folds: Mapping[str, int]  # category -> turns that bring it back to itself, 0 for every turn
    overall: Summary  # of all objects
    average: Summary  # of all categories
    by_category: Sequence[Summary]  # of the categories that have a symmetry


@dataclass(frozen=True)
class Report:
    """The figures of one file of predictions on one population."""

    population: Population
    aside: int  # predictions of other objects of the split, which count for nothing
    thresholds: Mapping[str, float]  # label -> radians
    overall: Summary
    average: Summary  # over categories, each counting the same
    by: Mapping[str, Sequence[Summary]]  # known, status, category and, if groups were given, group
    curves: Mapping[str, Sequence[float]]  # accuracy below 0, 1, ... 180 degrees: all, known, unknown
    symmetric: Symmetric | None  # beside the plain figures, if symmetries were given
    day: date = field(default_factory=lambda: datetime.now(UTC).date())  # of the evaluation

    def __str__(self) -> str:
        """Return the tables."""
        return self.table()

    def table(self, encoding: str = "utf-8") -> str:
        """Return the population and tables of shares in percent and errors in degrees.

        Args:
            encoding: of where it is printed. One that cannot say π or ° gets "pi" and "deg", and escapes for
                what it cannot say of the groups' names.
        """
        tables = [(self._main_headers(), self._main_rows()), (_detail_headers(), self._detail_rows())]
        if not _can_say(encoding, "π°"):
            tables = [
                ([header.replace("π", "pi").replace("°", "deg") for header in headers], rows)
                for headers, rows in tables
            ]
        text = "\n\n".join([self._head(), *(_tabulated(headers, rows) for headers, rows in tables)])
        return text.encode(encoding, "backslashreplace").decode(encoding)

    def to_json(self) -> str:
        """Return everything as JSON: shares in [0, 1], errors in degrees, null for what does not exist."""
        head = {"generator": MARK, "version": ImageNet3D.__version__, "date": self.day.isoformat()}
        content = {**head, **{name: value for name, value in asdict(self).items() if name != "day"}}
        return json.dumps(_without_nan(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write_json(self, path: str | Path) -> None:
        """Write the JSON.

        Raises:
            OutputError, OSError: as of `processing.runtime.output.write_output`.
        """
        write_output(path, self.to_json().encode(), json_mark())

    def plot(self, path: str | Path) -> None:
        """Write a plot of pose accuracy against the threshold.

        Args:
            path: its ending gives the format: .png, .svg or .pdf.

        Raises:
            ChoiceError: the ending is another.
            ImportError: matplotlib is not installed.
            OutputError, OSError: as of `processing.runtime.output.write_output`.
        """
        check_plot(path)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        # A figure of its own, not pyplot's: no display, no state shared with the caller's plots.
        figure = Figure(figsize=(6, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot(
            xlabel="rotation error below (degrees)",
            ylabel="share of objects",
            xlim=(0, 180),
            ylim=(0, 1),
            title=f"{self.population.config}, {self.population.split}, {self.population.name}",
        )
        for name, accuracy in self.curves.items():
            axes.plot(CURVE, accuracy, label=name)
        for label, threshold in self.thresholds.items():
            axes.axvline(math.degrees(threshold), color="grey", linestyle=":")
            axes.annotate(label, (math.degrees(threshold), 1.01), ha="center", annotation_clip=False)
        axes.legend(loc="lower right")
        kind = Path(path).suffix.lower()[1:]
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, metadata={"Software" if kind == "png" else "Creator": MARK})
        write_output(path, drawn.getvalue(), MARK.encode())

    def _head(self) -> str:
        population = self.population
        lines = [
            ("population", f"{population.name}: {population.rule}"),
            ("read from", f"{', '.join(population.read_from)}, {population.split}"),
            ("objects", f"{population.objects:,}, SHA-256 of the keys {population.keys_sha256}"),
        ]
        if population.note:
            lines.append(("but", population.note))
        if self.aside:
            lines.append(("not counted", f"of objects outside the population {self.aside:,} predicted"))
        return tabulate(lines, tablefmt="plain")

    def _main_headers(self) -> list[str]:
        shares = [f"{label} %" for label in self.thresholds]
        headers = ["by", "name", "objects", *shares, "median °", "mean °"]
        if self.overall.joint is None:
            return headers
        joint = [*(f"joint {share}" for share in shares), "joint median °", "joint mean °"]
        return [*headers, "class %", *joint]

    def _main_rows(self) -> list[Any]:
        rows: list[Any] = [_main_row("all", self.overall), _main_row("all", self.average)]
        for by, summaries in self._parts():
            rows += [SEPARATING_LINE, *(_main_row(by, summary) for summary in summaries)]
        return rows

    def _detail_rows(self) -> list[Any]:
        rows: list[Any] = [_detail_row("all", self.overall), _detail_row("all", self.average)]
        for by, summaries in self._parts():
            if by != "category":  # of a hundred categories they are in the JSON
                rows += [SEPARATING_LINE, *(_detail_row(by, summary) for summary in summaries)]
        return rows

    def _parts(self) -> list[tuple[str, Sequence[Summary]]]:
        parts = list(self.by.items())
        if self.symmetric:
            symmetric = self.symmetric
            found = [symmetric.overall, symmetric.average, *symmetric.by_category]
            parts.insert(len(parts) - 1, ("symmetric", found))
        return parts


def json_mark() -> bytes:
    """What every JSON report begins with."""
    return f'"generator": "{MARK}"'.encode()


def check_plot(path: str | PathLike[str]) -> None:
    """Make sure that a plot can be drawn to a path, before the work whose result it shows.

    Raises:
        ChoiceError: the ending is none of `PLOT_ENDINGS`.
        ImportError: matplotlib is not installed.
    """
    if Path(path).suffix.lower() not in PLOT_ENDINGS:
        raise ChoiceError(
            f"the plot {path} does not end in {', '.join(PLOT_ENDINGS)}, which tells the format"
        )
    try:
        load_matplotlib()
    except ImportError as error:
        raise ImportError(
            "the plot needs matplotlib, which comes with the extra: pip install '.[figures]'"
        ) from error


def _main_row(by: str, summary: Summary) -> list[str | float]:
    row: list[str | float] = [
        by,
        _printable(summary.name),
        summary.objects,
        *_percent(summary.accuracy.values()),
    ]
    row += _spread(summary.error)
    if summary.joint:
        shares = [summary.joint.classification, *summary.joint.accuracy.values()]
        row += [*_percent(shares), *_spread(summary.joint.error)]
    return row


def _detail_headers() -> list[str]:
    angles = [f"{angle} {what} °" for angle in ANGLES for what in ("median", "mean")]
    return ["by", "name", *(f"area to {limit}° %" for limit in AREAS), *angles]


def _detail_row(by: str, summary: Summary) -> list[str | float]:
    angles = [figure for angle in ANGLES for figure in _spread(summary.angles[angle])]
    return [by, _printable(summary.name), *_percent(summary.area.values()), *angles]


def _percent(shares: Any) -> list[float]:
    return [100 * share for share in shares]


def _spread(error: Spread) -> list[float]:
    return [error.median, error.mean]


def _tabulated(headers: Sequence[str], rows: Sequence[Any]) -> str:
    shown = [
        row if row == SEPARATING_LINE else [None if _is_nan(cell) else cell for cell in row] for row in rows
    ]
    return tabulate(shown, headers, floatfmt=".1f", disable_numparse=[1], missingval="none")


def _printable(name: str) -> str:
    """Return a name without what a terminal would act on: it may come from a file."""
    return "".join(letter if letter.isprintable() else ImageNet3D.shown(letter) for letter in name)


def _can_say(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _without_nan(value: object) -> object:
    """Return nested values with None for NaN, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if _is_nan(value) else value


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
