"""Environments for peers and older versions of `datasets`, whose pins clash with ours and with each other's.

Each is made once, under `benchmarks/.environments`. All have the same torch, the same Pillow that decodes,
and no build of torch for graphics cards, which would be several gigabytes.
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ENVIRONMENTS = Path(__file__).parent / ".environments"

TORCH = "torch==2.13.0"
PEERS = {
    "datasets 3.6.0": ["datasets==3.6.0", "pyarrow==21.0.0"],
    "datasets 4.4.2": ["datasets==4.4.2"],
    "mosaicml": ["mosaicml-streaming==0.13.0"],
    "litdata": ["litdata==0.2.76"],
}


def environment(peer: str, only_if_there: bool = False) -> Path | None:
    """The interpreter of a peer's environment, which is made if it is missing; None where that fails."""
    folder = ENVIRONMENTS / peer
    python = folder / "bin" / "python"
    wanted = "\n".join([TORCH, f"pillow=={version('pillow')}", *PEERS[peer]])
    ready = folder / "ready"
    if ready.exists() and ready.read_text("utf-8") == wanted:
        return python
    if only_if_there:
        return None
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        constraints = folder / "constraints.txt"
        constraints.write_text(wanted, "utf-8")
        install = (str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraints))
        _run(*install, TORCH)  # first, so that no peer brings another
        _run(*install, *wanted.splitlines())
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"{peer}: left out, its environment could not be made ({error})", file=sys.stderr)
        return None
    ready.write_text(wanted, "utf-8")
    return python


def has(package: str) -> bool:
    """Whether this environment has a package."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
