"""The preview page itself: one HTML file of cards, plots and books, from the template in html/."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import NamedTuple

import jinja2

import ImageNet3D
from ImageNet3D import OBJECT_STATUS
from processing.card.columns import COLUMNS
from processing.card.plots import Statistics, draw_plots
from processing.drawing import draw, outline, raster
from processing.preview.books import Oddity
from processing.preview.cards import AGREES, Card, CardMaker
from processing.preview.meshes import STEPS
from processing.preview.selection import NO_STATUS

TILES = 6  # of the page's head


class Section(NamedTuple):
    """A category of the gallery."""

    name: str
    known: bool
    caption: str | None
    pictures: int  # these three: over all annotations, not only those shown
    objects: int
    posed: int
    cards: list[Card]


class BookLine(NamedTuple):
    """A line of the books, with its examples in words, and a card where it is an object that can be shown."""

    reason: Oddity
    examples: list[tuple[str, Card | None]]


def render_page(
    *,
    name: str,
    kind: str,
    selection: str,
    statistics: Statistics,
    sections: Sequence[Section],
    books: Sequence[BookLine] | None,
    books_note: str,
    maker: CardMaker,
    columns: int,
) -> str:
    """Fill the template; style and script stand in the page, and no other script may run in it.

    Args:
        name: of the source.
        kind: what the source is, in words.
        selection: which objects the page is about, in words; "" for all.
        books: None where they are not known.
        books_note: what the books do not say, or why there are none.
        maker: of the cards; its meshes and notes are now complete.
        columns: cards of a category side by side.
    """
    folder = files("processing.preview").joinpath("html")
    style, *scripts = (folder.joinpath(n).read_text("utf-8") for n in ("page.css", "turn.js", "page.js"))
    script = "".join(scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = lambda text: text.replace("-", "−")  # noqa: RUF001
    template = environment.from_string(folder.joinpath("page.html.jinja").read_text("utf-8"))
    return template.render(
        name=name,
        kind=kind,
        selection=selection,
        statistics=statistics,
        sections=sections,
        tiles=_tiles(sections),
        filters=_filters(card for section in sections for card in section.cards),
        meshes={key: mesh._asdict() for key, mesh in sorted(maker.meshes.items())},
        plots=draw_plots(statistics),
        books=books,
        books_note=books_note,
        notes=maker.notes,
        columns=columns,
        style=style,
        script=script,
        script_digest=digest,
        constants=CONSTANTS,
        colors={"box": draw.BOX_COLOR, "mesh": draw.MESH_COLOR, **draw.AXIS_COLORS},
        column_texts=COLUMNS,
        filter_values=filter_values,
        agrees=AGREES,
        version=ImageNet3D.__version__,
    )


# What the script draws with, so that it draws as `processing.drawing.draw` does.
CONSTANTS = {
    "steps": STEPS,
    "ambient": raster.AMBIENT,
    "light": raster.LIGHT,
    "crease": float(outline.CREASE),
    "depthTolerance": outline.DEPTH_TOLERANCE,
    "faceOpacity": draw.FACE_OPACITY,
    "edgeOpacity": draw.EDGE_OPACITY,
    "meshColor": draw.MESH_COLOR,
    "axisColors": dict(draw.AXIS_COLORS),
}


class Filter(NamedTuple):
    """A group of values to filter the cards by: (value, what it is called, how many cards have it)."""

    name: str
    title: str
    values: list[tuple[str, str, int]]


def filter_values(card: Card) -> dict[str, str]:
    """What a card is filtered by."""
    return {
        "category": card.picture.category,
        "status": card.item.object_status or NO_STATUS,
        "density": {True: "dense", False: "sparse", None: "none"}[card.item.dense],
        "known": "known" if card.known else "unknown",
        "split": card.picture.split,
        "agreement": card.agreement,
    }


_FILTERS = (
    ("status", "Status", {**{status: status for status in OBJECT_STATUS}, NO_STATUS: "none given"}),
    ("density", "Density", {"sparse": "not dense", "dense": "dense", "none": "none given"}),
    ("known", "Open vocabulary", {"known": "known", "unknown": "unknown"}),
    ("split", "Split", {split: split for split in ImageNet3D.SPLITS}),
    ("agreement", "Box and mesh", {"agree": "agree", "differ": "differ", "no mesh": "no mesh"}),
)


def _filters(cards: Iterable[Card]) -> list[Filter]:
    """The groups, with those values that a card has."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for card in cards:
        for name, value in filter_values(card).items():
            counts[name][value] += 1
    groups = [Filter("category", "Category", [(v, v, n) for v, n in sorted(counts["category"].items())])]
    for name, title, words in _FILTERS:
        values = [(value, word, counts[name][value]) for value, word in words.items() if counts[name][value]]
        groups.append(Filter(name, title, values))
    return groups


def _tiles(sections: Sequence[Section]) -> list[Card]:
    """The cards in the page's head: one of a category, known and unknown, the best of them."""
    best = [min(section.cards, key=lambda card: card.fit_for_head) for section in sections if section.cards]
    return sorted(best, key=lambda card: (card.fit_for_head, _shuffled(card)))[:TILES]


def _shuffled(card: Card) -> bytes:
    return hashlib.blake2b(card.picture.image_id.encode("utf-8", "replace"), digest_size=8).digest()
