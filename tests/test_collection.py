"""All tests are run: pytest leaves out folders by their names, and one of ours is called build."""

from fnmatch import fnmatch

import pytest
from support import PROJECT


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    folders = {path.parent.name for path in PROJECT.glob("tests/**/test_*.py")}
    assert "build" in folders
    for pattern in pytestconfig.getini("norecursedirs"):
        assert not any(fnmatch(name, pattern) for name in folders), pattern
