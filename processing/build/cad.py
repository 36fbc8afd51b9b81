"""The rows of the config cad: the release's meshes as GLB, each with a thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import PIL
import PIL.features
import pyarrow as pa

from ImageNet3D import CATEGORIES, LEFT_OUT, RawTree, Survey
from processing.configs import config_features
from processing.drawing.mesh import glb_bytes, mesh_file, read_mesh
from processing.drawing.thumbnail import thumbnail


@dataclass(frozen=True, order=True)
class MeshEntry:
    """A mesh that the release names; nothing of it has been read yet.

    Attributes:
        category: the folder's name.
        cad_index: which mesh of the category, from 1.
        size: bytes of its file.
        reason: why it is left out before it is read, or "".
    """

    category: str
    cad_index: int
    size: int = 0
    reason: str = ""

    @property
    def file(self) -> str:
        """Path of the mesh inside the tree."""
        return mesh_file(self.category, self.cad_index)

    @property
    def glb(self) -> str:
        """The name of the mesh in its row."""
        return f"{self.category}_{self.cad_index:02d}.glb"


def libraries() -> list[str]:
    """The versions of what writes the thumbnails: the bytes of rows depend on them."""
    return [PIL.__version__, str(PIL.features.version("zlib"))]


def meshes_of(survey: Survey) -> list[MeshEntry]:
    """The meshes of a release, by category and index."""
    reasons = {finding.file: finding.reason for finding in survey.findings if finding.decision == LEFT_OUT}
    entries = []
    for file, size in survey.release.meshes.items():
        _, category, name = file.split("/")
        index = int(name.removesuffix(".off"))
        entries.append(MeshEntry(category, index, size, reasons.get(file, "")))
    return sorted(entries)


def row(tree: RawTree, entry: MeshEntry, categories: Sequence[str] = CATEGORIES) -> dict[str, Any]:
    """The row of one mesh.

    Args:
        categories: the names of label ids.

    Raises:
        MeshError: the mesh cannot be used.
    """
    found = read_mesh(tree, entry.category, entry.cad_index)
    return {
        "image": {"bytes": thumbnail(found, entry.file), "path": f"{entry.glb.removesuffix('.glb')}.png"},
        "category": categories.index(entry.category),
        "cad_index": entry.cad_index,
        "mesh": {"bytes": glb_bytes(found), "path": entry.glb},
        "num_vertices": len(found.vertices),
        "num_faces": len(found.faces),
        "bounds": found.bounds.tolist(),
    }


def table(rows: Sequence[Mapping[str, Any]], categories: Sequence[str] = CATEGORIES) -> pa.Table:
    """Rows as an Arrow table of the config's features.

    Args:
        categories: the names of label ids.
    """
    schema = pa.schema(list(config_features("cad", categories).arrow_schema))
    return pa.Table.from_pylist(list(rows), schema)
