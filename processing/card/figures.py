"""Figures of the card, drawn from the built shards: the preview page's plots, as SVG files that stand alone.

An SVG in a page cannot know the page's theme, so its colours are chosen to be read on white and on dark
alike. matplotlib, of the extra `figures`, draws; without it a build goes on and says that its card has no
plots.
"""

import html
import importlib.util
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

import dataset_card
from ImageNet3D import ANGLES, OBJECT_STATUS, POSE_FIELDS
from processing.accounts import label_names
from processing.built import FIGURES
from processing.card.plots import Plot, Statistics, draw_plots, load_matplotlib
from processing.runtime.paths import Place
from processing.runtime.store import names_in, read_all, read_columns

CAMERA = Path(dataset_card.__file__).with_name("camera.svg")

# Contrasts with white and with near-black pages of 4 and more.
_STYLE = (
    "svg{color:#747b85;--line:#80808055;--first:#3f83d0;--second:#d9822b;--third:#9aa0a8;"
    "font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}"
)
_POSE_COLUMNS = ["image_id", "width", "height", "category", "object_status", "dense", *POSE_FIELDS]
_PICTURE_COLUMNS = ["width", "height", "label"]


@dataclass(frozen=True)
class Figure:
    """A figure of the card.

    Attributes:
        name: such as "picture-sizes".
        alt: what it shows, in words, as the file says it too.
        svg: the file.
    """

    name: str
    alt: str
    svg: bytes

    @property
    def path(self) -> str:
        """Inside the built folder."""
        return f"{FIGURES}/{self.name}.svg"


def can_draw() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


def import_what_draws() -> None:
    """Takes half a second, which need not be waited for later; without matplotlib nothing."""
    if can_draw():
        with suppress(ImportError):  # raised again, where there is something to draw
            load_matplotlib()


def draw_figures(folder: Place) -> list[Figure]:
    """The plots of the shards of a folder, where they can be drawn."""
    plots = draw_plots(read_statistics(folder)) if can_draw() else []
    return [
        Figure(p.title.lower().replace(" ", "-"), f"{p.title}: {p.note}", _standing_alone(p).encode())
        for p in plots
    ]


def camera_figure() -> Figure:
    """How azimuth, elevation, theta and distance are meant; the card's template describes it."""
    return Figure(CAMERA.stem, "", CAMERA.read_bytes())


def figures_in(folder: Place) -> list[Figure]:
    """The plots that stand in a built folder, as they were drawn."""
    names = [name for name in names_in(folder / FIGURES) if name.endswith(".svg") and name != CAMERA.name]
    figures = []
    for name, svg in zip(names, read_all(folder / FIGURES, names), strict=True):
        said = (re.search(f"<{tag}>(.*?)</{tag}>", svg.decode()) for tag in ("title", "desc"))
        alt = ": ".join(html.unescape(found[1]) for found in said if found)
        figures.append(Figure(name.removesuffix(".svg"), alt, svg))
    return figures


def read_statistics(folder: Place) -> Statistics:
    """Count the objects of pose and the pictures of classification (of pose, where it is not built).

    Only columns of numbers are read: no picture leaves the disk.
    """
    statistics = Statistics()
    for table in _tables(folder, "pose", _POSE_COLUMNS):
        _count_objects(table, statistics)
    for table in _tables(folder, "classification", _PICTURE_COLUMNS):
        statistics.sizes.update(_pairs(table, "width", "height"))
    if not statistics.sizes:
        for table in _tables(folder, "pose", ["image_id", "width", "height"]):
            pictures = table.group_by(table.column_names, use_threads=False).aggregate([])
            statistics.sizes.update(_pairs(pictures, "width", "height"))
    return statistics


def _tables(folder: Place, config: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    for name in names_in(folder / config):
        if name.endswith(".parquet"):
            yield read_columns(folder / config / name, columns)


def _pairs(table: pa.Table, first: str, second: str) -> Iterator[tuple]:
    return zip(table[first].to_pylist(), table[second].to_pylist(), strict=True)


def _count_objects(table: pa.Table, statistics: Statistics) -> None:
    categories = label_names(table.schema)
    names = [categories[label] for label in table["category"].to_pylist()]
    statistics.objects.update(names)
    statistics.posed.update(names)
    statistics.distances.extend(table["distance"].drop_null().to_numpy())
    for angle in ANGLES:
        statistics.angles[angle].extend(array("d", table[angle].to_numpy()))
    statistics.quality.update(
        (None if status is None else OBJECT_STATUS[status], dense)
        for status, dense in _pairs(table, "object_status", "dense")
    )


def _standing_alone(plot: Plot) -> str:
    """The plot with its own colours, its size, and what it shows for those who cannot see it."""
    (size,) = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', plot.svg)
    head, body = re.split(r"(?<=>)", str(plot.svg), maxsplit=1)
    words = (("title", plot.title), ("desc", plot.note), ("style", _STYLE))
    inside = "".join(f"<{tag}>{html.escape(text, quote=False)}</{tag}>" for tag, text in words)
    return f'{head[:-1]} width="{size[0]}" height="{size[1]}" role="img">{inside}{body}'
