"""The `preview` stage: one HTML page that shows what the annotations say, drawn on the pictures.

For each category it shows a few objects with their box, the mesh at its pose and the object's axes; over all
annotations it plots what poses, qualities and sizes there are; and it lists what was found odd. The page
needs no other file and no network. The same input gives the same page: objects are chosen by a hash of the
seed and their picture's name, spread over the pictures.

    selection what a page is about, and what it asks of its source
    sources   which source a path is: raw, a release; shards, a built folder
    books     what was found odd in it
    cards     one object: its picture made small, with its layers (processing.drawing.draw)
    meshes    meshes as the page's script reads them
    page      the page itself, from the template, the style and the scripts in html/
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from ImageNet3D import ANGLES, KNOWN_CATEGORIES, ObjectAnnotation, ReleaseError
from processing.card.plots import Statistics
from processing.preview.books import Oddities
from processing.preview.cards import Card, CardMaker, long_side
from processing.preview.page import BookLine, Section, render_page
from processing.preview.selection import AnnotatedPicture, Selection, Source
from processing.preview.sources import open_source
from processing.runtime.output import check_output, write_output

MARK = b'<meta name="generator" content="imagenet3d preview'  # which tells a page of ours

# Objects of a category that may take the place of chosen ones whose picture turns out to be unusable.
SPARE = 8


def write_preview(
    source: str,
    page: str | Path,
    per_category: int = 2,
    selection: Selection | None = None,
    seed: int = 0,
) -> bool:
    """Write one self-contained HTML page about a raw release or a built folder.

    Only the chosen pictures are read. A built folder shows the same posed objects as the release it was
    built from; it has no others, and meshes only with the config `cad`.

    Args:
        source: raw release (folder or zip) or built folder, a path or any fsspec URL.
        page: the HTML file to write; an earlier page there is replaced in one step, and nothing else.
        per_category: how many objects of each category to show.
        selection: which objects the page is about, pictures, plots and books alike; all by default.
        seed: another one shows other objects.

    Returns:
        Whether the page went through a pipe or device, and there is no file.

    Raises:
        ReleaseError: the source is neither a raw release nor a built folder with the config, or has no object
            that is selected; or the folder is damaged.
        OutputError: page is there and is no earlier page.
        ValueError: per_category is less than 1.
        ImportError: matplotlib or contourpy is not installed.
    """
    if per_category < 1:
        raise ValueError(f"per_category is {per_category}; give at least 1")
    _check_extra()
    check_output(page, MARK)
    selection = selection or Selection()
    opened = open_source(source, selection)
    statistics, candidates = _look_through(opened, per_category, seed)
    if not statistics.objects.total() and str(selection):
        raise ReleaseError(f"{source}: no object is selected by {selection}")
    maker = CardMaker(opened, long_side(sum(min(per_category, len(c)) for c in candidates.values())))
    sections = [
        Section(
            name=category,
            known=category in KNOWN_CATEGORIES,
            caption=opened.category_captions.get(category),
            pictures=statistics.category_pictures[category],
            objects=statistics.objects[category],
            posed=statistics.posed[category],
            cards=_some_cards(maker, candidates[category], per_category),
        )
        for category in _with_progress(sorted(statistics.category_pictures), "pictures", " categories")
    ]
    books = None if opened.books is None else _lines(opened.books, opened, maker)
    text = render_page(
        name=Path(source.partition("?")[0]).name,  # a signed URL's query is nobody's business
        kind=opened.kind,
        selection=str(selection),
        statistics=statistics,
        sections=sections,
        books=books,
        books_note=opened.books_note,
        maker=maker,
        columns=min(per_category, 4),
    )
    return write_output(page, text.encode("utf-8", "replace"), MARK)


def _with_progress(things: Sequence[Any], stage: str, unit: str) -> Iterable[Any]:
    """Things with a progress bar of their own: stages take their time by different things."""
    return tqdm(things, desc=f"preview: {stage}", unit=unit, disable=None)


def _check_extra() -> None:
    """Say what is missing before minutes of reading, not after."""
    missing = [name for name in ("contourpy", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ImportError(f"preview needs {', '.join(missing)}: pip install -e '.[demo]' in a clone")


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
        # The roots first: the area of a box that is kept as annotated may be no number any more.
        statistics.boxes.append(abs(x2 - x1) ** 0.5 * abs(y2 - y1) ** 0.5)
        if item.posed:
            statistics.posed[picture.category] += 1
            if item.distance is not None:
                statistics.distances.append(item.distance)
            for name in ANGLES:
                statistics.angles[name].append(getattr(item, name))


# --------------------------------------------------------------------------------------------------------
# What is shown of them
# --------------------------------------------------------------------------------------------------------


def _some_cards(maker: CardMaker, candidates: Sequence[Candidate], count: int) -> list[Card]:
    """The cards of the first objects whose picture can be shown."""
    return list(itertools.islice(maker.cards([candidate.shown for candidate in candidates]), count))


def _lines(books: Oddities, source: Source, maker: CardMaker) -> list[BookLine]:
    """The lines of the books; where an example is an object, with a card that shows it."""
    lines = []
    for reason in _with_progress(books.reasons(), "examples", " reasons"):
        examples: list[tuple[str, Card | None]] = []
        for example in reason.examples:
            found = source.example(example.image_id, example.object_index) if example.image_id else None
            examples.append((example.text, next(maker.cards([found] if found else []), None)))
        lines.append(BookLine(reason, examples))
    return lines
