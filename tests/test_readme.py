"""The README's code runs as it stands, one block after the other, and its links lead somewhere."""

import re
import shutil
import sys
from pathlib import Path

from conftest import PROJECT
from test_card import run_blocks

README = (PROJECT / "README.md").read_text("utf-8")


def test_code_runs(built_real: Path, real_zip: Path, tmp_path: Path) -> None:
    shutil.copy(real_zip, tmp_path / "imagenet3d_v1.zip")
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    run_blocks(sys.executable, built_real, tmp_path, blocks)


def test_links_within_the_project_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (PROJECT / link).exists()] == []


def test_commands_are_those_that_exist() -> None:
    from processing.__main__ import main

    listed = re.findall(r"^\| `(\w+) [A-Z_]+", README, re.MULTILINE)
    assert sorted(listed) == sorted(main.commands)
