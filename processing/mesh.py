"""Reads CAD models: the release's .off files, and the .glb ones of the `cad` config.

What a file claims is checked before anything is computed with it, and an error names the file.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ImageNet3D import REASONS, RawTree, Unusable

try:
    import trimesh
except ImportError:  # an extra; `parse_mesh` names the remedy
    trimesh = None

MAX_MESH_BYTES = 64 * 10**6  # the largest of the release are a few megabytes of text


class MeshError(ValueError):
    """A mesh is missing or cannot be used; the message names its file."""


@dataclass(frozen=True)
class Mesh:
    """Triangles in object space: x to the right, -y the front and z up."""

    vertices: NDArray[np.float64]  # (M, 3), units of the CAD model, finite
    faces: NDArray[np.int64]  # (F, 3), F >= 1, indices of vertices


def mesh_file(category: str, cad_index: int) -> str:
    """Path of a mesh inside a raw tree."""
    return f"CAD/{category}/{cad_index:02d}.off"


def read_mesh(tree: RawTree, category: str, cad_index: int) -> Mesh:
    """Read a mesh of the raw release.

    Args:
        cad_index: which mesh of the category, from 1.

    Raises:
        MeshError: the file is missing, too large or damaged.
        ImportError: trimesh is not installed.
    """
    name = mesh_file(category, cad_index)
    try:
        data = tree.read(name, MAX_MESH_BYTES, "mesh_too_large")
    except FileNotFoundError:
        raise MeshError(f"{name}: not in the release") from None
    except Unusable as error:
        rule = REASONS[error.reason].rule if error.reason in REASONS else error.value
        raise MeshError(f"{name}: {rule}") from error
    return parse_mesh(data, name)


def parse_mesh(data: bytes, name: str) -> Mesh:
    """Parse a mesh from a file's bytes; polygons are cut into triangles.

    Args:
        name: of the file, for errors; its ending gives the format, .off or .glb.

    Raises:
        MeshError: the file is too large or damaged, or holds no triangle.
        ImportError: trimesh is not installed.
    """
    if trimesh is None:
        raise ImportError("meshes are read with trimesh: pip install imagenet3d[demo]")
    kind = name.rpartition(".")[2].lower()
    if kind not in ("off", "glb"):
        raise MeshError(f"{name}: neither .off nor .glb")
    if len(data) > MAX_MESH_BYTES:
        raise MeshError(f"{name}: more than {MAX_MESH_BYTES} bytes")
    try:
        loaded = trimesh.load_mesh(io.BytesIO(data), file_type=kind, process=False)
        vertices = np.asarray(loaded.vertices, dtype=np.float64)
        faces = np.asarray(loaded.faces, dtype=np.int64)
    except Exception as error:  # damaged bytes fail in many ways, all of them this one error
        raise MeshError(f"{name}: damaged ({type(error).__name__}: {error})"[:200]) from error
    if (
        vertices.ndim != 2
        or vertices.shape[1] != 3
        or faces.ndim != 2
        or faces.shape[1] != 3
        or not faces.size
    ):
        raise MeshError(f"{name}: holds no triangles")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError(f"{name}: a face names a vertex that does not exist")
    if not np.isfinite(vertices).all():
        raise MeshError(f"{name}: a vertex is NaN or infinite")
    return Mesh(vertices, faces)
