"""The page from the zip to a line on a leaderboard runs as it stands; what it says is what the code has."""

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from support import PROJECT

from processing.__main__ import main
from processing.evaluate.leaderboard import TASKS
from processing.evaluate.predictions import FORMS

pytestmark = pytest.mark.slow

PAGE = (PROJECT / "docs/benchmark.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The page's blocks of code, without what they are indented by in a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_from_the_dataset_to_an_entry(
    built_sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "ccvl").mkdir()
    (tmp_path / "ccvl/ImageNet3D").symlink_to(built_sample)
    (tmp_path / "OUT").symlink_to(built_sample)
    for block in blocks("python"):
        exec(block, {})
    commands = [shlex.split(block) for block in blocks("bash")]
    ours = [arguments for name, *arguments in commands if name == "imagenet3d"]
    assert len(ours) == 2
    for arguments in ours:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
    figures = json.loads((tmp_path / "figures.json").read_text("utf-8"))
    entries = yaml.safe_load((tmp_path / "imagenet3d.yaml").read_text("utf-8"))
    assert entries[0]["value"] == pytest.approx(figures["overall"]["accuracy"]["π/6"], abs=1e-6)
    assert (tmp_path / "accuracy.svg").exists()


def test_the_tasks_are_those_of_the_dataset_s_side() -> None:
    content = yaml.safe_load((PROJECT / "dataset_card/eval.yaml").read_text("utf-8"))
    listed = re.findall(r"`(\w+_pi_\d+)`", PAGE)
    assert listed == [task["id"] for task in content["tasks"]]
    assert all(task["config"] in TASKS for task in content["tasks"])


def test_every_form_of_a_pose_is_on_the_page() -> None:
    for form in FORMS:
        assert all(f"`{name}`" in PAGE for name in (form[0], form[-1])), form
