"""What tests have in common: raw trees and meshes by code, servers, a browser, and how commands are run."""

from pathlib import Path

PROJECT = Path(__file__).parents[2]
SHARED = PROJECT.parent / "shared" / "raw"  # the real sample, where there is one
