"""The keys of objects in a raw release: how often each is there, of which types and shapes, in which range.

Text is told by its type alone, but for the words of labels and the names of categories: what else stands in a
release may name a person.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ImageNet3D import OBJECT_KEYS, shown

MOST_KEYS = 100  # a hostile release may have any number, and each may have as many types and words
MOST_KINDS = 20
MOST_WORDS = 400
OTHERS = "(others)"

WORDS = ("class", "object_status", "dense")  # whose text is told
_WORD = re.compile(r"[A-Za-z0-9_ -]{1,40}")
# Whose numbers are told: an annotator's may stand for a person, and so may what nobody knows.
_NUMBERS = OBJECT_KEYS - {"annotator"}
_LOOKED_AT = 8  # values of an array or list
_NESTED_AT_MOST = 2


@dataclass
class KeyProfile:
    """What one key holds, over all objects that have it.

    Attributes:
        objects: that have the key.
        kinds: type and shape -> objects, such as {"float": 3, "array () of float64": 2}.
        low, high: of finite numbers; None where there is none, or none is told.
        not_finite: numbers that are NaN or infinite.
        words: text -> objects, of `WORDS` alone.
    """

    objects: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    low: float | None = None
    high: float | None = None
    not_finite: int = 0
    words: Counter[str] = field(default_factory=Counter)

    def add(self, key: str, value: object) -> None:
        """Count one object's value."""
        self.objects += 1
        _count(self.kinds, kind_of(value))
        if key in WORDS:
            for text in _texts(value):
                _count(self.words, text if _WORD.fullmatch(text) else "(other text)", 1, MOST_WORDS)
        if key in _NUMBERS:
            for number in _numbers(value):
                self._widen(number)

    def _widen(self, number: float) -> None:
        if not math.isfinite(number):
            self.not_finite += 1
            return
        self.low = number if self.low is None or number < self.low else self.low
        self.high = number if self.high is None or number > self.high else self.high

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = {"kinds": dict(self.kinds), "words": dict(self.words)}
        return {**vars(self), **counts}

    def merge(self, other: KeyProfile) -> None:
        """Add what was counted elsewhere."""
        self.objects += other.objects
        for name, count in other.kinds.items():
            _count(self.kinds, name, count)
        for name, count in other.words.items():
            _count(self.words, name, count, MOST_WORDS)
        for bound in (other.low, other.high):
            if bound is not None:
                self._widen(bound)
        self.not_finite += other.not_finite


class Profile(dict[str, KeyProfile]):
    """Key, as `shown`, -> what it holds."""

    def add(self, item: Mapping[str, Any]) -> None:
        """Count the values of one object."""
        for key, value in item.items():
            (self.get(key) or self._of(shown(key))).add(key, value)

    def merge(self, other: Profile) -> None:
        """Add what was counted elsewhere."""
        for key, found in other.items():
            self._of(key).merge(found)

    def _of(self, key: str) -> KeyProfile:
        key = key if key in self or key in OBJECT_KEYS or len(self) < MOST_KEYS else OTHERS
        if key not in self:
            self[key] = KeyProfile()
        return self[key]


def _count(counter: Counter[str], name: str, count: int = 1, most: int = MOST_KINDS) -> None:
    counter[name if name in counter or len(counter) < most else OTHERS] += count


def kind_of(value: Any, depth: int = 0) -> str:
    """The type and shape of a raw value, in words: "float", "numpy uint16", "array (4,) of float64"."""
    if value is None:
        return "null"
    if isinstance(value, list | tuple):
        name = type(value).__name__
        if depth >= _NESTED_AT_MOST:
            return name
        inner = sorted({kind_of(part, depth + 1) for part in value[:_LOOKED_AT]})
        return f"{name} of {len(value)}" + (f" ({', '.join(inner)})" if inner else "")
    if hasattr(value, "shape"):  # numpy's, as the safe reader gives them
        name = _type_name(value.code)
        if value.is_scalar:
            return f"numpy {name}"
        return f"array ({', '.join(map(str, value.shape))}{',' * (len(value.shape) == 1)}) of {name}"
    return {"str": "text"}.get(type(value).__name__, type(value).__name__)


@lru_cache
def _type_name(code: str) -> str:
    """A numpy type's name, from its code in a pickle."""
    kind = code.lstrip("<>|=")
    if kind.startswith("O"):
        return "objects"
    if kind.startswith(("U", "S")):
        return "text" if kind[0] == "U" else "bytes"
    name = "float128" if kind == "f16" else np.dtype(kind).name
    return f"{name} (big-endian)" if code.startswith(">") else name


def _single_values(value: Any, depth: int = 0) -> Iterator[object]:
    """The first plain values in lists and arrays."""
    if hasattr(value, "shape"):
        value = value.items
    if not isinstance(value, list | tuple):
        yield value
    elif depth < _NESTED_AT_MOST:
        for part in value[:_LOOKED_AT]:
            yield from _single_values(part, depth + 1)


def _numbers(value: object) -> Iterator[float]:
    for single in _single_values(value):
        if type(single) is float or (type(single) is int and single.bit_length() < 1000):
            yield float(single)


def _texts(value: object) -> Iterator[str]:
    for single in _single_values(value):
        if isinstance(single, bytes):
            single = single.decode("ascii", "replace")
        if isinstance(single, str):
            yield single
