"""What a preview page is about, and what it asks of its source: `raw`, a release, or `shards`, a build.

Annotations of all pictures are read, and the pixels of none but those that are asked for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import ImageNet3D
from ImageNet3D import OBJECT_STATUS, ObjectAnnotation
from processing.drawing.mesh import Mesh
from processing.preview.books import Oddities

CONFIGS = ("pose", "object_centric")  # whose rows a page can show
NO_STATUS = "none"  # stands for the objects without a status


class NoCategoryError(ValueError):
    """A category is asked for that the source does not have."""

    exit_code = 2


@dataclass(frozen=True)
class Selection:
    """Which objects a page is about; an empty tuple stands for all.

    Attributes:
        config: of `CONFIGS`.
        categories: names; whether there are such, the source knows.
        statuses: of `OBJECT_STATUS`, or `NO_STATUS`.
        splits: names.

    Raises:
        ValueError: for a value that there is not.
    """

    config: str = "pose"
    categories: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, given, possible in (
            ("config", (self.config,), CONFIGS),
            ("status", self.statuses, (*OBJECT_STATUS, NO_STATUS)),
            ("split", self.splits, tuple(ImageNet3D.SPLITS)),
        ):
            for value in given:
                if value not in possible:
                    raise ValueError(f"{what} is {value!r}; give one of {', '.join(possible)}")

    def check_categories(self, known: Sequence[str]) -> None:
        """Raise `NoCategoryError` for a category that is none of a source's."""
        for name in self.categories:
            if name not in known:
                closest = ", ".join(difflib.get_close_matches(name, known, cutoff=0))
                raise NoCategoryError(f"category is {name!r}, which there is not; the closest are {closest}")

    def has_picture(self, category: str, split: str) -> bool:
        """Whether pictures of a category and split may be shown."""
        return (not self.categories or category in self.categories) and (
            not self.splits or split in self.splits
        )

    def has_file(self, file: str, split: str) -> bool:
        """Whether what was found about a file of the release concerns the page."""
        match = re.match(r"(?:images|annotations|CAD)/([^/]+)/|lists/(.+)_imagenet_", file)
        category = match and (match[1] or match[2])
        return (not category or not self.categories or category in self.categories) and (
            not self.splits or not split or split in self.splits
        )

    def has_object(self, item: ObjectAnnotation) -> bool:
        """Whether an object may be shown."""
        return not self.statuses or (item.object_status or NO_STATUS) in self.statuses

    def __str__(self) -> str:
        parts = [", ".join(self.categories)] if self.categories else []
        parts += [f"status {', '.join(self.statuses)}"] if self.statuses else []
        parts += [", ".join(self.splits)] if self.splits else []
        return " · ".join(parts)


class RowPlace(NamedTuple):
    """A row of a built folder."""

    shard: str
    row_group: int
    row: int  # of the row group


@dataclass(frozen=True, slots=True)
class AnnotatedPicture:
    """A picture's name and annotation; its pixels have not been read.

    Attributes:
        image_id: "<category>/<file stem>".
        split: "train" or "validation".
        objects: those with a usable box; in object_centric, as they lie in their crops.
        size: width and height in pixels, or None where the annotation does not tell; of a crop, its own.
        caption: the image-level caption, or None.
        places: where its source finds the objects again, by their index.
    """

    image_id: str
    split: str
    objects: tuple[ObjectAnnotation, ...]
    size: tuple[int, int] | None
    caption: str | None
    places: Mapping[int, RowPlace] = field(default_factory=dict)

    @property
    def category(self) -> str:
        """The folder's category."""
        return self.image_id.partition("/")[0]


class Source(Protocol):
    """What a page is made from.

    Attributes:
        kind: what it is, in words.
        category_captions: category -> text.
        books_note: what the books do not say, or why there are none.
    """

    kind: str
    category_captions: dict[str, str]
    books_note: str

    @property
    def books(self) -> Oddities | None:
        """What was found odd, or None where that is not known; complete after `pictures`."""

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """All annotated pictures that are selected; no pixel is read."""

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """The file that shows an object; Unusable if it cannot be used, or the object is not in it."""

    def num_objects(self, picture: AnnotatedPicture) -> int | None:
        """How many objects a picture has, with a box or without; None where the source does not tell."""

    def example(self, image_id: str, index: int) -> tuple[AnnotatedPicture, ObjectAnnotation] | None:
        """A picture and an object of it that the books name; None if that cannot be shown."""

    def meshes(self, category: str) -> list[int]:
        """The CAD models of a category that there are, by index."""

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """An object's mesh, to be drawn: all its vertices are used.

        None if the source has no meshes at all, MeshError if it lacks this one.
        """
