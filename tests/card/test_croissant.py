"""The Croissant metadata, through the reference implementation of the format."""

import io
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

import ImageNet3D
from ImageNet3D import CATEGORIES, OBJECT_STATUS
from processing.built import CROISSANT
from processing.card.croissant import REPOSITORY_ID
from processing.configs import PUBLISHED_CONFIGS, config_features

pytestmark = pytest.mark.slow

mlcroissant = pytest.importorskip("mlcroissant")


@pytest.fixture(scope="module")
def described(built_sample: Path) -> Any:
    return mlcroissant.Dataset(built_sample / CROISSANT, mapping={REPOSITORY_ID: built_sample})


def test_is_valid_without_errors_or_warnings(built_sample: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = mlcroissant.Dataset(built_sample / CROISSANT)
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    assert not caplog.records


def test_says_which_version_of_the_format_it_follows(built_sample: Path) -> None:
    metadata = json.loads((built_sample / CROISSANT).read_text("utf-8"))
    assert metadata["conformsTo"] == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    assert metadata["version"] == ImageNet3D.__version__


def test_responsible_ai_fields_are_understood(described: Any) -> None:
    metadata = described.metadata
    assert "GPT-4v" in metadata.machine_annotation_tools[0]
    assert [date.strftime("%Y-%m") for date in metadata.data_collection_timeframe] == ["2023-09", "2024-05"]
    assert "review board" in metadata.data_annotation_protocol[0]
    assert any("3D object detection" in text for text in metadata.data_limitations)
    for name in ("data_biases", "data_use_cases", "personal_sensitive_information", "data_collection"):
        assert getattr(metadata, name), name
    assert metadata.data_release_maintenance_plan


def test_every_config_and_column_is_described(described: Any) -> None:
    sets = {record_set.name: record_set for record_set in described.metadata.record_sets}
    for config in PUBLISHED_CONFIGS:
        fields = {field.name: field for field in sets[config].fields}
        assert list(fields) == ["split", *config_features(config)]
        assert all(field.description for field in fields.values())


@pytest.mark.parametrize("config", PUBLISHED_CONFIGS)
def test_records_are_the_rows_of_the_shards(described: Any, built_sample: Path, config: str) -> None:
    sets = {file_set.id: file_set for file_set in described.metadata.file_sets}
    patterns = sets[f"files-of-{config}"].includes
    rows = []
    for path in sorted(path for pattern in patterns for path in built_sample.glob(pattern)):
        split = path.name.partition("-")[0]
        rows += [{"split": split, **row} for row in pq.read_table(path).to_pylist()]
    records = [plain(record, f"{config}/") for record in described.records(config)]
    keys = (("image_id", "object_index"), ("image_id",), ("category", "cad_index"), ("name",))
    key = next(key for key in keys if set(key) <= rows[0].keys())
    records, rows = (sorted(found, key=lambda r: [r[k] for k in key]) for found in (records, rows))
    assert len(records) == len(rows) > 0
    for record, row in zip(records, rows, strict=True):
        if "image" in row:
            picture = Image.open(io.BytesIO(row.pop("image")["bytes"]))
            assert record.pop("image").size == picture.size
        assert record == row


def test_records_filtered_by_split_are_those_of_the_split(described: Any, built_sample: Path) -> None:
    """As TFDS reads them; an unknown category among the known would leak into open-vocabulary training."""
    data = DatasetCard.load(built_sample / "README.md").data
    sizes = {
        info["config_name"]: {s["name"]: s["num_examples"] for s in info["splits"]}
        for info in data.dataset_info
    }
    assert set(sizes) == set(PUBLISHED_CONFIGS)
    for config, splits in sizes.items():
        names = [record[f"splits-of-{config}/name"] for record in described.records(f"splits-of-{config}")]
        assert [name.decode() if isinstance(name, bytes) else name for name in names] == list(splits)
        for split, count in splits.items() if config in ("open_vocab_known", "open_vocab_unknown") else ():
            # Anew each time: mlcroissant keeps what it narrowed down.
            narrowed = mlcroissant.Dataset(built_sample / CROISSANT, mapping={REPOSITORY_ID: built_sample})
            found = list(narrowed.records(config, filters={f"{config}/split": split}))
            assert len(found) == count, (config, split)
            assert {plain(record[f"{config}/split"], "") for record in found} == {split}
            assert {record[f"{config}/known"] for record in found} == {config == "open_vocab_known"}


def plain(value: Any, prefix: str) -> Any:
    """A record with the columns' own names, and text for bytes, but for those of a mesh."""
    if isinstance(value, dict):
        return {name.removeprefix(prefix): plain(item, f"{name}/") for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item, prefix) for item in value]
    return value.decode("utf-8") if isinstance(value, bytes) and value[:4] != b"glTF" else value


@pytest.mark.parametrize(
    ("record_set", "names"), [("category_names", CATEGORIES), ("object_status_names", OBJECT_STATUS)]
)
def test_ids_of_labels_have_names(described: Any, record_set: str, names: tuple[str, ...]) -> None:
    records = [plain(record, f"{record_set}/") for record in described.records(record_set)]
    assert {record["id"]: record["name"] for record in records} == dict(enumerate(names))
