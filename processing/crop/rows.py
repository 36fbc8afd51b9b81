"""The rows of the config object_centric: centred crops with their annotations in pixels of the crop."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from ImageNet3D import CATEGORIES, OBJECT_STATUS, POSE_FIELDS, Finding, Picture
from processing.configs import config_features
from processing.crop.pixels import Crop, crops
from processing.crop.place import CropOptions

OPTIONS = CropOptions(mode="center", size=(512, 512), target_distance=4.0)


def rows(
    pictures: Sequence[Picture],
    findings: list[Finding],
    left_out: Counter[str],
    categories: Sequence[str] = CATEGORIES,
) -> pa.Table:
    """The rows of some pictures, in their order, as an Arrow table of the config's features.

    Args:
        findings: gets one finding for each object whose picture cannot be decoded.
        left_out: counts the posed objects without a row, by code.
        categories: the names of label ids.
    """
    labels = {name: label for label, name in enumerate(categories)}
    found = [
        _row(picture, crop, labels)
        for picture in pictures
        for crop in crops(picture, OPTIONS, findings, left_out)
    ]
    schema = pa.schema(list(config_features("object_centric", categories).arrow_schema))
    return pa.Table.from_pylist(found, schema)


def _row(picture: Picture, crop: Crop, labels: Mapping[str, int]) -> dict[str, Any]:
    entry, item = picture.entry, crop.place.annotation(crop.item)
    return {
        "image": {"bytes": crop.jpeg(), "path": f"{entry.stem}_{item.index:02d}.JPEG"},
        "image_id": entry.image_id,
        "object_index": item.index,
        "width": crop.image.width,
        "height": crop.image.height,
        "category": labels[entry.category],
        "known": entry.known,
        "bbox": item.bbox,
        **{name: getattr(item, name) for name in (*POSE_FIELDS, "cad_index", "dense")},
        "object_status": OBJECT_STATUS.index(item.object_status),
        "resize_rate": crop.place.scale,
        "offset": crop.place.offset,
    }
