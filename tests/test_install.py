"""Installed as the README says, editable and plain, every command works away from the clone.

The environments are new; what the project depends on is lent to them by the one that runs the tests.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import PROJECT

pytest.importorskip("hatchling", reason="a wheel is built with hatchling")

pytestmark = pytest.mark.slow  # new environments

# A project whose distribution is called as the authors' training code is.
AUTHORS = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "imagenet3d"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["imagenet3d"]
"""


def run(command: list[str | Path], folder: Path) -> str:
    """What a command prints, in a folder; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def installed(folder: Path, *options: str) -> Path:
    """An environment with this project, beside a distribution of the name that the authors' code has."""
    environment = folder / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", environment], folder)
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    theirs = folder / "theirs"
    (theirs / "imagenet3d").mkdir(parents=True)
    (theirs / "imagenet3d" / "__init__.py").write_text("ours = False\n", "utf-8")
    (theirs / "pyproject.toml").write_text(AUTHORS, "utf-8")
    python = environment / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install"]
    alone = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    run([*install, *alone, *options, PROJECT, theirs], environment)
    return environment / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder that holds folders of the names that the project's modules have."""
    for name in ("ImageNet3D", "processing", "dataset_card"):
        folder = tmp_path / "elsewhere" / name
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("another's", "utf-8")
    return tmp_path / "elsewhere"


# What stands beside folders of their names is imported, and both distributions are there.
IMPORTS = """
from importlib.metadata import version
import dataset_card, ImageNet3D, imagenet3d, processing.geometry
assert dataset_card.__file__ and not imagenet3d.ours
assert (version("imagenet3d"), version("imagenet3d-datasets")) == ("1", ImageNet3D.__version__)
ImageNet3D.ImageNet3D(config_name="pose", data_dir="raw")
print(ImageNet3D.__file__)
"""

# As `imagenet3d verify built; imagenet3d preview raw page.html`.
COMMANDS = """
from processing.__main__ import main
for words in (["verify", "built"], ["preview", "raw", "page.html"]):
    main(words, standalone_mode=False)
"""

FEW = ["--categories", "2", "--images-per-category", "2"]


def test_plainly(elsewhere: Path, tmp_path: Path) -> None:
    """Templates and style sheets are installed as well, and what is there needs no clone."""
    programs = installed(tmp_path)
    run([programs / "python", "-m", "processing", "sample", "raw", *FEW], elsewhere)
    run([programs / "imagenet3d", "build", "raw", "built", "--workers", "1"], elsewhere)
    assert (elsewhere / "built" / "README.md").is_file()
    imported = run([programs / "python", "-c", IMPORTS + COMMANDS], elsewhere).splitlines()[0]
    assert imported.startswith(str(programs.parent))
    assert (elsewhere / "page.html").is_file()


def test_editable(elsewhere: Path, tmp_path: Path) -> None:
    programs = installed(tmp_path, "--editable")
    run([programs / "imagenet3d", "sample", "raw", *FEW], elsewhere)
    imported = run([programs / "python", "-c", IMPORTS], elsewhere)
    assert imported.strip() == str(PROJECT / "ImageNet3D.py")
