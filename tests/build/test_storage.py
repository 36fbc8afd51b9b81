"""The estimate of what the Hub stores, and the promise that copies of a picture cost next to nothing."""

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest
from support import PROJECT, SHARED

from processing.build.command import build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def storage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("storage", PROJECT / "benchmarks" / "storage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestChunks:
    def test_are_the_file_again_and_within_the_limits(self, storage: ModuleType) -> None:
        for size in (0, 1, 10_000, 3_000_000, 9_000_000):
            data = random.Random(size).randbytes(size)
            found = list(storage.chunks(data))
            assert b"".join(found) == data
            assert all(storage.MIN_CHUNK <= len(chunk) <= storage.MAX_CHUNK for chunk in found[:-1])

    def test_mean_is_some_64_kib(self, storage: ModuleType) -> None:
        found = list(storage.chunks(random.Random(0).randbytes(30_000_000)))
        assert 45_000 < 30_000_000 / len(found) < 75_000

    def test_an_insertion_changes_few(self, storage: ModuleType) -> None:
        data = random.Random(1).randbytes(8_000_000)
        changed = data[:4_000_000] + b"one word" + data[4_000_000:]
        before, after = set(storage.chunks(data)), set(storage.chunks(changed))
        assert len(after - before) <= 3


@pytest.mark.parametrize("thin", [False, True])
def test_copies_of_pictures_cost_little(
    storage: ModuleType, real_zip: Path, tmp_path: Path, thin: bool
) -> None:
    """At most 1.03 for pose and 1.10 for all, also when a tenth is missing from pose and captions."""
    raw, captions = str(real_zip), str(SHARED)
    if thin:
        storage.thin_out(raw, captions, tmp_path / "raw")
        raw, captions = str(tmp_path / "raw"), None
    configs = ["pose", "classification", "captions"]
    build(raw, tmp_path / "out", configs=configs, captions=captions, workers=1)
    pose, together = storage.measure(tmp_path / "out")
    assert pose[0] == "pose"
    assert pose[4] <= 1.03
    assert together[4] <= 1.10
    assert together[1] > 2.5 * together[3], "the copies are there"
