"""Draws a mesh as a small picture that explains it: shaded, from the front right and a little above.

The same mesh gives the same bytes, whatever draws beside it.
"""

from __future__ import annotations

import io
import math

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from processing.drawing.mesh import Mesh, MeshError
from processing.drawing.raster import drawing_costs, render, shade
from processing.geometry import camera_position, project, rotation_from_viewpoint

SIZE = 256  # pixels, width and height
AZIMUTH, ELEVATION = math.radians(30), math.radians(20)  # in the camera of the annotations; theta is 0

_SUPERSAMPLING = 3
_MARGIN = 0.06  # of the size, left free on the sides where the object ends first
_DISTANCE = 4.0  # from the middle of the mesh's box, in halves of its diagonal: little perspective
_LAMP = (-0.6, 0.9, 0.45)  # from above left, in camera space
_COLOR = (0.72, 0.79, 0.88)
_BACKGROUND = (248, 249, 251)
# A pixel may lie in this many triangles, on the average. Real meshes have some ten layers; to draw thousands
# takes minutes.
_LAYERS = 256


def thumbnail(mesh: Mesh, name: str) -> bytes:
    """A PNG of a mesh, in RGB, `SIZE` pixels wide and high.

    Args:
        name: of the mesh's file, for errors.

    Raises:
        MeshError: so many large triangles lie behind each other that drawing would take too long.
    """
    vertices, faces = _in_unit_sphere(mesh), mesh.faces
    points, depth = project(vertices, AZIMUTH, ELEVATION, 0.0, _DISTANCE, 0.0, 0.0, 1.0)
    points = _fitted(points[np.unique(faces)], points)
    side = SIZE * _SUPERSAMPLING
    if drawing_costs(points * _SUPERSAMPLING, faces, (side, side)).sum() > _LAYERS * side**2:
        raise MeshError(f"{name}: too many large triangles to draw", "mesh_too_large")
    colors = np.broadcast_to(_COLOR, (len(faces), 3))
    lamp = np.array(_LAMP) @ rotation_from_viewpoint(AZIMUTH, ELEVATION, 0.0)  # camera space to object space
    shaded = shade(vertices, faces, colors, camera_position(AZIMUTH, ELEVATION, _DISTANCE), lamp)
    drawn = render(points, depth, faces, shaded, (SIZE, SIZE), _SUPERSAMPLING)
    picture = PIL.Image.new("RGBA", (SIZE, SIZE), (*_BACKGROUND, 255))
    picture.alpha_composite(PIL.Image.fromarray(drawn))
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, "PNG")
    return stream.getvalue()


def _in_unit_sphere(mesh: Mesh) -> NDArray[np.float64]:
    """The vertices (M, 3), moved and scaled so that the box of the triangles ends on the unit sphere."""
    least, most = mesh.bounds
    return (mesh.vertices - (least + most) / 2) / (np.linalg.norm((most - least) / 2) or 1.0)


def _fitted(seen: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points scaled and moved so that those that are seen fill the picture but for the margin, in pixels."""
    least, most = seen.min(axis=0), seen.max(axis=0)
    scale = SIZE * (1 - 2 * _MARGIN) / ((most - least).max() or 1.0)
    return SIZE / 2 + scale * (points - (least + most) / 2)
