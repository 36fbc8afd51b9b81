"""A built folder with poses, and predictions of them that are right."""

from pathlib import Path
from typing import Any

import pytest
from support.scored import perfect, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built folder, whose name has characters of patterns in it."""
    return write_dataset(tmp_path_factory.mktemp("built [1]"))


@pytest.fixture
def rows(dataset: Path) -> list[dict[str, Any]]:
    """A row for each object of validation."""
    return perfect(dataset)
