"""What this code assumes of the raw release, each held against what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ImageNet3D import ANGLES, CATEGORIES, KEPT, OBJECT_KEYS, POSE_FIELDS, REASONS, Survey
from processing.check.tally import Tally
from processing.check.values import KeyProfile

# What every object should have; `principal`, `focal`, `annotator` and `ignore` are in some files only.
EXPECTED_KEYS = (*POSE_FIELDS, "bbox", "class", "height", "width", "cad_index", "object_status", "dense")
DEGREES_FROM = 0.05  # of the posed objects of a category: less may be slips of the tool's buttons
_PLAIN = ("bool", "float", "int", "numpy ", "text", "null")
_NAMED = 5  # of a longer list


@dataclass(frozen=True)
class Assumption:
    """One of them.

    Attributes:
        code: stable, for machines.
        words: what is assumed.
        holds: whether it is so.
        found: what is there instead, or what makes it plausible.
    """

    code: str
    words: str
    holds: bool
    found: str = ""


def assumptions(survey: Survey, tally: Tally) -> list[Assumption]:
    """All of them, the weightiest first."""
    return [*_of_angles(tally), *_of_keys(tally), *_of_objects(tally), *_of_files(survey, tally)]


def some(names: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _counted(tally: Tally, *codes: str) -> tuple[int, str]:
    """How often any of these reasons was found, and in words."""
    counts = {code: tally.reasons[code].count for code in codes if code in tally.reasons}
    return sum(counts.values()), ", ".join(f"{code} {count:,}" for code, count in counts.items())


def _none_of(tally: Tally, code: str, words: str, *reasons: str) -> Assumption:
    count, found = _counted(tally, *reasons)
    return Assumption(code, words, not count, found)


# --------------------------------------------------------------------------------------------------------
# Angles
# --------------------------------------------------------------------------------------------------------


def _of_angles(tally: Tally) -> Iterator[Assumption]:
    posed = {category: 0 for _, category in tally.groups}
    for (_, category), group in tally.groups.items():
        posed[category] += group.posed
    degrees = [
        f"{category} ({count:,} of {posed[category]:,} objects)"
        for category, count in sorted(tally.far_angles.items())
        if count > DEGREES_FROM * posed[category]
    ]
    yield Assumption(
        "angles_are_radians",
        "angles are radians: few are beyond 4π",
        not degrees,
        f"THEY LOOK LIKE DEGREES in {some(degrees)}" if degrees else "",
    )
    words = {name: wrapping(tally.angles[name]) for name in ANGLES}
    differing = [f"{name}: {said}" for name, said in words.items() if said not in ("", DOCUMENTED)]
    yield Assumption("angles_as_documented", f"angles are {DOCUMENTED}", not differing, "; ".join(differing))


DOCUMENTED = "within 0 to 2π, as documented"


def wrapping(ranges: Mapping[str, int]) -> str:
    """How the angles of one kind are wrapped, in words; "" where there are none."""
    found = {name for name, count in ranges.items() if count}
    if not found:
        return ""
    if found <= {"0 to π", "π to 2π"}:
        return DOCUMENTED
    if found <= {"-π to 0", "0 to π"}:
        return "within -π to π, as the annotation tool's sliders have them"
    if found <= {"-π to 0", "0 to π", "π to 2π"}:
        return "within -π to 2π: some wrapped in the one way, some in the other"
    total, far = sum(ranges.values()), ranges.get("above 4π", 0) + ranges.get("below -4π", 0)
    if far > DEGREES_FROM * total:
        return f"{far / total:.0%} are beyond 4π; are these degrees?"
    return "of any size: some went round more than once"


# --------------------------------------------------------------------------------------------------------
# Keys and their values
# --------------------------------------------------------------------------------------------------------


def _of_keys(tally: Tally) -> Iterator[Assumption]:
    objects = sum(group.objects for group in tally.groups.values())
    unknown = [
        f"{key} ({found.objects:,})" for key, found in sorted(tally.keys.items()) if key not in OBJECT_KEYS
    ]
    yield Assumption("keys_are_known", "no key is one that nobody knows", not unknown, some(unknown))
    absent = []
    for key in EXPECTED_KEYS:
        found = tally.keys.get(key)
        missing = objects - (found.objects - found.kinds["null"] if found else 0)
        if missing:
            absent.append(f"{key} ({missing:,})")
    yield Assumption(
        "keys_are_there",
        f"every object has {len(EXPECTED_KEYS)} keys",
        not absent,
        f"not there, or null, of {objects:,}: {some(absent)}" if absent else "",
    )
    odd = [
        f"{key} is {kind} ({count:,})"
        for key, found in sorted(tally.keys.items())
        for kind, count in found.kinds.most_common()
        if key in OBJECT_KEYS - {"bbox", "principal"} and not kind.startswith(_PLAIN)
    ]
    yield Assumption(
        "values_are_plain", "values are numbers and text, and not arrays of them", not odd, some(odd)
    )


def _of_objects(tally: Tally) -> Iterator[Assumption]:
    differ, found = _counted(tally, "class_differs")
    spelled = sorted(set(tally.keys.get("class", KeyProfile()).words) - set(CATEGORIES))
    found += f": {some(spelled)}" if spelled else ""
    yield Assumption("class_is_folder", "an object's class is its folder's name", not differ, found)
    yield _none_of(
        tally, "boxes_are_upright", "boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2", "bbox_inverted"
    )
    yield _none_of(tally, "boxes_are_on_the_picture", "no box is wholly outside its picture", "bbox_outside")
    yield _none_of(
        tally,
        "labels_are_known",
        "statuses and densities are the known words",
        "status_unknown",
        "density_unknown",
    )
    named = {
        "class_differs",
        "bbox_inverted",
        "bbox_outside",
        "status_unknown",
        "density_unknown",
        "pose_missing",
    }
    others = [
        code
        for code, reason in REASONS.items()
        if code not in named
        and reason.decision != KEPT
        and code in tally.reasons
        and code.startswith(_OF_OBJECTS)
    ]
    yield _none_of(
        tally, "objects_are_whole", "every object has a usable box, and a pose or none at all", *others
    )


_OF_OBJECTS = ("object_", "bbox_", "pose_")


# --------------------------------------------------------------------------------------------------------
# Files
# --------------------------------------------------------------------------------------------------------


def _of_files(survey: Survey, tally: Tally) -> Iterator[Assumption]:
    here = {category for _, category in tally.groups}
    lacking = sorted(set(CATEGORIES) - here)
    yield Assumption(
        "categories_are_there",
        f"all {len(CATEGORIES)} categories are there",
        not lacking,
        f"{len(lacking)} are not: {some(lacking)}" if lacking else "",
    )
    yield _none_of(tally, "categories_are_known", "no other category is there", "category_unknown")
    yield _none_of(
        tally,
        "lists_name_all",
        "every listed picture is there with its annotation, and every one there is listed once",
        *("picture_missing", "picture_empty", "picture_too_large", "annotation_missing", "picture_unlisted"),
        *("list_both_splits", "list_bad_id", "list_duplicate", "list_not_text"),
    )
    annotations = [
        code for code in REASONS if code.startswith("annotation_") and code != "annotation_missing"
    ]
    yield _none_of(
        tally, "annotations_are_readable", "every annotation can be read, and has objects", *annotations
    )
    yield _none_of(
        tally, "meshes_are_there", "every cad_index has its mesh", "cad_mesh_missing", "cad_index_invalid"
    )
    of_pictures = any(entry.caption is not None for split in survey.entries.values() for entry in split)
    yield Assumption(
        "pictures_have_captions",
        "there are captions of pictures",
        of_pictures,
        "" if of_pictures else "no caption of a picture was found",
    )
    of_categories = len(survey.release.category_captions)
    yield Assumption(
        "categories_have_captions",
        "there are captions of categories",
        bool(of_categories),
        "" if of_categories else "no caption of a category was found",
    )
