"""The `preview` stage: one HTML page that shows what the annotations say, drawn on the pictures.

For each category it shows a few objects with their box, the mesh at its pose and the object's axes; over all
annotations it plots what poses, qualities and sizes there are; and it lists what was found odd. The page
needs no other file and no network. The same input gives the same page: objects are chosen by a hash of the
seed and their picture's name, spread over the pictures.

    preview_sources   what a page is made from
    preview_cards     one object: its picture made small, with its layers (processing.draw)
    preview_meshes    meshes as the page's script reads them
    preview_plots     the plots
    page/             the page itself: a template, its style, its script
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jinja2

import ImageNet3D
from ImageNet3D import ANGLES, KNOWN_CATEGORIES, OBJECT_STATUS, ObjectAnnotation, ReleaseError
from processing import draw, outline, raster
from processing.columns import COLUMNS
from processing.preview_cards import AGREES, Card, CardMaker, long_side
from processing.preview_meshes import STEPS
from processing.preview_plots import Statistics, draw_plots
from processing.preview_sources import (
    NO_STATUS,
    AnnotatedPicture,
    Selection,
    Source,
    open_source,
)
from processing.store import write_whole

# Objects of a category that may take the place of chosen ones whose picture turns out to be unusable.
SPARE = 8
TILES = 6  # of the page's head


def write_preview(
    source: str,
    page: str | Path,
    per_category: int = 2,
    selection: Selection | None = None,
    seed: int = 0,
) -> None:
    """Write one self-contained HTML page about a raw release or a built folder.

    Only the chosen pictures are read. A built folder shows the same posed objects as the release it was
    built from; it has no others, and meshes only with the config `cad`.

    Args:
        source: raw release (folder or zip) or built folder, a path or any fsspec URL.
        page: the HTML file to write; it is replaced in one step.
        per_category: how many objects of each category to show.
        selection: which objects the page is about, pictures, plots and books alike; all by default.
        seed: another one shows other objects.

    Raises:
        ReleaseError: the source is neither a raw release nor a built folder with the config, or has no object
            that is selected.
        ValueError: per_category is less than 1.
        ImportError: matplotlib or trimesh is not installed.
    """
    if per_category < 1:
        raise ValueError(f"per_category is {per_category}; give at least 1")
    _check_extra()
    selection = selection or Selection()
    opened = open_source(source, selection)
    statistics, candidates = _look_through(opened, per_category, seed)
    if not statistics.objects.total() and str(selection):
        raise ReleaseError(f"{source}: no object is selected by {selection}")
    maker = CardMaker(opened, long_side(sum(min(per_category, len(c)) for c in candidates.values())))
    sections = []
    for category in sorted(statistics.category_pictures):
        chosen = maker.cards([candidate.shown for candidate in candidates[category]])
        sections.append(
            {
                "name": category,
                "known": category in KNOWN_CATEGORIES,
                "caption": opened.category_captions.get(category),
                "pictures": statistics.category_pictures[category],
                "objects": statistics.objects[category],
                "posed": statistics.posed[category],
                "cards": list(itertools.islice(chosen, per_category)),
            }
        )
    reasons = None if opened.books is None else _reasons(opened, maker)
    text = _render(
        name=Path(source.partition("?")[0]).name,  # a signed URL's query is nobody's business
        kind=opened.kind,
        selection=str(selection),
        statistics=statistics,
        sections=sections,
        tiles=_tiles(sections),
        filters=_filters([card for section in sections for card in section["cards"]]),
        meshes={key: mesh._asdict() for key, mesh in sorted(maker.meshes.items())},
        plots=draw_plots(statistics),
        reasons=reasons,
        books_note=opened.books_note,
        notes=maker.notes,
        columns=min(per_category, 4),
    )
    write_whole(Path(page), text.encode("utf-8", "replace"))


def _check_extra() -> None:
    """Say what is missing before minutes of reading, not after."""
    missing = [name for name in ("contourpy", "matplotlib", "trimesh") if find_spec(name) is None]
    if missing:
        raise ImportError(f"preview needs {', '.join(missing)}: pip install imagenet3d[demo]")


# --------------------------------------------------------------------------------------------------------
# One pass over all annotations
# --------------------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """An object that may be shown; the lowest go first."""

    unposed: bool
    place: int  # among the objects of its picture that are posed, or not, alike
    shuffled: bytes
    picture: AnnotatedPicture
    item: ObjectAnnotation

    @property
    def order(self) -> tuple[bool, int, bytes]:
        """Posed objects first, one of each picture first, and else a fixed random order."""
        return self[:3]

    @property
    def shown(self) -> tuple[AnnotatedPicture, ObjectAnnotation]:
        """What a card is made of."""
        return self.picture, self.item


def _look_through(
    source: Source, per_category: int, seed: int
) -> tuple[Statistics, dict[str, list[Candidate]]]:
    """Statistics over everything, and for each category the objects to show, with some to spare."""
    statistics = Statistics()
    candidates: dict[str, list[Candidate]] = defaultdict(list)
    keep = per_category + SPARE
    for picture in source.pictures():
        _count(picture, statistics)
        waiting = candidates[picture.category]
        waiting += _candidates_of(picture, seed)
        if len(waiting) > 4 * keep:
            waiting.sort(key=lambda candidate: candidate.order)
            del waiting[keep:]
    for waiting in candidates.values():
        waiting.sort(key=lambda candidate: candidate.order)
    return statistics, candidates


def _candidates_of(picture: AnnotatedPicture, seed: int) -> Iterator[Candidate]:
    name = f"{seed}/{picture.image_id}" if seed else picture.image_id
    shuffled = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    seen: Counter[bool] = Counter()
    for item in picture.objects:
        yield Candidate(not item.posed, seen[item.posed], shuffled, picture, item)
        seen[item.posed] += 1


def _count(picture: AnnotatedPicture, statistics: Statistics) -> None:
    statistics.pictures[picture.split] += 1
    statistics.category_pictures[picture.category] += 1
    statistics.objects[picture.category] += len(picture.objects)
    if picture.size is not None:
        statistics.sizes[picture.size] += 1
    for item in picture.objects:
        statistics.quality[item.object_status, item.dense] += 1
        x1, y1, x2, y2 = item.bbox
        statistics.boxes.append(((x2 - x1) * (y2 - y1)) ** 0.5)
        if item.posed:
            statistics.posed[picture.category] += 1
            statistics.distances.append(item.distance)
            for name in ANGLES:
                statistics.angles[name].append(getattr(item, name))


# --------------------------------------------------------------------------------------------------------
# The page
# --------------------------------------------------------------------------------------------------------


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


def _filters(cards: Sequence[Card]) -> list[Filter]:
    """The groups in which the cards differ at all, or that the reader will look for."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for card in cards:
        for name, value in filter_values(card).items():
            counts[name][value] += 1
    groups = [Filter("category", "Category", [(v, v, n) for v, n in sorted(counts["category"].items())])]
    for name, title, words in _FILTERS:
        values = [(value, word, counts[name][value]) for value, word in words.items() if counts[name][value]]
        groups.append(Filter(name, title, values))
    return groups


def _reasons(source: Source, maker: CardMaker) -> list[dict[str, Any]]:
    """The lines of the books; where an example is an object, with a card that shows it."""
    lines = []
    for reason in source.books.reasons():
        examples = []
        for example in reason.examples:
            found = source.example(example.image_id, example.index) if example.image_id else None
            examples.append({"text": example.text, "card": next(maker.cards([found] if found else []), None)})
        lines.append(
            {"rule": reason.rule, "decision": reason.decision, "count": reason.count, "examples": examples}
        )
    return lines


def _tiles(sections: Sequence[dict[str, Any]]) -> list[Card]:
    """The cards in the page's head: one of a category, known and unknown, the best of them."""
    best = [
        min(section["cards"], key=lambda card: card.fit_for_head) for section in sections if section["cards"]
    ]
    best.sort(
        key=lambda card: (
            card.fit_for_head,
            hashlib.blake2b(card.picture.image_id.encode("utf-8", "replace")).digest(),
        )
    )
    return best[:TILES]


def _render(**values: Any) -> str:
    """Fill the template; style and script stand in the page, and no other script may run in it."""
    folder = files("processing").joinpath("page")
    style, script = (folder.joinpath(name).read_text("utf-8") for name in ("page.css", "turn.js"))
    script += folder.joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["minus"] = lambda text: text.replace("-", "−")  # noqa: RUF001
    template = environment.from_string(folder.joinpath("page.html.jinja").read_text("utf-8"))
    return template.render(
        **values,
        style=style,
        script=script,
        script_digest=digest,
        constants=_CONSTANTS,
        colors={"box": draw.BOX_COLOR, "mesh": draw.MESH_COLOR, **draw.AXIS_COLORS},
        column_texts=COLUMNS,
        filter_values=filter_values,
        agrees=AGREES,
        version=ImageNet3D.__version__,
    )


# What the script draws with, so that it draws as `processing.draw` does.
_CONSTANTS = {
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
