"""Meshes as a preview page holds them: few faces, few bytes, decoded by the page's own script.

A mesh goes into the page once, however many objects have it:

    zlib( 3 M int16: vertices as steps on a grid, each the difference from the one before
          3 F int16: corners of the faces, each the difference from the one before )     in base64

All little-endian. Differences wrap around at 2^16, so that uint16 sums restore the values; a vertex is its
value / 65535 · extent + origin, the same extent along all axes.
"""

from __future__ import annotations

import base64
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from processing.drawing.mesh import Mesh, without_unused

MAX_FACES = 2000  # of an embedded mesh: half of the real ones stay whole
STEPS = 2**16 - 1  # of the grid along a mesh's longest side
_FINEST = 512  # cells along the diagonal that clusters are tried with first
_COARSENING = (0.5, 0.95)  # the least and the most by which the next try has fewer


class EmbeddedMesh(NamedTuple):
    """What the page's script decodes."""

    vertices: int
    faces: int
    whole: int  # faces of the mesh before it was simplified
    origin: tuple[float, float, float]  # units of the mesh
    extent: float
    data: str


def embedded(mesh: Mesh, max_faces: int = MAX_FACES) -> EmbeddedMesh:
    """A mesh for the page, simplified if it has more faces than `max_faces`, which is at most 2^16 / 3."""
    small = simplified(mesh, max_faces)
    origin = small.vertices.min(axis=0)
    extent = float(np.ptp(small.vertices, axis=0).max()) or 1.0
    grid = np.rint((small.vertices - origin) / extent * STEPS).astype(np.int64)
    # Vertices in the order in which faces first use them: then differences are small.
    corners, first = np.unique(small.faces, return_index=True)
    order = corners[np.argsort(first)]
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.arange(len(order))
    parts = (np.diff(grid[order], axis=0, prepend=0), np.diff(number[small.faces].reshape(-1), prepend=0))
    data = zlib.compress(b"".join(part.astype("<u2").tobytes() for part in parts), 9)
    return EmbeddedMesh(
        len(order),
        len(small.faces),
        len(mesh.faces),
        tuple(origin.tolist()),
        extent,
        base64.b64encode(data).decode("ascii"),
    )


def simplified(mesh: Mesh, max_faces: int) -> Mesh:
    """A mesh of at most so many faces and at least one, all of whose vertices are used.

    Vertices that share a cell of a grid become one, at their mean (Rossignac and Borrel, 1993). No point of
    a face moves by more than a cell's diagonal, whatever the mesh: those of CAD models are soups of faces
    that meet nowhere, which collapsing their edges tears apart.
    """
    mesh = without_unused(mesh)
    low = mesh.vertices.min(axis=0)
    diagonal = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0))) or 1.0
    if len(mesh.faces) <= max_faces:
        return mesh
    cells = float(_FINEST)
    while True:
        key = np.rint((mesh.vertices - low) / diagonal * cells).astype(np.int64)
        _, cluster = np.unique(key @ (1, 2**20, 2**40), return_inverse=True)
        faces = cluster.reshape(-1)[mesh.faces]
        flat = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 0] == faces[:, 2])
        if not flat.all():  # where all are, some small things lie far apart: flat faces tell where
            faces = faces[~flat]
        _, once = np.unique(np.sort(faces, axis=1), axis=0, return_index=True)
        faces = faces[np.sort(once)]
        if len(faces) <= max_faces:
            return without_unused(Mesh(_means(mesh.vertices, cluster.reshape(-1)), faces))
        # A surface in n times as few cells along each axis has some n² times as few faces.
        cells *= float(np.clip((max_faces / len(faces)) ** 0.5, *_COARSENING))


def _means(vertices: NDArray[np.float64], cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.bincount(cluster)
    return np.stack([np.bincount(cluster, column) / counts for column in vertices.T], axis=1)
