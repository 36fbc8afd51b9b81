"""The dataset card: README.md of the built folder, which `datasets` and the Hub read as its configuration.

Its words are in dataset_card/: template.md, and card.yaml for what stands above it.
"""

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import DatasetCardData

import dataset_card
import ImageNet3D
from ImageNet3D import CATEGORIES, DEFAULT_CONFIG, KNOWN_CATEGORIES
from processing.built import shard_glob
from processing.card.columns import meaning
from processing.card.description import DOI, PAPER, Description, Sizes, SplitSize
from processing.configs import DESCRIPTIONS, REFERENCE_TABLES, config_features

SOURCES = Path(dataset_card.__file__).parent

# The Hub's names for numbers of rows, each up to its limit.
_SIZE_CATEGORIES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
)


def render_card(description: Description) -> bytes:
    """The content of README.md."""
    sizes = description.sizes
    errata = description.errata.newest if description.errata else ()
    # DatasetCard.from_template would read and write the YAML twice more, for half a second.
    template = jinja2.Template((SOURCES / "template.md").read_text("utf-8"))
    text = template.render(
        card_data=card_data(sizes, description.categories).to_yaml(),
        described=description,
        newest_errata=[{name: _cell(value) for name, value in asdict(item).items()} for item in errata],
        sizes=sizes,
        descriptions={name: DESCRIPTIONS[name] for name in sizes},
        columns=_columns(config for config in sizes if config not in REFERENCE_TABLES),
        reference_columns={config: _columns([config]) for config in sizes if config in REFERENCE_TABLES},
        figures={figure.name: figure for figure in description.figures},
        known=sorted(KNOWN_CATEGORIES),
        published=len(description.categories),
        citation=ImageNet3D.CITATION,
        home=ImageNet3D.REPOSITORY,
        archive=ImageNet3D.RAW_ARCHIVE,
        paper=PAPER,
        doi=DOI,
    )
    return text.encode()


def _cell(value: object) -> str:
    """A value that came from outside, as it reads in a cell of a table in Markdown."""
    text = " ".join(str(value).split())
    for sign in "\\`*_[]|":
        text = text.replace(sign, f"\\{sign}")
    return html.escape(text, quote=False)


def card_data(sizes: Sizes, categories: Sequence[str] = CATEGORIES) -> DatasetCardData:
    """The card's YAML.

    Args:
        categories: the names of label ids.
    """
    said = yaml.safe_load((SOURCES / "card.yaml").read_text("utf-8"))
    said["tags"].append(f"arxiv:{PAPER}")
    return DatasetCardData(
        **said,
        size_categories=[size_category(sizes)],
        configs=[_config_entry(name, splits) for name, splits in sizes.items()],
        dataset_info=[_info_entry(name, splits, categories) for name, splits in sizes.items()],
    )


def size_category(sizes: Sizes) -> str:
    """The Hub's name for how many rows pose has, or the largest config where pose is not built."""
    rows = {config: sum(size.rows for size in splits.values()) for config, splits in sizes.items()}
    count = rows.get(DEFAULT_CONFIG, max(rows.values(), default=0))
    return next((name for limit, name in _SIZE_CATEGORIES if count < limit), "10M<n<100M")


def _columns(configs: Iterable[str]) -> dict[str, str]:
    """What the columns of these configs mean, in their order."""
    return {name: meaning(config, name) for config in configs for name in config_features(config)}


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
        "features": _portable_yaml(config_features(config, categories)._to_yaml_list()),
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
