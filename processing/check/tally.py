"""Counts over the annotation files of a raw release, read and checked by the reader's own functions.

A task counts some files, in any process; counts are added up. No picture is opened and no value of an object
is kept, but for what `values` tells.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import ImageNet3D
from ImageNet3D import ANGLES, Annotation, Entry, Finding, ObjectAnnotation, Release, Unusable
from processing.check.values import Profile

BATCH = 500  # pictures a task
_GROUP = 50  # that are fetched at once

# The ranges of an angle, in radians, each with its upper bound.
RANGES = (
    ("below -4π", -4 * math.pi),
    ("-4π to -π", -math.pi),
    ("-π to 0", 0.0),
    ("0 to π", math.pi),
    ("π to 2π", 2 * math.pi),
    ("2π to 4π", 4 * math.pi),
    ("above 4π", math.inf),
)
BOXES = ("inside", "leaves the picture", "outside", "size of the picture unknown")


def range_of(angle: float) -> str:
    """The name of an angle's range; a bound above 0 belongs to the range below it, others to that above."""
    return next(name for name, bound in RANGES if angle < bound or (angle == bound and bound > 0))


@dataclass
class Group:
    """The pictures and objects of one split and category.

    Attributes:
        pictures: that a list or a file's name tells of.
        objects, posed: that their annotations have.
        rows: posed objects of listed pictures that are there: rows of pose, if the pictures are sound.
    """

    pictures: int = 0
    objects: int = 0
    posed: int = 0
    rows: int = 0

    def merge(self, other: Group) -> None:
        """Add another."""
        self.pictures += other.pictures
        self.objects += other.objects
        self.posed += other.posed
        self.rows += other.rows


@dataclass
class Reasons:
    """How often something was found, and where it was first."""

    count: int = 0
    example: str = ""

    def merge(self, other: Reasons) -> None:
        """Add another."""
        self.count += other.count
        self.example = min(filter(None, (self.example, other.example)), default="")


@dataclass
class Tally:
    """What some annotation files hold.

    Attributes:
        keys: of all objects, as they stand in the files.
        groups: (split, category) -> what there is; "" is the split of what no list names.
        objects_a_picture: number of objects -> pictures.
        statuses, densities: as the columns have them -> objects; "none" stands for null.
        boxes: one of `BOXES` -> objects.
        angles: name -> range of `RANGES` -> posed objects.
        far_angles: category -> posed objects with an angle beyond 4π.
        not_placed: posed objects whose distance is not above 0, or absent.
        meshes: (category, cad_index) -> objects that refer to it.
        reasons: code of `ImageNet3D.REASONS` -> what was found.
    """

    keys: Profile = field(default_factory=Profile)
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)
    objects_a_picture: Counter[int] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    densities: Counter[str] = field(default_factory=Counter)
    boxes: Counter[str] = field(default_factory=Counter)
    angles: dict[str, Counter[str]] = field(default_factory=lambda: {name: Counter() for name in ANGLES})
    far_angles: Counter[str] = field(default_factory=Counter)
    not_placed: int = 0
    meshes: Counter[tuple[str, int]] = field(default_factory=Counter)
    reasons: dict[str, Reasons] = field(default_factory=dict)

    def note(self, findings: Iterable[Finding]) -> None:
        """Count what was found; the values stay out, for they may be anybody's words."""
        for finding in findings:
            where = (
                finding.file if finding.object_index is None else f"{finding.file} [{finding.object_index}]"
            )
            self.reasons.setdefault(finding.reason, Reasons()).merge(Reasons(1, where))

    def merge(self, other: Tally) -> None:
        """Add what was counted elsewhere."""
        self.keys.merge(other.keys)
        for key, group in other.groups.items():
            self.groups.setdefault(key, Group()).merge(group)
        for code, found in other.reasons.items():
            self.reasons.setdefault(code, Reasons()).merge(found)
        for name in ANGLES:
            self.angles[name].update(other.angles[name])
        for counter in ("objects_a_picture", "statuses", "densities", "boxes", "far_angles", "meshes"):
            getattr(self, counter).update(getattr(other, counter))
        self.not_placed += other.not_placed


def tally_annotations(release: Release, entries: Sequence[Entry]) -> Tally:
    """Read and count the annotation files of some pictures."""
    tally = Tally()
    groups = (entries[start : start + _GROUP] for start in range(0, len(entries), _GROUP))
    for group in groups:
        near = release.fetched(group, pictures=False)
        for entry in group:
            _add_picture(tally, near, entry)
    return tally


def _add_picture(tally: Tally, release: Release, entry: Entry) -> None:
    findings: list[Finding] = []
    counted = tally.groups.setdefault((entry.split, entry.category), Group())
    counted.pictures += 1
    try:
        raw = ImageNet3D.read_raw_objects(release, entry)
    except Unusable as error:
        if entry.reason != "picture_unlisted" or error.reason != "annotation_missing":
            tally.note([Finding(error.reason, entry.annotation_file)])
        return
    for item in raw:
        if type(item) is dict:
            tally.keys.add(item)
    annotation = ImageNet3D.check_objects(release, entry, raw, findings)
    counted.objects += annotation.num_objects or 0
    posed = sum(item.posed for item in annotation.objects)
    counted.posed += posed
    counted.rows += posed if entry.size and not entry.reason else 0
    tally.objects_a_picture[annotation.num_objects or 0] += 1
    tally.boxes.update(_boxes(entry, annotation, findings))
    for item in annotation.objects:
        _add_object(tally, entry.category, item)
    tally.note(findings)


def _boxes(entry: Entry, annotation: Annotation, findings: list[Finding]) -> Counter[str]:
    """Where the boxes are, by the size of the picture that is annotated."""
    if annotation.width is None or annotation.height is None:
        return Counter({BOXES[3]: len(annotation.objects)})
    found: list[Finding] = []
    ImageNet3D.note_boxes(entry, annotation, annotation.width, annotation.height, found)
    findings += found
    codes = Counter(finding.reason for finding in found)
    leaves, outside = codes["bbox_leaves_picture"], codes["bbox_outside"]
    inside = len(annotation.objects) - leaves - outside
    return Counter({BOXES[0]: inside, BOXES[1]: leaves, BOXES[2]: outside})


def _add_object(tally: Tally, category: str, item: ObjectAnnotation) -> None:
    tally.statuses[item.object_status or "none"] += 1
    tally.densities[{True: "dense", False: "not dense", None: "none"}[item.dense]] += 1
    if item.cad_index is not None:
        tally.meshes[category, item.cad_index] += 1
    if not item.posed:
        return
    angles = {name: getattr(item, name) for name in ANGLES}
    for name, angle in angles.items():
        tally.angles[name][range_of(angle)] += 1
    tally.far_angles[category] += any(abs(angle) > 4 * math.pi for angle in angles.values())
    tally.not_placed += item.distance is None or item.distance <= 0
