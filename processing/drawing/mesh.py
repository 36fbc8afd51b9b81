"""Reads CAD models, the release's .off files and the .glb ones of the config `cad`.

What a file claims is checked before anything is computed with it, and an error names the file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ImageNet3D import REASONS, RawTree, Unusable
from processing.drawing.glb import read_glb, write_glb
from processing.drawing.off import CountsError, read_off

# The largest of the release are a few megabytes of text. Hostile text takes some 50 bytes of memory a byte.
MAX_MESH_BYTES = 32 * 10**6
MAX_MESH_VERTICES = MAX_MESH_TRIANGLES = 2**20


class MeshError(ValueError):
    """A mesh is missing or cannot be used; the message names its file.

    Attributes:
        reason: a `mesh_…` or `member_…` code of `ImageNet3D.REASONS`; "" for a file that is not there.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Mesh:
    """Triangles in object space: x to the right, -y the front and z up."""

    vertices: NDArray[np.float64]  # (M, 3), units of the CAD model, finite, also as float32
    faces: NDArray[np.int64]  # (F, 3), F >= 1, indices of vertices

    @property
    def bounds(self) -> NDArray[np.float64]:
        """(2, 3): the least and the greatest x, y, z of the vertices that triangles use."""
        used = without_unused(self).vertices
        return np.array([used.min(axis=0), used.max(axis=0)])


def without_unused(mesh: Mesh) -> Mesh:
    """The same triangles, without the vertices that none of them uses: nobody sees those, wherever they lie.

    Meshes are stored with all their vertices; whatever draws or measures what is seen begins here.
    """
    used = np.zeros(len(mesh.vertices), dtype=bool)
    used[mesh.faces] = True
    if used.all():
        return mesh
    return Mesh(mesh.vertices[used], (np.cumsum(used) - 1)[mesh.faces])


def mesh_file(category: str, cad_index: int) -> str:
    """Path of a mesh inside a raw tree."""
    return f"CAD/{category}/{cad_index:02d}.off"


def read_mesh(tree: RawTree, category: str, cad_index: int) -> Mesh:
    """Read a mesh of the raw release.

    Args:
        cad_index: which mesh of the category, from 1.

    Raises:
        MeshError: the file is missing, too large or damaged.
    """
    name = mesh_file(category, cad_index)
    try:
        data = tree.read(name, MAX_MESH_BYTES, "mesh_too_large")
    except FileNotFoundError:
        raise MeshError(f"{name}: not in the release") from None
    except Unusable as error:
        raise MeshError(f"{name}: {error.value or REASONS[error.reason].rule}", error.reason) from error
    return parse_mesh(data, name)


def parse_mesh(data: bytes, name: str) -> Mesh:
    """Parse a mesh from a file's bytes; polygons are cut into triangles, fans about their first corners.

    Args:
        name: of the file, for errors; its ending gives the format, .off or .glb.

    Raises:
        MeshError: the file is too large or damaged, or holds no triangle.
    """
    if not name.lower().endswith((".off", ".glb")):
        raise MeshError(f"{name}: neither .off nor .glb", "mesh_damaged")
    if len(data) > MAX_MESH_BYTES:
        raise MeshError(f"{name}: more than {MAX_MESH_BYTES} bytes", "mesh_too_large")
    try:
        if name.lower().endswith(".off"):
            vertices, faces = read_off(data, MAX_MESH_VERTICES, MAX_MESH_TRIANGLES)
        else:
            vertices, faces = read_glb(data)
    except CountsError as error:
        raise MeshError(f"{name}: {error}", "mesh_too_large") from error
    except Exception as error:  # damaged bytes fail in many ways, all of them this one error
        what = f"{name}: damaged ({type(error).__name__}: {error})"[:200]
        raise MeshError(what, "mesh_damaged") from error
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not faces.size:
        raise MeshError(f"{name}: holds no triangles", "mesh_no_triangles")
    if len(vertices) > MAX_MESH_VERTICES or len(faces) > MAX_MESH_TRIANGLES:
        what = f"{len(vertices):,} vertices and {len(faces):,} triangles are too many"
        raise MeshError(f"{name}: {what}", "mesh_too_large")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise MeshError(f"{name}: a face names a vertex that does not exist", "mesh_damaged")
    if not (np.abs(vertices) <= np.finfo(np.float32).max).all():  # false for NaN, too
        raise MeshError(f"{name}: a vertex is NaN, infinite or beyond float32", "mesh_not_finite")
    return Mesh(vertices, faces)


def glb_bytes(mesh: Mesh) -> bytes:
    """A mesh as binary glTF 2.0: its vertices as float32 and its triangles, all in their order.

    The vertices stay in object space and no node turns them: z is up, while viewers of glTF take y for it.
    """
    return write_glb(mesh.vertices, mesh.faces)
