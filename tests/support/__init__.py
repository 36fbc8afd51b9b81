"""What tests have in common: raw trees and meshes by code, servers, a browser, and how commands are run."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
WITH_TORCH = {"USE_TORCH": "AUTO"}  # the environment of processes that train, see conftest.py
SHARED = PROJECT.parent / "shared" / "raw"  # the real sample, where there is one
