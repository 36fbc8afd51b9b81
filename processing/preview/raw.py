"""A raw release as the source of a preview page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

import ImageNet3D
from ImageNet3D import Entry, Finding, ObjectAnnotation, RawTree, Unusable
from processing.crop.pixels import crops
from processing.crop.place import crop_map, why_not_cropped
from processing.crop.rows import OPTIONS
from processing.drawing.mesh import Mesh, read_mesh, without_unused
from processing.preview.books import Oddities
from processing.preview.selection import AnnotatedPicture, Selection


class RawSource:
    """The raw release, a folder or a zip."""

    kind = "raw release"
    books_note = "Pictures are looked into where they are shown; a build reads them all."

    def __init__(self, path: str, selection: Selection) -> None:
        self._selection = selection
        self._survey = ImageNet3D.survey(RawTree(path))
        self._release = self._survey.release
        selection.check_categories(self._release.categories)
        self.category_captions = dict(self._release.category_captions)
        self.books = Oddities()
        for finding in self._survey.findings:
            if selection.has_file(finding.file, ""):
                self.books.add(finding)
        for entry in self._survey.left_out:
            if selection.has_file(entry.picture_file, entry.split):
                self.books.add(Finding(entry.reason, entry.picture_file))

    def pictures(self) -> Iterator[AnnotatedPicture]:
        """As of a Source."""
        entries = [
            entry
            for split in self._survey.entries.values()
            for entry in split
            if self._selection.has_picture(entry.category, entry.split)
        ]
        bar = tqdm(entries, desc="preview: annotations", unit=" pictures", disable=None)
        for number, entry in enumerate(bar):
            if number % ImageNet3D.CHUNK == 0:
                near = self._release.fetched(entries[number : number + ImageNet3D.CHUNK], pictures=False)
            findings: list[Finding] = []
            annotation = ImageNet3D.read_annotation(near, entry, findings)
            for finding in findings:
                self.books.add(finding)
            objects = tuple(item for item in annotation.objects if self._selection.has_object(item))
            width, height = annotation.width, annotation.height
            size = (width, height) if width and height else None
            picture = AnnotatedPicture(entry.image_id, entry.split, objects, size, entry.caption)
            if self._selection.config == "object_centric":
                picture = replace(picture, objects=tuple(self._cropped(picture)), size=OPTIONS.size)
            yield picture

    def _cropped(self, picture: AnnotatedPicture) -> Iterator[ObjectAnnotation]:
        for item in picture.objects:
            if not item.posed:
                continue
            if why := why_not_cropped(item, picture.size, OPTIONS):
                self.books.add_rule(why, picture.image_id, item.index)
            else:  # the map of a centred crop does not depend on the picture's size
                yield crop_map(item, 0, 0, OPTIONS).annotation(item)

    def read(self, picture: AnnotatedPicture, item: ObjectAnnotation) -> bytes:
        """As of a Source."""
        entry = Entry(picture.image_id, picture.split)
        if self._selection.config == "object_centric":
            return self._read_crop(entry, item.index)
        annotation = ImageNet3D.Annotation(1, (item,))
        return ImageNet3D.read_picture(self._release, entry, annotation, []).data

    def num_objects(self, picture: AnnotatedPicture) -> int | None:
        """As of a Source; None where the annotation cannot be read."""
        entry = Entry(picture.image_id, picture.split)
        return ImageNet3D.read_annotation(self._release, entry, []).num_objects

    def example(self, image_id: str, index: int) -> tuple[AnnotatedPicture, ObjectAnnotation] | None:
        """As of a Source; in object_centric there is nothing to show, for it has no crop."""
        if self._selection.config != "pose":
            return None
        annotation = ImageNet3D.read_annotation(self._release, Entry(image_id, ""), [])
        found = [item for item in annotation.objects if item.index == index]
        return (AnnotatedPicture(image_id, "", annotation.objects, None, None), found[0]) if found else None

    def _read_crop(self, entry: Entry, index: int) -> bytes:
        annotation = ImageNet3D.read_annotation(self._release, entry, [])
        one = ImageNet3D.Annotation(1, tuple(item for item in annotation.objects if item.index == index))
        lost: Counter[str] = Counter()
        for crop in crops(ImageNet3D.read_picture(self._release, entry, one, []), OPTIONS, [], lost):
            return crop.jpeg()
        raise Unusable(next(iter(lost), "picture_undecodable"))

    def meshes(self, category: str) -> list[int]:
        """As of a Source."""
        files = (Path(name) for name in self._release.meshes if name.startswith(f"CAD/{category}/"))
        return sorted(int(file.stem) for file in files)

    def mesh(self, category: str, cad_index: int) -> Mesh | None:
        """As of a Source."""
        return without_unused(read_mesh(self._release.tree, category, cad_index))
