"""The fingerprint of the code: what the bytes of shards and crops depend on besides input and options."""

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import ImageNet3D

# What is written about the data (card, figures), checks and pages change no shard.
_DECIDE_BYTES = (
    *("geometry.py", "configs.py", "built.py", "run.py", "ledger.py", "accounts.py"),
    *("build", "crop", "drawing", "runtime"),
)


def code_fingerprint() -> str:
    """SHA-256, hexadecimal, of the modules that decide what a shard or a crop holds."""
    digest = hashlib.sha256(Path(ImageNet3D.__file__).read_bytes())
    package = files("processing")
    for name in _DECIDE_BYTES:
        for module in _modules(package / name):
            digest.update(module.name.encode() + module.read_bytes())
    return digest.hexdigest()


def _modules(at: Traversable) -> list[Traversable]:
    """A module, or those of a folder in order."""
    if at.is_dir():
        return sorted((m for m in at.iterdir() if m.name.endswith(".py")), key=lambda m: m.name)
    return [at] if at.is_file() else []
