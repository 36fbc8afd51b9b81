"""One object's annotation as the .npz of a crop."""

import math
import struct
import zlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ImageNet3D import Picture
from processing.crop.pixels import Crop


def npz_fields(name: str, picture: Picture, crop: Crop) -> dict[str, NDArray[np.generic]]:
    """What the npz of a crop holds; `docs/crops.md` says what each field means.

    padding_params and cropping_params are six numbers: what is added and what is cut, after resizing, at the
    top, bottom, left and right, and twice 0 for the channels; not whole pixels, since the map is exact. So
    crop = picture · resize_rate + padding - cropping, as code in the wild inverts it, with these of the top
    for y and of the left for x.
    """
    item, cropped = crop.item, crop.place.annotation(crop.item)
    scale, (left, top) = crop.place.scale, crop.place.offset
    right = crop.image.width - (left + picture.width * scale)
    bottom = crop.image.height - (top + picture.height * scale)
    margins = (top, bottom, left, right)
    numbers = {
        "bbox": cropped.bbox,
        "bbox_original": item.bbox,
        "principal": (cropped.px, cropped.py),
        "principal_original": (item.px, item.py),
        "px": cropped.px,
        "py": cropped.py,
        "px_original": item.px,
        "py_original": item.py,
        "distance": cropped.distance,
        "distance_original": item.distance,
        "azimuth": item.azimuth,
        "elevation": item.elevation,
        "theta": item.theta,
        "viewport": math.nan if item.viewport is None else item.viewport,
        "padding_params": (*(max(margin, 0.0) for margin in margins), 0.0, 0.0),
        "cropping_params": (*(max(-margin, 0.0) for margin in margins), 0.0, 0.0),
        "resize_rate": scale,
    }
    return {
        "name": np.array(name),
        **{field: np.array(value, np.float64) for field, value in numbers.items()},
        "height": np.array(crop.image.height, np.int64),
        "width": np.array(crop.image.width, np.int64),
        "cad_index": np.array(item.cad_index or 0, np.int64),
        "focal": np.array(1, np.int64),
        "class": np.array(picture.entry.category),
    }


_DATE = (1980 - 1980) << 9 | 1 << 5 | 1  # 1 January 1980, as MS-DOS packs it: the same bytes every time


def npz(fields: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The bytes of an .npz that `numpy.load` reads without pickle: stored, not compressed.

    `numpy.savez` takes as long as encoding a crop does, for twenty arrays of one number. This writes the
    same format (PKWARE's APPNOTE 6.3.3, sections 4.3.7, 4.3.12 and 4.3.16) at a tenth of that.

    Args:
        fields: name -> array of numbers or text; together well below 4 GB.
    """
    members: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for field, array in fields.items():
        name = f"{field}.npy".encode()
        data = _npy_header(array.dtype.str, array.shape) + array.tobytes()
        common = struct.pack(
            "<5H3L2H", 20, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(name), 0
        )
        members += [b"PK\3\4", common, name, data]
        directory += [b"PK\1\2\x14\0", common, struct.pack("<3H2L", 0, 0, 0, 0, offset), name]
        offset += 4 + len(common) + len(name) + len(data)
    size = sum(map(len, directory))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(fields), len(fields), size, offset, 0)
    return b"".join([*members, *directory, end])


@lru_cache(maxsize=256)
def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """The header of version 1.0 of the .npy format, padded to a multiple of 64 bytes."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    length = 64 * math.ceil((len(text) + 11) / 64)
    return b"\x93NUMPY\1\0" + struct.pack("<H", length - 10) + text.ljust(length - 11).encode() + b"\n"
