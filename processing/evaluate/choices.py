"""What a user chooses besides the predictions: thresholds, groups of categories, symmetries."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import fsspec

import ImageNet3D
from ImageNet3D import shown

_GROUPS = 'give names with lists of categories, such as {"seats": ["chair", "sofa"]}'
_SYMMETRIES = 'give categories with a number, such as {"bottle": 0, "diningtable": 2}'
_MOST_TURNS = 360

Choice = Mapping[str, Any] | str | PathLike[str] | None


class ChoiceError(ValueError):
    """What was asked for does not exist or is not of its form: wrong usage."""

    exit_code = 2


def parse_thresholds(texts: Iterable[str]) -> dict[str, float]:
    """Return thresholds of the rotation error by their labels.

    Args:
        texts: each "pi/6", "π/6" or degrees, such as "22.5".

    Returns:
        Label -> radians; the labels are "π/6" and "22.5°".

    Raises:
        ChoiceError: a text is neither, or the threshold is not in (0, π].
    """
    thresholds = {}
    for text in texts:
        if fraction := re.fullmatch(r"(?:pi|π)(?:/(\d{1,6}))?", text.strip().lower()):
            divisor = int(fraction[1] or 1)
            label, value = f"π/{divisor}" if fraction[1] else "π", math.pi / divisor if divisor else math.inf
        else:
            try:
                degrees = float(text)
            except ValueError:
                degrees = math.nan
            # All digits: two thresholds are two columns.
            label, value = f"{repr(degrees).removesuffix('.0')}°", math.radians(degrees)
        if not 0 < value <= math.pi:
            raise ChoiceError(f"threshold {shown(text)}: give pi/6, or degrees above 0 and up to 180")
        thresholds[label] = value
    return thresholds


def read_groups(groups: Choice, categories: Sequence[str]) -> dict[str, list[str]]:
    """Return groups of categories, or an empty dict for None.

    Args:
        groups: name -> categories, or the path of a JSON file with that.
        categories: that exist.

    Raises:
        ChoiceError: they are not lists of categories that exist.
        FileNotFoundError: the file is not there.
    """
    where, given = _read(groups, "the groups", "an object of groups", _GROUPS)
    for name, members in given.items():
        if isinstance(members, str | Mapping) or not isinstance(members, Iterable):
            raise ChoiceError(
                f"{where}: group {_quoted(name)} is {_quoted(members)}, not a list of categories; {_GROUPS}"
            )
    found = {name: list(members) for name, members in given.items()}
    named = [(item, name) for name, items in found.items() for item in items]
    _check_categories(where, named, " in group ", categories)
    return found


def read_symmetries(symmetries: Choice, categories: Sequence[str]) -> dict[str, int]:
    """Return the symmetries of categories about their vertical, or an empty dict for None.

    Args:
        symmetries: category -> how many turns bring it back to itself, 0 for every turn; or the path of a
            JSON file with that.
        categories: that exist.

    Raises:
        ChoiceError: a category does not exist, or a number is not a whole one from 0 to 360.
        FileNotFoundError: the file is not there.
    """
    where, given = _read(symmetries, "the symmetries", "an object of symmetries", _SYMMETRIES)
    _check_categories(where, [(name, "") for name in given], "", categories)
    for name, fold in given.items():
        if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold <= _MOST_TURNS:
            raise ChoiceError(
                f"{where}: {name} has {_quoted(fold)}, not a whole number from 0 to {_MOST_TURNS}; "
                f"{_SYMMETRIES}"
            )
    return dict(given)


def _read(choice: Choice, called: str, what: str, remedy: str) -> tuple[str, Mapping[str, Any]]:
    """Return how errors call a choice, and its content."""
    if choice is None:
        return called, {}
    if isinstance(choice, Mapping):
        return called, choice
    where = fspath(choice)
    files, inner = fsspec.url_to_fs(where)
    with files.open(inner) as handle:
        try:
            content = json.load(handle)
        except (ValueError, RecursionError) as error:
            raise ChoiceError(f"{where}: not JSON ({ImageNet3D.shown_error(error)}); {remedy}") from error
    if not isinstance(content, Mapping):
        raise ChoiceError(f"{where}: {_quoted(content)} is not {what}; {remedy}")
    return where, content


def _check_categories(
    where: str, named: Sequence[tuple[Any, str]], inside: str, categories: Sequence[str]
) -> None:
    strange = [
        f"{_quoted(item)}{inside}{_quoted(name) if inside else ''} ({closest} is the closest that does)"
        for item, name in named
        for closest in difflib.get_close_matches(str(item), categories, n=1, cutoff=0)
        if item not in categories
    ]
    if strange:
        more = ", ..." if len(strange) > 5 else ""
        raise ChoiceError(f"{where}: categories that do not exist: {', '.join(strange[:5])}{more}")


def _quoted(value: object) -> str:
    """Return a value of a JSON file as it stands there, cut where it is long."""
    return shown(json.dumps(value, ensure_ascii=False, default=repr))
