"""The same rows by every way in: raw zip, raw folder, shards, a Hub; old and new `datasets`; streaming."""

import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import SHARED
from support.hub import serve
from support.loading import run_jobs
from support.reference import Rows, reference_categories, reference_meshes, reference_rows

from ImageNet3D import CONFIGS
from processing.configs import REFERENCE_TABLES

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # trying bytes spoils EXIF blocks


def check_way(
    way: str,
    path: str,
    expected: Mapping[tuple[str, str], Rows],
    tmp_path: Path,
    *,
    python: Path | str = sys.executable,
    captions: Path | None = None,
    env: Mapping[str, str] | None = None,
    streaming: Sequence[bool] = (False, True),
    configs: Sequence[str] = CONFIGS,
) -> None:
    """Load every config in one way and compare all rows with the reference, to the last bit."""
    jobs = [
        {
            "way": way,
            "path": path,
            "config": config,
            "streaming": stream,
            "captions": captions and str(captions),
            "cache": str(tmp_path / "cache"),
            "out": str(tmp_path / f"{config}-{stream}.json"),
        }
        for config in configs
        for stream in streaming
    ]
    run_jobs(python, jobs, tmp_path, env or {})
    for job in jobs:
        splits = json.loads(Path(job["out"]).read_text("utf-8"))
        wanted = {split: rows for (config, split), rows in expected.items() if config == job["config"]}
        assert set(splits) == set(wanted), job
        for split, rows in splits.items():
            found = {key_of(row): row for row in rows}
            assert len(found) == len(rows), "a key twice"
            assert found.keys() == wanted[split].keys()
            for key, row in found.items():
                assert row == wanted[split][key], (job, key)


def key_of(row: Mapping[str, Any]) -> tuple[str, int]:
    """What keys a row in its config; a row of cad, which is keyed by its mesh, loses its thumbnail."""
    if "mesh" in row:
        row.pop("image")
        return row["category"], row["cad_index"]
    return row.get("image_id", row.get("name")), row.get("object_index", -1)


def upright(expected: dict[tuple[str, str], Rows], tree: Path) -> dict[tuple[str, str], Rows]:
    """The reference, with the checksums of the pictures whose orientation tag is to be set to 1.

    The tag is found here by trying: of all bytes of the file, the one whose change to 1 makes Pillow read 1.
    """
    checksums = {}
    for key in {key for rows in expected.values() for key, _ in rows}:
        data = (tree / "images" / f"{key}.JPEG").read_bytes()
        if (orientation := _orientation(data)) not in (None, 1):
            checksums[key] = _checksum_with_tag_set(data, orientation)
    assert checksums, "the tree has a turned picture"
    return {
        name: {key: {**row, "image": checksums.get(key[0], row["image"])} for key, row in rows.items()}
        for name, rows in expected.items()
    }


def _checksum_with_tag_set(data: bytes, orientation: int) -> str:
    candidates = []
    for at, byte in enumerate(data[:4096]):
        changed = data[:at] + b"\x01" + data[at + 1 :]
        if byte == orientation and _orientation(changed) == 1:
            candidates.append(hashlib.sha256(changed).hexdigest())
    assert len(candidates) == 1
    return candidates[0]


def _orientation(data: bytes) -> int | None:
    """The orientation Pillow reads; None if the tag is not there, or the bytes are no picture any more."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(0x0112)
    except (OSError, ValueError, SyntaxError):
        return None


@pytest.fixture(scope="module")
def real_rows(real_folder: Path) -> dict[tuple[str, str], Rows]:
    tree = real_folder / "imagenet3d_v1"
    return upright(reference_rows(tree, SHARED), tree)


@pytest.fixture(scope="module")
def sample_references(sample_folder: Path, sample_rows: Any) -> dict[tuple[str, str], Rows]:
    """Meshes and categories."""
    categories = reference_categories(sample_folder, sample_folder / "captions", sample_rows)
    return {("cad", "train"): reference_meshes(sample_folder), ("categories", "train"): categories}


@pytest.fixture(scope="module")
def sample_rows(sample_folder: Path) -> dict[tuple[str, str], Rows]:
    return upright(reference_rows(sample_folder, sample_folder / "captions"), sample_folder)


def test_references_are_not_empty(real_rows: Any, sample_rows: Any) -> None:
    for tables in (real_rows, sample_rows):
        assert {config for config, _ in tables} == set(CONFIGS)
        assert {split for _, split in tables} == {"train", "validation"}
        assert ("open_vocab_unknown", "train") not in tables


@pytest.fixture(params=["newest", "3.6"])
def python(request: pytest.FixtureRequest) -> Path | str:
    """Interpreters with the newest `datasets` and with 3.6."""
    return sys.executable if request.param == "newest" else request.getfixturevalue("datasets3_python")


@pytest.fixture
def from_raw(python: Path | str) -> str:
    """How that one reads the raw release: 3.6 runs the file as a script."""
    return "builder" if python == sys.executable else "script"


ALL = (*CONFIGS, *REFERENCE_TABLES)


def test_raw_zip(real_zip: Path, real_rows: Any, tmp_path: Path, python: Path | str, from_raw: str) -> None:
    check_way(from_raw, str(real_zip), real_rows, tmp_path, python=python, captions=SHARED)


def test_raw_folder(
    sample_folder: Path, sample_rows: Any, tmp_path: Path, python: Path | str, from_raw: str
) -> None:
    check_way(from_raw, str(sample_folder), sample_rows, tmp_path, python=python)


def test_shards(
    built_sample: Path, sample_rows: Any, sample_references: Any, tmp_path: Path, python: Path | str
) -> None:
    expected = sample_rows | sample_references
    check_way("load_dataset", str(built_sample), expected, tmp_path, python=python, configs=ALL)


@pytest.mark.slow
def test_hub(
    built_sample: Path, sample_rows: Any, sample_references: Any, tmp_path: Path, python: Path | str
) -> None:
    expected = sample_rows | sample_references
    streaming = (False, True) if python == sys.executable else (False,)
    with serve(built_sample) as hub:
        options = {"python": python, "configs": ALL, "env": hub.environment(tmp_path / "hub")}
        check_way("load_dataset", "ccvl/ImageNet3D", expected, tmp_path, streaming=streaming, **options)
