"""Raw trees, built folders and interpreters that several tests use; no test changes them."""

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets  # noqa: F401 - before the environment says that no other process needs torch
import filelock
import pytest
from support import PROJECT, SHARED, object_store

from processing.build.command import build
from processing.sample.command import write_sample

# Of processes that tests start: `datasets` imports torch, for seconds, where it streams; few of them train.
os.environ["USE_TORCH"] = "0"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The real sample is an extra: what it shows is tried with what `sample` draws, too, and faster."""
    for item in items:
        if not {"real_zip", "real_folder", "built_real"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def real_zip() -> Path:
    """A small zip of real pictures and meshes in the layout of the release."""
    path = SHARED / "imagenet3d_v1_sample.zip"
    if not path.is_file():
        pytest.skip("the real sample is not beside this project (../shared/raw)")
    return path


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fills a folder of a name once, for all processes that run tests side by side."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def once(name: str, fill: Callable[[Path], object]) -> Path:
        folder, filled = shared / name, shared / f"{name}.filled"
        with filelock.FileLock(shared / f"{name}.lock"):
            if not filled.exists():
                shutil.rmtree(folder, ignore_errors=True)
                fill(folder)
                filled.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def real_folder(real_zip: Path, once: Once) -> Path:
    """The same, unpacked, with its top folder."""

    def unpack(folder: Path) -> None:
        with zipfile.ZipFile(real_zip) as archive:
            archive.extractall(folder)

    return once("real", unpack)


@pytest.fixture(scope="session")
def sample_folder(once: Once) -> Path:
    """A synthetic raw tree, with captions inside."""
    options = {"categories": 10, "images_per_category": 6, "empty_lists": True}
    return once("synthetic", lambda folder: write_sample(folder / "raw", **options)) / "raw"


@pytest.fixture(scope="session")
def built_real(real_zip: Path, once: Once) -> Path:
    """The real sample, built into several shards."""
    options = {"captions": str(SHARED), "workers": 1, "shard_size": "2MB"}
    made = once("of-real", lambda folder: build(str(real_zip), folder / "ImageNet3D", **options))
    return made / "ImageNet3D"


@pytest.fixture(scope="session")
def built_sample(sample_folder: Path, once: Once) -> Path:
    """The synthetic tree, built into several shards."""
    options = {"workers": 1, "shard_size": "200KB"}
    made = once("of-sample", lambda folder: build(str(sample_folder), folder / "ImageNet3D", **options))
    return made / "ImageNet3D"


@pytest.fixture(scope="session")
def s3() -> Iterator[object_store.ObjectStore]:
    """An S3 server; tests take a bucket of their own."""
    with object_store.serve() as store:
        yield store


@pytest.fixture
def bucket(s3: object_store.ObjectStore) -> str:
    """A new bucket; nothing was counted yet and nothing fails."""
    return s3.bucket()


@pytest.fixture(scope="session")
def datasets3_python() -> Path:
    """The interpreter of an environment with datasets 3.6, which `make test` sets up."""
    given = os.environ.get("IMAGENET3D_DATASETS3_PYTHON")
    path = Path(given) if given else PROJECT / ".venv-datasets3" / "bin" / "python"
    if not path.is_file():
        pytest.skip("no environment with datasets 3.6; `make test` sets one up")
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium without a window: a `browser.Browser`."""
    from support.browser import Browser  # which skips where there is no selenium

    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.driver.quit()
