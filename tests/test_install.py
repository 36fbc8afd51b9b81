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


def install(environment: Path, *what: str | Path) -> None:
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
    python = environment / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "install"]
    run([*command, *options, *what], environment)


@pytest.fixture(scope="module", params=["plain", "editable"])
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with this project, beside a distribution of the name that the authors' code has."""
    folder = tmp_path_factory.mktemp(request.param)
    environment = folder / "environment"
    run([sys.executable, "-m", "venv", "--without-pip", environment], folder)
    site = next(environment.glob("lib/python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    theirs = folder / "theirs"
    (theirs / "imagenet3d").mkdir(parents=True)
    (theirs / "imagenet3d" / "__init__.py").write_text("ours = False\n", "utf-8")
    (theirs / "pyproject.toml").write_text(AUTHORS, "utf-8")
    install(environment, *(["--editable", PROJECT] if request.param == "editable" else [PROJECT]))
    install(environment, theirs)
    return environment


@pytest.fixture(scope="module")
def elsewhere(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds folders of the names that the project's modules have."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("ImageNet3D", "processing", "dataset_card"):
        (folder / name).mkdir()
        (folder / name / "README.md").write_text("another's", "utf-8")
    run(
        [
            installed / "bin" / "imagenet3d",
            "sample",
            "raw",
            "--categories",
            "2",
            "--images-per-category",
            "2",
        ],
        folder,
    )
    return folder


def test_a_release_is_built_and_verified(installed: Path, elsewhere: Path) -> None:
    for words in (
        ["build", "raw", "built", "--workers", "2"],
        ["verify", "built"],
        ["preview", "raw", "page.html"],
    ):
        run([installed / "bin" / "imagenet3d", *words], elsewhere)
    assert (elsewhere / "built" / "README.md").is_file()


@pytest.mark.parametrize(
    "code",
    [
        "from ImageNet3D import ImageNet3D; ImageNet3D(config_name='pose', data_dir='raw')",
        "import ImageNet3D, imagenet3d; assert not imagenet3d.ours and ImageNet3D.CATEGORIES",
        "import processing.geometry, dataset_card; assert dataset_card.__file__",
    ],
)
def test_modules_are_imported_beside_folders_of_their_names(
    installed: Path, elsewhere: Path, code: str
) -> None:
    run([installed / "bin" / "python", "-c", code], elsewhere)


def test_the_module_runs_as_a_command_too(installed: Path, elsewhere: Path) -> None:
    assert "build" in run([installed / "bin" / "python", "-m", "processing", "--help"], elsewhere)


def test_both_distributions_stay(installed: Path, elsewhere: Path) -> None:
    code = (
        "from importlib.metadata import version; print(version('imagenet3d'), version('imagenet3d-datasets'))"
    )
    assert run([installed / "bin" / "python", "-c", code], elsewhere).split()[0] == "1"
