"""JSON that others may have touched, read strictly: what is not as it was written is told by its field."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from ImageNet3D import shown

Value = TypeVar("Value")

_REMEDY = "it is not as it was written: get it anew, or build anew"
_PLAIN_PATH = re.compile(r"(?!/)(?:(?:^|/)(?!\.{1,2}(?:/|$))[^/\\\x00-\x1f\x7f]+)+")


class DamagedError(ValueError):
    """A file is not as it was written; the message names it and the field."""


@dataclass(frozen=True)
class Field:
    """A value of a JSON file, which knows where it stands.

    Attributes:
        file: the name of the file, for messages.
        name: of the field, such as "files.README.md.size"; "" for all of the file.
        value: as `json` gives it.
    """

    file: str
    name: str
    value: Any

    @classmethod
    def parse(cls, file: str, data: bytes | str) -> Field:
        """All of a file.

        Raises:
            DamagedError: for what is no JSON, as are all methods' complaints.
        """
        try:
            return cls(file, "", json.loads(data, parse_constant=_refuse))
        except (ValueError, RecursionError) as error:
            raise DamagedError(
                f"{file}: is no JSON that can be read ({shown(str(error))}); {_REMEDY}"
            ) from error

    def refuse(self, expected: str) -> NoReturn:
        """Raise DamagedError."""
        where = f"{self.file}: {shown(self.name)}" if self.name else self.file
        raise DamagedError(f"{where} is {shown(self.value)}, not {expected}; {_REMEDY}")

    def __getitem__(self, key: str) -> Field:
        if not isinstance(self.value, dict):
            self.refuse("an object")
        if key not in self.value:
            self.refuse(f"an object with {key!r}")
        return Field(self.file, f"{self.name}.{key}" if self.name else key, self.value[key])

    def get(self, key: str) -> Field | None:
        """A field of this one; None where it is missing or null."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return None if self.value.get(key) is None else self[key]

    def items(self) -> Iterator[tuple[str, Field]]:
        """The fields of an object."""
        if not isinstance(self.value, dict):
            self.refuse("an object")
        return ((key, self[key]) for key in self.value)

    def map(self, read: Callable[[Field], Value]) -> dict[str, Value]:
        """The fields of an object, each read."""
        return {key: read(field) for key, field in self.items()}

    def elements(self) -> Iterator[Field]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            self.refuse("a list")
        return (Field(self.file, f"{self.name}[{i}]", value) for i, value in enumerate(self.value))

    def count(self) -> int:
        """A whole number from 0."""
        if type(self.value) is not int or not 0 <= self.value < 2**63:
            self.refuse("a count")
        return self.value

    def text(self, pattern: str = r"(?s).*", what: str = "text") -> str:
        """Text that a regular expression matches as a whole."""
        if not isinstance(self.value, str) or re.fullmatch(pattern, self.value) is None:
            self.refuse(what)
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            self.refuse("true or false")
        return self.value


def is_plain_path(path: str) -> bool:
    """Whether a path names a file inside a folder, on every system: no root, dots or control characters."""
    return _PLAIN_PATH.fullmatch(path) is not None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")
