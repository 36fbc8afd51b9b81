"""The plots of the preview page, as SVG to stand in HTML: colours are the page's own, light and dark."""

from __future__ import annotations

import importlib
import io
import math
import os
import re
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from markupsafe import Markup

from ImageNet3D import ANGLES, KNOWN_CATEGORIES, OBJECT_STATUS

BINS = 36  # of an angle, centred on whole tens of degrees, so that 0 falls into one bin
DISTANCE_BINS = 40
DISTANCE_QUANTILE = 0.99  # larger distances go into the last bin
SIZE_BINS_PER_OCTAVE = (4, 3, 2, 1)  # the first that gives no more than MAX_BUBBLES
MAX_BUBBLES = 150  # each takes half a kilobyte
BOX_BINS_PER_OCTAVE = 4
LARGEST_BOX = 2**15  # pixels; larger ones, which are no boxes of objects, go into the last bin
BOX_TICKS = 9  # at most, for their labels to stay apart
CATEGORIES_IN_COLUMN = 40

# Colours matplotlib is given -> what the page's style sheet calls them.
INK, LINE, FIRST, SECOND, THIRD = "#010203", "#010204", "#010205", "#010206", "#010207"
_PAGE_COLORS = {
    INK: "currentColor",
    LINE: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}
_STYLE = {
    "text.parse_math": False,  # names are text, whatever dollars they hold
    "svg.fonttype": "none",  # text stays text: small, and in the page's font
    "font.size": 9.0,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "xtick.color", "ytick.color"), LINE),
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


@dataclass
class Statistics:
    """Counts over all annotations; they grow with the objects by a few numbers each.

    Attributes:
        pictures: by split.
        category_pictures, objects, posed: by category; an object without a pose has only a box.
        angles: of posed objects, radians, as annotated.
        distances: of posed objects, units of the CAD model; <= 0 was never placed in depth.
        quality: (object_status, dense) of all objects, None where it is not annotated.
        sizes: (width, height) of pictures, pixels.
        boxes: square root of each box's area, pixels.
    """

    pictures: Counter[str] = field(default_factory=Counter)
    category_pictures: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    posed: Counter[str] = field(default_factory=Counter)
    angles: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in ANGLES})
    distances: array[float] = field(default_factory=lambda: array("d"))
    quality: Counter[tuple[str | None, bool | None]] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    boxes: array[float] = field(default_factory=lambda: array("d"))


@dataclass(frozen=True)
class Plot:
    """One plot, with what it shows in words."""

    title: str
    note: str
    svg: Markup
    wide: bool = False


def draw_plots(statistics: Statistics) -> list[Plot]:
    """Draw all plots for which there is something to show; the same statistics give the same bytes."""
    plots = []
    if statistics.posed.total():
        plots += [_angle_plot(name, statistics.angles[name]) for name in ANGLES]
        plots.append(_distance_plot(statistics.distances))
    if statistics.objects.total():
        plots.append(_quality_plot(statistics.quality))
    if statistics.boxes:
        plots.append(_box_plot(statistics.boxes))
    if statistics.sizes:
        plots.append(_size_plot(statistics.sizes))
    if statistics.objects.total():
        plots.append(_category_plot(statistics))
    return plots


def load_matplotlib() -> ModuleType:
    """Matplotlib, of the extra `figures`, imported whatever MPLBACKEND says.

    Notebooks set the variable for what they start, and the import refuses a backend that is not installed.
    No figure of ours needs one: `Figure.savefig` chooses by the kind of file.

    Raises:
        ImportError: if it is not installed.
    """
    chosen = os.environ.pop("MPLBACKEND", None)
    try:
        for part in ("figure", "backends.backend_svg"):
            importlib.import_module(f"matplotlib.{part}")
        return importlib.import_module("matplotlib")
    finally:
        if chosen is not None:
            os.environ["MPLBACKEND"] = chosen


def _svg(name: str, size: tuple[float, float], draw: Callable[[Any], None]) -> Markup:
    """Draw on a matplotlib figure of a size in inches, and make its SVG part of a page."""
    matplotlib = load_matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    target = io.BytesIO()
    with ExitStack() as stack:
        stack.enter_context(matplotlib.rc_context())
        matplotlib.rcdefaults()  # whatever the user's own settings are, the bytes are the same
        # The salt makes ids the same every time, and no two plots' the same.
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = Figure(figsize=size, dpi=72)  # points, as the file has them
        FigureCanvasSVG(figure)
        draw(figure)
        ConstrainedLayoutEngine().execute(figure)  # a figure that has one is drawn twice: for it, and then
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(target, format="svg", transparent=True, metadata=nothing)
    svg = target.getvalue().decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # groups' numbers, which every figure begins at 1
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)  # matplotlib < 3.11
    svg = re.sub(r" font-family: [^;\"]*;", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    svg = re.sub(r"(\d\.\d\d)\d+", r"\1", svg)  # a hundredth of a point is more than enough
    for color, page_color in _PAGE_COLORS.items():
        svg = svg.replace(color, page_color)
    return Markup(re.sub(r"\n\s*", "\n", svg))  # noqa: S704 - drawn here, from numbers and fixed names


# --------------------------------------------------------------------------------------------------------
# Pose
# --------------------------------------------------------------------------------------------------------

# Where 0 stands on the dial, the labels at 0, 90, 180 and 270 degrees counter-clockwise, and a note. The dial
# of azimuth is a map of the camera's places: it stands at -y, the front, for 0 and at +x for 90 degrees.
_DIALS = {
    "azimuth": ("S", ("0° front", "90°", "180°", "270°"), "where the camera stands, seen from above"),
    "elevation": ("E", ("0°", "90° above", "180°", "270° below"), "the camera's height over the horizon"),
    "theta": ("N", ("0°", "90°", "180°", "270°"), "in-plane rotation, counter-clockwise"),
}


def _angle_plot(name: str, angles: array[float]) -> Plot:
    zero, labels, note = _DIALS[name]
    width = 2 * math.pi / BINS
    bins = np.floor(np.mod(np.asarray(angles) + width / 2, 2 * math.pi) / width).astype(int) % BINS
    counts = np.bincount(bins, minlength=BINS)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(projection="polar")
        axes.set_theta_zero_location(zero)
        # Areas show counts: a radius that does would make the common views look far more common.
        axes.bar(np.arange(BINS) * width, np.sqrt(counts), width=width * 0.92, color=FIRST)
        rings = _rings(int(counts.max()))
        axes.set_rgrids(np.sqrt(rings), [f"{ring:,}" for ring in rings], angle=67.5, fontsize=7.5)
        axes.set_thetagrids(range(0, 360, 45), [labels[i // 2] if i % 2 == 0 else "" for i in range(8)])
        axes.spines["polar"].set_visible(False)

    return Plot(name.capitalize(), f"{note}; area ∝ objects", _svg(name, (3.6, 3.3), draw))


def _rings(most: int) -> list[int]:
    """Two round numbers of objects for the rings of a dial."""
    step = 10 ** int(math.log10(max(most, 1)))
    largest = most // step * step
    return sorted({max(1, largest // 5), largest})


def _distance_plot(distances: array[float]) -> Plot:
    values = np.asarray(distances)
    placed = np.minimum(values[values > 0], 1e300)  # an axis has to end above the largest
    note = "camera to object, in units of the CAD model"
    if unplaced := len(values) - len(placed):
        note += f"; {unplaced:,} never placed in depth"

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="distance", ylabel="objects")
        axes.grid(axis="y")
        if not len(placed):
            return
        upper = float(np.quantile(placed, DISTANCE_QUANTILE, method="higher"))
        counts, edges = np.histogram(np.minimum(placed, upper), DISTANCE_BINS, (0, upper))
        axes.set_xlim(0, upper * 1.02)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color=FIRST)
        if placed.max() > upper:
            axes.annotate(f"≥ {upper:.3g}", (upper, counts[-1]), ha="right", va="bottom", fontsize=7.5)

    return Plot("Distance", note, _svg("distance", (3.6, 3.3), draw))


# --------------------------------------------------------------------------------------------------------
# Objects and pictures
# --------------------------------------------------------------------------------------------------------


def _quality_plot(quality: Counter[tuple[str | None, bool | None]]) -> Plot:
    statuses = [status for status in (*OBJECT_STATUS, None) if any(quality[status, d] for d in _DENSITIES)]

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="objects")
        axes.grid(axis="x")
        left = np.zeros(len(statuses))
        for dense, (label, color) in _DENSITIES.items():
            counts = np.array([quality[status, dense] for status in statuses])
            if counts.any():
                axes.barh(range(len(statuses)), counts, left=left, color=color, label=label, height=0.62)
            left += counts
        for row, total in enumerate(left.astype(int)):
            _annotate_bar(axes, total, row)
        axes.set_yticks(range(len(statuses)), [status or "none given" for status in statuses])
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, left.max() * 1.15)
        axes.locator_params(axis="x", nbins=4, integer=True)
        axes.invert_yaxis()
        axes.legend(loc="lower right")

    return Plot("Status and density", "visual quality of the object, density of the scene",
                _svg("quality", (3.6, 3.3), draw))  # fmt: skip


_DENSITIES: dict[bool | None, tuple[str, str]] = {
    False: ("not dense", FIRST),
    True: ("dense", SECOND),
    None: ("density not given", THIRD),
}


def _annotate_bar(axes: Any, count: int, row: int) -> Any:
    return axes.annotate(
        f"{count:,}", (count, row), (3, 0), textcoords="offset points", va="center", fontsize=7
    )


def _box_plot(boxes: array[float]) -> Plot:
    """A histogram over logarithms: there are boxes of some ten and of a thousand pixels."""
    values = np.clip(np.asarray(boxes), 1, LARGEST_BOX)
    low, high = math.floor(np.log2(values.min())), math.floor(np.log2(values.max())) + 1
    edges = np.linspace(low, high, (high - low) * BOX_BINS_PER_OCTAVE + 1)
    counts, _ = np.histogram(np.log2(values), edges)

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(xlabel="side of a square of the same area (pixels)", ylabel="objects")
        axes.grid(axis="y")
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.92, align="edge", color=FIRST)
        axes.yaxis.get_major_locator().set_params(integer=True)
        ticks = range(low, high + 1)
        ticks = ticks[:: math.ceil(len(ticks) / BOX_TICKS)]
        axes.set_xticks(ticks, [f"{2**power}" for power in ticks])

    note = f"half of them are {np.median(values):,.0f} pixels or more across"
    if beyond := np.count_nonzero(np.asarray(boxes) > LARGEST_BOX):
        note += f"; {beyond:,} of more than {LARGEST_BOX:,} in the last bin"
    return Plot("Box sizes", note, _svg("boxes", (3.6, 3.3), draw))


def _size_plot(sizes: Counter[tuple[int, int]]) -> Plot:
    """Bubbles, one for each cell of a logarithmic grid: the release has thousands of different sizes."""
    grids = (_size_cells(sizes, bins) for bins in SIZE_BINS_PER_OCTAVE)
    cells = next((found for found in grids if len(found) <= MAX_BUBBLES), [])
    width, height, count = np.array(cells or _size_cells(sizes, SIZE_BINS_PER_OCTAVE[-1])).T

    def draw(figure: Any) -> None:
        axes = figure.add_subplot(
            xlabel="width (pixels)", ylabel="height (pixels)", xscale="log", yscale="log", aspect="equal"
        )
        axes.grid()
        area = 12 + 700 * count / count.max()
        axes.scatter(
            width / count, height / count, area, color=FIRST, alpha=0.55, linewidths=0, clip_on=False
        )
        low = 2 ** math.floor(math.log2(min(map(min, sizes))))
        high = 2 ** math.ceil(math.log2(max(map(max, sizes)) + 1))
        powers = range(int(math.log2(low)), int(math.log2(high)) + 1)
        ticks = [2**power for power in powers[:: math.ceil(len(powers) / 7)]]
        for axis, limits in ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim)):
            axis.set_ticks(ticks, [str(tick) for tick in ticks])
            axis.set_ticks([], minor=True)
            limits(low, high)
        axes.axline((low, low), (high, high), color=INK, linewidth=0.7, linestyle=(0, (2, 3)))

    (width_most, height_most), _ = max(sizes.items(), key=lambda item: (item[1], item[0]))
    note = f"area ∝ pictures; {width_most} x {height_most} is the most common size"
    return Plot("Picture sizes", note, _svg("sizes", (3.6, 3.3), draw))


def _size_cells(sizes: Counter[tuple[int, int]], bins_per_octave: int) -> list[list[float]]:
    """Sums of width, of height and of pictures, for each cell in which there are any."""
    cells: dict[tuple[int, ...], list[float]] = {}
    for (width, height), count in sorted(sizes.items()):
        key = tuple(math.floor(bins_per_octave * math.log2(side)) for side in (width, height))
        cell = cells.setdefault(key, [0, 0, 0])
        for i, value in enumerate((width * count, height * count, count)):
            cell[i] += value
    return list(cells.values())


def _category_plot(statistics: Statistics) -> Plot:
    ranked = sorted(statistics.objects, key=lambda name: (-statistics.objects[name], name))
    num_columns = math.ceil(len(ranked) / CATEGORIES_IN_COLUMN)
    length = math.ceil(len(ranked) / num_columns)
    size = (max(2.9 * num_columns, 11), 0.165 * length + 0.6)

    def draw(figure: Any) -> None:
        columns = figure.subplots(1, num_columns, sharex=True, squeeze=False)[0]
        for place, axes in enumerate(columns):
            names = ranked[place * length : (place + 1) * length]
            counts = [statistics.objects[name] for name in names]
            colors = [FIRST if name in KNOWN_CATEGORIES else SECOND for name in names]
            axes.barh(range(len(names)), counts, color=colors, height=0.72)
            for row, count in enumerate(counts):
                _annotate_bar(axes, count, row).set_in_layout(row == 0)  # no other needs more room
            beside = axes.get_yaxis_transform()  # no ticks, each of which takes as long as five of these
            for row, name in enumerate(names):
                axes.text(-0.02, row, name.replace("_", " "), transform=beside, ha="right", va="center",
                          fontsize=7.5)  # fmt: skip
            axes.set_yticks([])
            axes.set_ylim(length - 0.4, -0.6)
            axes.set_xlim(0, max(statistics.objects.values()) * 1.12)
            axes.set_xticks([])
            axes.spines["bottom"].set_visible(False)
        handles = [columns[-1].barh([0], [0], color=color) for color in (FIRST, SECOND)]
        figure.legend(handles, ["known", "unknown"], loc="outside upper left", ncols=2)

    note = "known and unknown are those of the open-vocabulary task"
    return Plot("Objects per category", note, _svg("categories", size, draw), wide=True)
