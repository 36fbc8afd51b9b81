"""The loader of rows, run by another interpreter."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LOADER = Path(__file__).with_name("load_rows.py")


def run_jobs(
    python: Path | str, jobs: Sequence[Mapping[str, Any]], tmp_path: Path, env: Mapping[str, str]
) -> None:
    """Run the loader under an interpreter, with its own caches."""
    listed = tmp_path / "jobs.json"
    listed.write_text(json.dumps(list(jobs)), "utf-8")
    command = [str(python), str(LOADER), str(listed)]
    home = {"HF_HOME": str(tmp_path / "home"), "HF_MODULES_CACHE": str(tmp_path / "modules")}
    done = subprocess.run(command, env={**os.environ, **home, **env}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
