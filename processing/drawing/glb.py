"""Meshes as binary glTF 2.0: a JSON chunk and a binary one (Khronos, "glTF 2.0 Specification", chapter 4).

Written are the vertices as float32 and the triangles, all in their order, and nothing else. The same mesh
gives the same bytes, which depend on no library. Read is what is written here, and plain files of others: the
first mesh, of triangles with indices.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC, _JSON, _BINARY = b"glTF", b"JSON", b"BIN\0"
_FLOAT, _UNSIGNED_INT = 5126, 5125
_DTYPES: Mapping[int, str] = {5121: "<u1", 5123: "<u2", _UNSIGNED_INT: "<u4", _FLOAT: "<f4"}
_WIDTHS: Mapping[str, int] = {"SCALAR": 1, "VEC3": 3}
_INDEX_BUFFER, _VERTEX_BUFFER = 34963, 34962
_TRIANGLES = 4


def write_glb(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> bytes:
    """The bytes of a file.

    Args:
        vertices: (M, 3), finite, also as float32; they stay in their space, and no node turns them.
        faces: (F, 3), F >= 1, indices of vertices.
    """
    points, corners = vertices.astype("<f4"), faces.astype("<u4")
    size, start = corners.nbytes, corners.nbytes  # of the indices, and where the vertices begin
    described = {
        "asset": {"version": "2.0", "generator": "ImageNet3D"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 1}, "indices": 0, "mode": _TRIANGLES}]}],
        "accessors": [
            {"bufferView": 0, "componentType": _UNSIGNED_INT, "count": corners.size, "type": "SCALAR"},
            {
                **{"bufferView": 1, "componentType": _FLOAT, "count": len(points), "type": "VEC3"},
                **{"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()},
            },
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": size, "target": _INDEX_BUFFER},
            {"buffer": 0, "byteOffset": start, "byteLength": points.nbytes, "target": _VERTEX_BUFFER},
        ],
        "buffers": [{"byteLength": size + points.nbytes}],
    }
    text = json.dumps(described, separators=(",", ":")).encode()
    chunks = ((_JSON, text + b" " * (-len(text) % 4)), (_BINARY, corners.tobytes() + points.tobytes()))
    body = b"".join(struct.pack("<I4s", len(data), kind) + data for kind, data in chunks)
    return struct.pack("<4sII", _MAGIC, 2, 12 + len(body)) + body


def read_glb(data: bytes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (M, 3) and faces (F, 3) of a file, as they stand there; indices are not checked.

    Raises:
        Exception: of many kinds, if the file is damaged, or of a kind that is not read here.
    """
    magic, version, length = struct.unpack_from("<4sII", data)
    if (magic, version, length) != (_MAGIC, 2, len(data)):
        raise ValueError("no whole file of binary glTF 2.0")
    chunks: dict[bytes, bytes] = {}
    at = 12
    while at < length:
        size, kind = struct.unpack_from("<I4s", data, at)
        chunks.setdefault(kind, data[at + 8 : at + 8 + size])
        at += 8 + size
    described, binary = json.loads(chunks[_JSON]), chunks[_BINARY]
    primitive = described["meshes"][0]["primitives"][0]
    if primitive.get("mode", _TRIANGLES) != _TRIANGLES or "extensions" in primitive:
        raise ValueError("no plain triangles")
    vertices = _values(described, binary, primitive["attributes"]["POSITION"], (_FLOAT,))
    whole_numbers = tuple(kind for kind in _DTYPES if kind != _FLOAT)
    corners = _values(described, binary, primitive["indices"], whole_numbers)
    return vertices.astype(np.float64), corners.reshape(-1, 3).astype(np.int64)


def _values(
    described: Mapping[str, Any], binary: bytes, number: int, kinds: tuple[int, ...]
) -> NDArray[np.generic]:
    """What an accessor shows of the binary chunk: (count,) or (count, 3)."""
    accessor = described["accessors"][number]
    view = described["bufferViews"][accessor["bufferView"]]
    kind, width = accessor["componentType"], _WIDTHS[accessor["type"]]
    dtype = np.dtype(_DTYPES[kind])
    if (
        kind not in kinds
        or "sparse" in accessor
        or view.get("byteStride", width * dtype.itemsize) != (width * dtype.itemsize)
    ):
        raise ValueError("values that are not stored one after the other")
    start, count = view.get("byteOffset", 0) + accessor.get("byteOffset", 0), accessor["count"] * width
    if start < 0 or count < 0:
        raise ValueError("values outside the file")
    values = np.frombuffer(binary, dtype, count, start)
    return values.reshape(-1, width) if width > 1 else values
