"""The dataset card: README.md of the built folder, which `datasets` and the Hub read as its configuration."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

import ImageNet3D
from ImageNet3D import (
    CATEGORIES,
    DEFAULT_CONFIG,
    DERIVED_DESCRIPTIONS,
    DESCRIPTIONS,
    KNOWN_CATEGORIES,
    PUBLISHED_CONFIGS,
    config_splits,
    known_only,
)
from processing.plan import shard_pattern
from processing.shards import ShardResult, write_whole

TEMPLATE = Path(__file__).parents[1] / "dataset_card" / "template.md"


@dataclass(frozen=True)
class SplitSize:
    """One split of a config: its rows, and bytes as Arrow tables and as files."""

    rows: int
    table_bytes: int
    file_bytes: int


def write_card(
    folder: Path, tables: Sequence[str], configs: Sequence[str], results: Iterable[ShardResult]
) -> None:
    """Write README.md.

    Args:
        tables: the configs that have files of their own.
        configs: the configs asked for; all that the tables allow where empty.
        results: of the shards.
    """
    asked = configs or PUBLISHED_CONFIGS
    wanted = [name for name in PUBLISHED_CONFIGS if table_of(name) in tables and name in asked]
    sizes = {name: split_sizes(name, list(results)) for name in wanted}
    sizes = {name: splits for name, splits in sizes.items() if splits}
    data = DatasetCardData(
        license="cc-by-nc-4.0",
        pretty_name="ImageNet3D",
        task_categories=["image-classification", "image-to-text", "image-feature-extraction"],
        tags=["pose-estimation", "3d"],
        language=["en"],
        configs=[_config_entry(name, splits) for name, splits in sizes.items()],
        dataset_info=[_info_entry(name, splits) for name, splits in sizes.items()],
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATE),
        sizes=sizes,
        descriptions={**DESCRIPTIONS, **DERIVED_DESCRIPTIONS},
        known=sorted(KNOWN_CATEGORIES),
        categories=CATEGORIES,
        citation=ImageNet3D.CITATION,
        version=ImageNet3D.__version__,
        repository=ImageNet3D.REPOSITORY,
    )
    write_whole(folder / "README.md", str(card).encode())


def table_of(config: str) -> str:
    """The config whose files a config shows: open_vocab_known and open_vocab_unknown are views of pose."""
    return "pose" if known_only(config) is not None else config


def split_sizes(config: str, results: Sequence[ShardResult]) -> dict[str, SplitSize]:
    """The sizes of a config's splits; one without rows is left out: loaders and the viewer refuse it."""
    sizes: dict[str, SplitSize] = {}
    for split in config_splits(config):
        files = [
            result.files[table_of(config)]
            for result in results
            if result.split == split
            and known_only(config) in (None, result.known)
            and table_of(config) in result.files
        ]
        if files:
            sizes[split] = SplitSize(
                sum(f.rows for f in files), sum(f.table_bytes for f in files), sum(f.size for f in files)
            )
    return sizes


def _config_entry(config: str, splits: dict[str, SplitSize]) -> dict[str, Any]:
    entry: dict[str, Any] = {"config_name": config}
    if config == DEFAULT_CONFIG:
        entry["default"] = True
    entry["data_files"] = [
        {"split": split, "path": f"{table_of(config)}/{shard_pattern(split, known_only(config))}"}
        for split in splits
    ]
    return entry


def _info_entry(config: str, splits: dict[str, SplitSize]) -> dict[str, Any]:
    """`dataset_info` of the card's YAML; `datasets` 3.6 needs it for columns that are lists."""
    return {
        "config_name": config,
        "features": _portable_yaml(ImageNet3D.config_features(config)._to_yaml_list()),
        "splits": [
            {"name": name, "num_bytes": size.table_bytes, "num_examples": size.rows}
            for name, size in splits.items()
        ],
        "download_size": sum(size.file_bytes for size in splits.values()),
        "dataset_size": sum(size.table_bytes for size in splits.values()),
    }


def _portable_yaml(features: Any) -> Any:
    """Lists of fixed length as `datasets` 3.6 wrote them, which the newest reads too.

    The order of the keys matters to both: the kind comes first.
    """
    if isinstance(features, list):
        return [_portable_yaml(item) for item in features]
    if not isinstance(features, dict):
        return features
    entry = {name: _portable_yaml(value) for name, value in features.items() if name != "length"}
    if "length" in features:
        entry["sequence"] = entry.pop("list", entry.get("sequence"))
        entry["length"] = features["length"]
    return entry
