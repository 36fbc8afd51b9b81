"""The dataset card: README.md of the built folder, which `datasets` and the Hub read as its configuration."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

import dataset_card
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
from processing import built
from processing.built import CARD, REFERENCE_TABLES, shard_glob, table_of
from processing.card.columns import meaning
from processing.card.figures import Figure
from processing.ledger import ShardResult
from processing.runtime.store import Place, write_whole

TEMPLATE = Path(dataset_card.__file__).with_name("template.md")
DATASHEET = TEMPLATE.with_name("datasheet.md")

PAPER = "2406.09613"  # on arXiv
DOI = "10.57967/hf/2461"

# What a visitor accepts to get access; the Hub shows it as a form. Publishing sets whether it is asked for.
GATE = """\
The pictures of ImageNet3D belong to ImageNet, whose terms of access bind whoever uses them. By asking for \
access you confirm that you have read the terms at https://image-net.org/download.php and that you will:

1. use the pictures for non-commercial research and education only;
2. not pass them on, but to colleagues who have accepted the same terms;
3. answer for your own use of them: ImageNet, Princeton University, Stanford University and the makers of \
ImageNet3D give no warranty, and you hold them harmless from claims that arise from it;
4. stop using them if access is ended, which may be at any time.

If you work for a company, you agree on its behalf, too. The annotations are licensed under CC BY-NC 4.0."""
GATE_FIELDS = {"Name": "text", "Affiliation": "text"}

# The Hub's names for numbers of rows, each up to its limit.
_SIZE_CATEGORIES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


@dataclass(frozen=True)
class SplitSize:
    """One split of a config: its rows, and bytes as Arrow tables and as files."""

    rows: int
    table_bytes: int
    file_bytes: int


# Config -> split -> size.
Sizes = Mapping[str, Mapping[str, SplitSize]]


def config_sizes(tables: Sequence[str], configs: Sequence[str], results: Sequence[ShardResult]) -> Sizes:
    """The configs that the card lists, with the sizes of their splits.

    Args:
        tables: the configs that have files of their own.
        configs: the configs asked for; all that the tables allow where empty.
        results: of the shards.
    """
    asked = configs or PUBLISHED_CONFIGS
    wanted = [name for name in PUBLISHED_CONFIGS if table_of(name) in tables and name in asked]
    sizes = {name: split_sizes(name, results) for name in wanted}
    return {name: splits for name, splits in sizes.items() if splits}


def write_card(
    folder: Place, sizes: Sizes, figures: Sequence[Figure], categories: Sequence[str] = CATEGORIES
) -> None:
    """Write the datasheet and, last, README.md.

    Args:
        categories: the names of label ids.
    """
    card = DatasetCard.from_template(
        card_data(sizes, categories),
        template_path=str(TEMPLATE),
        sizes=sizes,
        descriptions={name: describe(name) for name in sizes},
        columns=_columns(config for config in sizes if config not in REFERENCE_TABLES),
        reference_columns={config: _columns([config]) for config in sizes if config in REFERENCE_TABLES},
        figures={figure.name: figure for figure in figures},
        known=sorted(KNOWN_CATEGORIES),
        citation=ImageNet3D.CITATION,
        version=ImageNet3D.__version__,
        repository=ImageNet3D.REPOSITORY,
        paper=PAPER,
        doi=DOI,
    )
    write_whole(folder / built.DATASHEET, DATASHEET.read_bytes())
    write_whole(folder / CARD, str(card).encode())


def card_data(sizes: Sizes, categories: Sequence[str] = CATEGORIES) -> DatasetCardData:
    """The card's YAML."""
    return DatasetCardData(
        license="cc-by-nc-4.0",
        pretty_name="ImageNet3D",
        language=["en"],
        annotations_creators=["expert-generated", "machine-generated"],
        language_creators=["machine-generated"],
        source_datasets=["extended|other-imagenet-21k"],
        size_categories=[size_category(sizes)],
        task_categories=["image-classification", "image-to-text", "image-feature-extraction"],
        tags=["pose-estimation", "3d", f"arxiv:{PAPER}"],
        extra_gated_prompt=GATE,
        extra_gated_fields=dict(GATE_FIELDS),
        configs=[_config_entry(name, splits) for name, splits in sizes.items()],
        dataset_info=[_info_entry(name, splits, categories) for name, splits in sizes.items()],
    )


def size_category(sizes: Sizes) -> str:
    """The Hub's name for how many rows pose has, or the largest config where pose is not built."""
    rows = {config: sum(size.rows for size in splits.values()) for config, splits in sizes.items()}
    count = rows.get(DEFAULT_CONFIG, max(rows.values(), default=0))
    return next((name for limit, name in _SIZE_CATEGORIES if count < limit), "10M<n<100M")


def describe(config: str) -> str:
    """What a row of a config is, in a sentence."""
    return {**DESCRIPTIONS, **DERIVED_DESCRIPTIONS}[config]


def _columns(configs: Iterable[str]) -> dict[str, str]:
    """What the columns of these configs mean, in their order."""
    return {name: meaning(config, name) for config in configs for name in ImageNet3D.config_features(config)}


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


def _config_entry(config: str, splits: Mapping[str, SplitSize]) -> dict[str, Any]:
    entry: dict[str, Any] = {"config_name": config}
    if config == DEFAULT_CONFIG:
        entry["default"] = True
    entry["data_files"] = [{"split": split, "path": shard_glob(config, split)} for split in splits]
    return entry


def _info_entry(config: str, splits: Mapping[str, SplitSize], categories: Sequence[str]) -> dict[str, Any]:
    """`dataset_info` of the card's YAML; `datasets` 3.6 needs it for columns that are lists."""
    return {
        "config_name": config,
        "features": _portable_yaml(ImageNet3D.config_features(config, categories)._to_yaml_list()),
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
