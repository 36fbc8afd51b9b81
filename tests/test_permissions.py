"""A permission that is refused is told as that: building again would be refused, too."""

import os
import shutil
from pathlib import Path

import pytest
from support.processes import run_lines
from support.raw_tree import TOP, RawTreeWriter

from processing.build.command import build

pytestmark = pytest.mark.slow

# Root may read and write everything, unless it gives that up.
_GIVES_UP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
if _GIVES_UP and shutil.which("setpriv") is None:
    pytest.skip("root, and no setpriv to be less", allow_module_level=True)


def told(*lines: list[str | Path]) -> list[str]:
    """What commands say that fail for want of a permission."""
    ended = run_lines(*lines, prefix=_GIVES_UP)
    for code, said in ended:
        assert code in (1, 2), said
        assert "again" not in said
    return [said for _, said in ended]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return Path(RawTreeWriter().sound("bed", ("a", "b"), ("v", "w")).folder(tmp_path / "raw"))


def test_a_shard_that_may_not_be_read(raw: Path, tmp_path: Path) -> None:
    old, out = tmp_path / "old", tmp_path / "out"
    build(str(raw), old, configs=["pose"], workers=1)
    shutil.copytree(old, out)
    (shard,) = out.glob("pose/validation-*.parquet")
    shard.chmod(0)
    predictions = tmp_path / "predictions.csv"
    predictions.write_text("image_id,object_index,azimuth,elevation,theta\nbed/v,0,0,0,0\n")
    (tmp_path / "file").touch()
    for said in told(
        ["verify", out, "--workers", "1"],
        ["preview", out, tmp_path / "page.html"],
        ["compare", old, out],
        ["annotate", out, "--corrections", tmp_path / "file", "--report"],
        ["evaluate", predictions, "--dataset", out],
    ):
        assert "Permission denied" in said
        assert shard.name in said


def test_a_folder_that_may_not_be_read_or_written(raw: Path, tmp_path: Path) -> None:
    pictures, out = raw / TOP / "images" / "bed", tmp_path / "out"
    readable = shutil.copytree(raw, tmp_path / "readable")
    pictures.chmod(0)
    out.mkdir(mode=0o500)
    options = ["--config", "classification", "--workers", "1"]
    try:
        of_raw, of_out = told(
            ["build", raw, tmp_path / "other", *options], ["build", readable, out, *options]
        )
    finally:
        pictures.chmod(0o700)
        out.chmod(0o700)
    for closed, said in ((pictures, of_raw), (out, of_out)):
        assert "ermission denied" in said
        assert str(closed) in said
