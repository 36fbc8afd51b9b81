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
def real_references(real_folder: Path, real_rows: Any) -> dict[tuple[str, str], Rows]:
    return references(real_folder / "imagenet3d_v1", SHARED, real_rows)


@pytest.fixture(scope="module")
def sample_references(sample_folder: Path, sample_rows: Any) -> dict[tuple[str, str], Rows]:
    return references(sample_folder, sample_folder / "captions", sample_rows)


def references(tree: Path, captions: Path, rows: Any) -> dict[tuple[str, str], Rows]:
    """Meshes and categories."""
    categories = reference_categories(tree, captions, rows)
    return {("cad", "train"): reference_meshes(tree), ("categories", "train"): categories}


@pytest.fixture(scope="module")
def sample_rows(sample_folder: Path) -> dict[tuple[str, str], Rows]:
    return upright(reference_rows(sample_folder, sample_folder / "captions"), sample_folder)


def test_references_are_not_empty(real_rows: Any, sample_rows: Any) -> None:
    for tables in (real_rows, sample_rows):
        assert {config for config, _ in tables} == set(CONFIGS)
        assert {split for _, split in tables} == {"train", "validation"}
        assert ("open_vocab_unknown", "train") not in tables


def test_builder_reads_the_zip(real_zip: Path, real_rows: Any, tmp_path: Path) -> None:
    check_way("builder", str(real_zip), real_rows, tmp_path, captions=SHARED)


def test_builder_reads_the_folder(real_folder: Path, real_rows: Any, tmp_path: Path) -> None:
    check_way("builder", str(real_folder), real_rows, tmp_path, captions=SHARED)


def test_builder_reads_the_synthetic_tree(sample_folder: Path, sample_rows: Any, tmp_path: Path) -> None:
    check_way("builder", str(sample_folder), sample_rows, tmp_path)


def test_built_shards_of_the_real_sample(built_real: Path, real_rows: Any, tmp_path: Path) -> None:
    check_way("load_dataset", str(built_real), real_rows, tmp_path)


def test_built_shards_of_the_synthetic_tree(built_sample: Path, sample_rows: Any, tmp_path: Path) -> None:
    check_way("load_dataset", str(built_sample), sample_rows, tmp_path)


def test_hub(built_real: Path, real_rows: Any, tmp_path: Path) -> None:
    with serve(built_real) as hub:
        check_way(
            "load_dataset", "ccvl/ImageNet3D", real_rows, tmp_path, env=hub.environment(tmp_path / "hub")
        )


def test_hub_with_datasets_3(
    built_real: Path, real_rows: Any, tmp_path: Path, datasets3_python: Path
) -> None:
    with serve(built_real) as hub:
        env = hub.environment(tmp_path / "hub")
        check_way("load_dataset", "ccvl/ImageNet3D", real_rows, tmp_path, python=datasets3_python, env=env)


def test_built_shards_with_datasets_3(
    built_real: Path, real_rows: Any, tmp_path: Path, datasets3_python: Path
) -> None:
    check_way("load_dataset", str(built_real), real_rows, tmp_path, python=datasets3_python)


def test_synthetic_shards_with_datasets_3(
    built_sample: Path, sample_rows: Any, tmp_path: Path, datasets3_python: Path
) -> None:
    check_way("load_dataset", str(built_sample), sample_rows, tmp_path, python=datasets3_python)


REFERENCES = ("cad", "categories")


def test_meshes_and_categories_of_the_hub(built_real: Path, real_references: Any, tmp_path: Path) -> None:
    with serve(built_real) as hub:
        env = hub.environment(tmp_path / "hub")
        check_way("load_dataset", "ccvl/ImageNet3D", real_references, tmp_path, env=env, configs=REFERENCES)


def test_meshes_and_categories_of_the_hub_with_datasets_3(
    built_real: Path, real_references: Any, tmp_path: Path, datasets3_python: Path
) -> None:
    options = {"python": datasets3_python, "configs": REFERENCES}
    with serve(built_real) as hub:
        env = hub.environment(tmp_path / "hub")
        check_way("load_dataset", "ccvl/ImageNet3D", real_references, tmp_path, env=env, **options)


def test_meshes_and_categories_of_the_synthetic_tree(
    built_sample: Path, sample_references: Any, tmp_path: Path
) -> None:
    check_way("load_dataset", str(built_sample), sample_references, tmp_path, configs=REFERENCES)


def test_meshes_and_categories_of_the_synthetic_tree_with_datasets_3(
    built_sample: Path, sample_references: Any, tmp_path: Path, datasets3_python: Path
) -> None:
    options = {"python": datasets3_python, "configs": REFERENCES}
    check_way("load_dataset", str(built_sample), sample_references, tmp_path, **options)


def test_script_reads_the_zip(real_zip: Path, real_rows: Any, tmp_path: Path, datasets3_python: Path) -> None:
    check_way("script", str(real_zip), real_rows, tmp_path, python=datasets3_python, captions=SHARED)


def test_script_reads_the_folder(
    real_folder: Path, real_rows: Any, tmp_path: Path, datasets3_python: Path
) -> None:
    check_way("script", str(real_folder), real_rows, tmp_path, python=datasets3_python, captions=SHARED)


def test_script_reads_the_synthetic_tree(
    sample_folder: Path, sample_rows: Any, tmp_path: Path, datasets3_python: Path
) -> None:
    check_way("script", str(sample_folder), sample_rows, tmp_path, python=datasets3_python)
