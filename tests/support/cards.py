"""Cards of builds that there are not, and how the code on them is run."""

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ImageNet3D
from ImageNet3D import SPLITS
from processing.card.description import Description, SplitSize
from processing.card.pages import render_pages
from processing.configs import PUBLISHED_CONFIGS, REFERENCE_TABLES, config_splits
from support import WITH_TORCH
from support.hub import serve


def sizes(rows: int = 100, splits: Sequence[str] = tuple(SPLITS)) -> dict[str, dict[str, SplitSize]]:
    """Of all configs, with the splits that each may have; meshes and categories are always in train."""
    found = {
        config: {
            split: SplitSize(rows, 1000, 1000)
            for split in config_splits(config)
            if split in splits or config in REFERENCE_TABLES
        }
        for config in PUBLISHED_CONFIGS
    }
    return {config: its_splits for config, its_splits in found.items() if its_splits}


def page(**told: Any) -> str:
    """The card of a build that there is not."""
    return render_pages(Description(**{"sizes": sizes(), "checksum": "0" * 64, **told}))["README.md"].decode()


# The card's code as it stands, each block for itself, in a process that ends at once: current pyarrow may
# hang or abort in one that has left a stream of Parquet early.
_RUN = """
import os, sys
for name in sys.argv[1:]:
    exec(compile(open(name, encoding="utf-8").read(), name, "exec"), {"__name__": "__main__"})
    print("end of", name, flush=True)
sys.stderr.flush()
os._exit(0)
"""


def run_blocks(python: str, built: Path, tmp_path: Path, blocks: list[str]) -> None:
    """Run the blocks, as a user of the Hub would."""
    assert blocks
    files = [tmp_path / f"block_{number}.py" for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block, "utf-8")
    version = f"v{ImageNet3D.__version__}"
    with serve(built, revisions={version: built}) as hub:
        done = subprocess.run(
            [python, "-c", _RUN, *map(str, files)],
            env=hub.environment(tmp_path / "cache") | WITH_TORCH,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=500,
        )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    printed = re.split(r"^end of .*\n", done.stdout, flags=re.MULTILINE)
    for block, said in zip(blocks, printed, strict=False):
        assert said or "print" not in block, block
