"""A permission that is refused is told as that: building again would be refused, too."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import PROJECT
from support.raw_tree import TOP, RawTreeWriter

pytestmark = pytest.mark.slow

# Root may read and write everything, unless it gives that up.
_GIVES_UP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
if _GIVES_UP and shutil.which("setpriv") is None:
    pytest.skip("root, and no setpriv to be less", allow_module_level=True)


def told(*words: str | Path) -> str:
    """What a command says that fails for want of a permission."""
    command = [*_GIVES_UP, sys.executable, "-m", "processing", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def closed(built_sample: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A built folder, and a shard of it that must not be read."""
    out = shutil.copytree(built_sample, tmp_path / "out")
    shard = sorted(out.glob("pose/validation-*.parquet"))[0]
    shard.chmod(0)
    return out, shard


@pytest.mark.parametrize("command", ["verify OUT --workers 1", "preview OUT PAGE", "compare OLD OUT",
                                     "annotate OUT --corrections FILE --report",
                                     "evaluate PREDICTIONS --dataset OUT"])  # fmt: skip
def test_a_shard_that_may_not_be_read(
    command: str, closed: tuple[Path, Path], built_sample: Path, tmp_path: Path
) -> None:
    out, shard = closed
    (tmp_path / "predictions.csv").write_text(
        "image_id,object_index,azimuth,elevation,theta\nbed/a,0,0,0,0\n"
    )
    places = {"OUT": out, "OLD": built_sample, "PAGE": tmp_path / "page.html", "FILE": tmp_path / "file",
              "PREDICTIONS": tmp_path / "predictions.csv"}  # fmt: skip
    said = told(*(places.get(word, word) for word in command.split()))
    assert "Permission denied" in said
    assert shard.name in said
    assert "again" not in said


@pytest.mark.parametrize("what", ["raw", "out"])
def test_a_folder_that_may_not_be_read_or_written(what: str, tmp_path: Path) -> None:
    raw = Path(RawTreeWriter().sound("bed", ("a", "b"), ("v", "w")).folder(tmp_path / "raw"))
    (tmp_path / "out").mkdir()
    closed = raw / TOP / "images" / "bed" if what == "raw" else tmp_path / "out"
    closed.chmod(0o500 if what == "out" else 0)
    try:
        said = told("build", raw, tmp_path / "out", "--config", "classification", "--workers", "1")
    finally:
        closed.chmod(0o700)
    assert "ermission denied" in said
    assert str(closed) in said
    assert "again" not in said
