"""The books of a preview page: what was found odd in a release, what became of it, and where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ImageNet3D import LEFT_OUT, NO_POSE, REASONS, Finding
from processing.accounts import CROP_RULES

EXAMPLES = 3  # that are given of each reason
NO_CROP = "no crop"  # the decision of a rule of object_centric


class Example(NamedTuple):
    """One finding of the books.

    Attributes:
        text: file, object and value.
        image_id: of the object, or None where something else is meant.
        object_index: of the object.
    """

    text: str
    image_id: str | None = None
    object_index: int | None = None


@dataclass
class Oddity:
    """One line of the books.

    Attributes:
        rule: what was found, in words.
        decision: what was done about it.
        count: how often.
        examples: the first few.
    """

    rule: str
    decision: str
    count: int = 0
    examples: list[Example] = field(default_factory=list)


class Oddities:
    """What was found odd, and what became of it, by reason."""

    def __init__(self) -> None:
        self._reasons: dict[tuple[str, str], Oddity] = {}  # by code and decision

    def add(self, finding: Finding) -> None:
        """Enter a finding."""
        place = "" if finding.object_index is None else f", object {finding.object_index}"
        value = f": {finding.value}" if finding.value else ""
        match = re.fullmatch(r"annotations/([^/]+/[^/]+)\.npz", finding.file)
        image_id = match[1] if match and finding.object_index is not None else None
        known = REASONS[finding.reason]
        example = Example(f"{image_id or finding.file}{place}{value}", image_id, finding.object_index)
        self._count(finding.reason, known.rule, known.decision, example)

    def add_rule(self, code: str, image_id: str, index: int) -> None:
        """Enter an object without a crop, for a code of `CROP_RULES`."""
        example = Example(f"{image_id}, object {index}", image_id, index)
        self._count(code, CROP_RULES[code], NO_CROP, example)

    def add_rule_counts(self, counts: Mapping[str, int]) -> None:
        """Enter how many objects have no crop, by code; other codes than those of `CROP_RULES` are left."""
        for code, count in counts.items():
            if code in CROP_RULES:
                self._count(code, CROP_RULES[code], NO_CROP, None, count)

    def _count(self, code: str, rule: str, decision: str, example: Example | None, count: int = 1) -> None:
        reason = self._reasons.setdefault((code, decision), Oddity(rule, decision))
        reason.count += count
        if example and len(reason.examples) < EXAMPLES:
            reason.examples.append(example)

    def reasons(self) -> list[Oddity]:
        """What was left out first, and within that the most frequent."""
        ranks = {decision: rank for rank, decision in enumerate((LEFT_OUT, NO_POSE, NO_CROP))}
        return sorted(
            self._reasons.values(), key=lambda r: (ranks.get(r.decision, len(ranks)), -r.count, r.rule)
        )
