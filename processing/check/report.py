"""What `check` tells: as text for people, who may paste it into a report, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import PurePath
from typing import Any

from tabulate import tabulate

from ImageNet3D import ANGLES, CATEGORIES, OBJECT_STATUS, REASONS, SPLITS, Survey, __version__, shown
from processing.check.assumptions import Assumption, assumptions, wrapping
from processing.check.tally import BOXES, RANGES, Group, Tally

_KINDS_SHOWN = 3  # of a key
_WORDS_SHOWN = 12
_PICTURES_SHOWN = 10  # numbers of objects a picture


@dataclass(frozen=True)
class Check:
    """What a raw release contains.

    Attributes:
        raw: where it is; of it only the last part is told, for the rest may name a person.
        survey: its names and lists.
        tally: its annotations, and all that was found.
        assumptions: held against it.
    """

    raw: str
    survey: Survey
    tally: Tally
    assumptions: list[Assumption] = field(default_factory=list)

    @classmethod
    def of(cls, raw: str, survey: Survey, tally: Tally) -> Check:
        """With all assumptions held against it."""
        return cls(raw, survey, tally, assumptions(survey, tally))

    @property
    def differing(self) -> list[Assumption]:
        """The assumptions that do not hold."""
        return [found for found in self.assumptions if not found.holds]

    # ----------------------------------------------------------------------------------------------------
    # For machines
    # ----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        tally, survey = self.tally, self.survey
        return {
            "code_version": __version__,
            "assumptions": [asdict(found) for found in self.assumptions],
            "totals": self._totals(),
            "keys": {key: found.to_dict() for key, found in sorted(tally.keys.items())},
            "angles": {
                name: {
                    "ranges": {k: tally.angles[name][k] for k, _ in RANGES},
                    "wrapping": wrapping(tally.angles[name]),
                }
                for name in ANGLES
            },
            "statuses": dict(tally.statuses),
            "densities": dict(tally.densities),
            "boxes": {name: tally.boxes[name] for name in BOXES},
            "objects_a_picture": {
                str(number): count for number, count in sorted(tally.objects_a_picture.items())
            },
            "splits": {split or "unlisted": asdict(self._group(split)) for split in (*SPLITS, "")},
            "categories": {name: self._category(name) for name in self._categories()},
            "captions": {
                "of_pictures": sum(entry.caption is not None for e in survey.entries.values() for entry in e),
                "of_categories": len(survey.release.category_captions),
            },
            "reasons": {
                code: {
                    "count": found.count,
                    "decision": REASONS[code].decision,
                    "example": shown(found.example),
                }
                for code, found in sorted(tally.reasons.items())
            },
        }

    def _totals(self) -> dict[str, int]:
        groups = self.tally.groups.values()
        return {
            "pictures": sum(group.pictures for group in groups),
            "objects": sum(group.objects for group in groups),
            "posed_objects": sum(group.posed for group in groups),
            "rows_of_pose": sum(group.rows for group in groups),
            "never_placed_in_depth": self.tally.not_placed,
            "meshes": len(self.survey.release.meshes),
            "meshes_never_referred_to": self._meshes_alone(),
        }

    def _group(self, split: str, category: str | None = None) -> Group:
        total = Group()
        for (its_split, its_category), group in self.tally.groups.items():
            if its_split == split and category in (None, its_category):
                total.merge(group)
        return total

    def _categories(self) -> list[str]:
        """Those that are there, the published ones first, in their order."""
        here = {category for _, category in self.tally.groups} | set(self._meshes())
        return [name for name in CATEGORIES if name in here] + sorted(here - set(CATEGORIES))

    def _meshes(self) -> Counter[str]:
        return Counter(path.split("/")[1] for path in self.survey.release.meshes)

    def _meshes_alone(self) -> int:
        paths = {f"CAD/{category}/{index:02d}.off" for category, index in self.tally.meshes}
        return len(self.survey.release.meshes.keys() - paths)

    def _category(self, name: str) -> dict[str, Any]:
        groups = {split or "unlisted": asdict(self._group(split, name)) for split in (*SPLITS, "")}
        return {**groups, "meshes": self._meshes()[name]}

    # ----------------------------------------------------------------------------------------------------
    # For people
    # ----------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return "\n\n".join(f"{title}\n{body}" for title, body in self._parts() if body)

    def _parts(self) -> Iterator[tuple[str, str]]:
        totals = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in self._totals().items())
        yield f"{PurePath(self.raw).name}, looked at with version {__version__}", totals
        yield (
            f"WHAT THIS CODE ASSUMES: {len(self.differing)} of {len(self.assumptions)} differ",
            self._assumed(),
        )
        yield "KEYS OF OBJECTS", self._keys_table()
        yield "ANGLES OF POSED OBJECTS", self._angles_table()
        yield "LABELS, BOXES, OBJECTS A PICTURE", self._counts_table()
        yield "FOUND", self._reasons_table()
        yield "CATEGORIES", self._categories_table()

    def _assumed(self) -> str:
        ordered = sorted(self.assumptions, key=lambda assumption: assumption.holds)
        rows = (("holds" if a.holds else "DIFFERS", a.words, a.found) for a in ordered)
        return _table(("", "assumed", "found"), rows)

    def _keys_table(self) -> str:
        objects = self._totals()["objects"]
        rows = []
        for key, found in sorted(self.tally.keys.items(), key=lambda item: (-item[1].objects, item[0])):
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in found.kinds.most_common(_KINDS_SHOWN))
            kinds += f", {len(found.kinds) - _KINDS_SHOWN} more" if len(found.kinds) > _KINDS_SHOWN else ""
            held = "" if found.low is None else f"{found.low:.6g} to {found.high:.6g}"
            held += f"; not finite {found.not_finite:,}" if found.not_finite else ""
            if found.words and key != "class":
                held = ", ".join(f"{w} {n:,}" for w, n in found.words.most_common(_WORDS_SHOWN))
            share = f"{found.objects / objects:.1%}" if objects else ""
            rows.append((key, found.objects, share, kinds, held))
        return _table(("key", "objects", "share", "types and shapes", "range or words"), rows)

    def _angles_table(self) -> str:
        rows = [
            (name, *(self.tally.angles[name][key] for key, _ in RANGES), wrapping(self.tally.angles[name]))
            for name in ANGLES
        ]
        return _table(("angle", *(name for name, _ in RANGES), ""), rows)

    def _counts_table(self) -> str:
        tally = self.tally
        pictures = sorted(tally.objects_a_picture.items())
        shown_pictures = [(f"{number} a picture", count) for number, count in pictures[:_PICTURES_SHOWN]]
        if rest := sum(count for _, count in pictures[_PICTURES_SHOWN:]):
            shown_pictures.append(("more", rest))
        lines = (
            ("status", [(name, tally.statuses[name]) for name in (*OBJECT_STATUS, "none")]),
            ("density", [(name, tally.densities[name]) for name in ("not dense", "dense", "none")]),
            ("boxes, by the annotated size", [(name, tally.boxes[name]) for name in BOXES]),
            ("pictures with so many objects", shown_pictures),
        )
        return _table(
            (), ((name, ", ".join(f"{word} {count:,}" for word, count in counts)) for name, counts in lines)
        )

    def _reasons_table(self) -> str:
        found = sorted(
            self.tally.reasons.items(), key=lambda item: (REASONS[item[0]].decision, -item[1].count)
        )
        rows = [
            (code, REASONS[code].decision, item.count, REASONS[code].rule, shown(item.example))
            for code, item in found
        ]
        return _table(("finding", "decision", "count", "rule", "such as"), rows)

    def _categories_table(self) -> str:
        meshes = self._meshes()
        rows = []
        for name in self._categories():
            groups = [self._group(split, name) for split in (*SPLITS, "")]
            rows.append(
                (
                    shown(name),
                    *(n for g in groups[:2] for n in (g.pictures, g.objects, g.posed)),
                    groups[2].pictures,
                    meshes[name],
                )
            )
        head = [f"{split} {what}" for split in ("train", "val") for what in ("pictures", "objects", "posed")]
        return _table(("category", *head, "unlisted", "meshes"), rows)


def _table(head: Iterable[str], rows: Iterable[tuple[Any, ...]]) -> str:
    return tabulate(list(rows), list(head), tablefmt="simple" if head else "plain", intfmt=",")
