"""The README's code runs as it stands, one block after the other, and its links lead somewhere."""

import re
import shutil
import sys
from pathlib import Path

import pytest
from support import PROJECT
from support.cards import run_blocks

README = (PROJECT / "README.md").read_text("utf-8")


def test_code_runs(built_real: Path, real_zip: Path, tmp_path: Path) -> None:
    shutil.copy(real_zip, tmp_path / "imagenet3d_v1.zip")
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    run_blocks(sys.executable, built_real, tmp_path, blocks)


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(f"docs/{path.name}" for path in PROJECT.glob("docs/*.md"))]
)
def test_links_within_the_project_lead_to_files_and_headings(page: str) -> None:
    text = (PROJECT / page).read_text("utf-8")
    for link in (link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link):
        name, _, heading = link.partition("#")
        path = (PROJECT / page).parent / name if name else PROJECT / page
        assert path.exists(), link
        if heading:
            headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w -]", "", line).lower().replace(" ", "-") for line in headings]


def test_commands_are_those_that_exist() -> None:
    from processing.__main__ import main

    listed = re.findall(r"^\| `(\w+) [A-Z_]+", README, re.MULTILINE)
    assert sorted(listed) == sorted(main.commands)
