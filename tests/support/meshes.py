"""Meshes that are odd or hostile, each with the reason that keeps it out."""

import functools

import numpy as np

from processing.drawing import mesh as meshes
from support.raw_tree import MESH


def off(vertices: object, *faces: object) -> bytes:
    """An OFF file as text."""
    rows = [*np.atleast_2d(vertices), *((len(face), *face) for face in faces)]
    text = "\n".join(" ".join(map(str, row)) for row in rows)
    return f"OFF\n{len(np.atleast_2d(vertices))} {len(faces)} 0\n{text}\n".encode()


@functools.cache
def curtains() -> bytes:
    """Thousands of triangles, each as large as the picture: minutes to draw."""
    count = 3000
    vertices = [(x, y, z) for y in np.linspace(-1e-3, 1e-3, count) for x, z in ((-1, -1), (1, -1), (0, 1))]
    return off(vertices, *((3 * i, 3 * i + 1, 3 * i + 2) for i in range(count)))


def fan(corners: int) -> bytes:
    """One polygon of many corners."""
    return off([(0, 0, 0), (1, 0, 0), (0, 1, 0)], [i % 3 for i in range(corners)])


TRIANGLE = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]

# name -> (bytes, reason; "" where the mesh is usable)
HOSTILE: dict[str, tuple[bytes, str]] = {
    "sound": (MESH, ""),
    "comments": (MESH.replace(b"OFF\n", b"OFF # a mesh\n# of one triangle\n"), ""),
    "windows-line-ends": (MESH.replace(b"\n", b"\r\n"), ""),
    "colours": (MESH.replace(b"3 0 1 2", b"3 0 1 2 255 0 0"), ""),
    "a-pentagon": (off([*TRIANGLE, (1, 1, 0), (2, 2, 2)], (0, 1, 2, 3, 4)), ""),
    "no-extent": (off([(1, 1, 1)] * 3, (0, 1, 2)), ""),
    "largest-numbers": (off([(3e38, 0, 0), (-3e38, 0, 0), (0, 3e38, 0)], (0, 1, 2)), ""),
    "unused-vertices-far-away": (off([*TRIANGLE, (1e30, 0, 0)], (0, 1, 2)), ""),
    "empty": (b"", "mesh_damaged"),
    "text": (b"<html>404 Not Found</html>", "mesh_damaged"),
    "ply": (b"ply\nformat ascii 1.0\nend_header\n", "mesh_damaged"),
    "header-alone": (b"OFF", "mesh_damaged"),
    "cut-in-vertices": (MESH[:20], "mesh_damaged"),
    "cut-between-faces": (off(TRIANGLE, (0, 1, 2), (2, 1, 0)).rpartition(b"3 ")[0], "mesh_damaged"),
    "a-vertex-less": (MESH.replace(b"1 0 0\n", b""), "mesh_damaged"),
    "negative-counts": (b"OFF\n-1 -1 0\n", "mesh_damaged"),
    "words-for-numbers": (MESH.replace(b"1 0 0", b"one 0 0"), "mesh_damaged"),
    "vertex-that-is-not-there": (off(TRIANGLE, (0, 1, 7)), "mesh_damaged"),
    "negative-vertex": (off(TRIANGLE, (0, 1, -1)), "mesh_damaged"),
    "vertex-past-64-bits": (off(TRIANGLE, (0, 1, 10**30)), "mesh_damaged"),
    "two-numbers-a-vertex": (b"OFF\n3 1 0\n0 0\n1 0\n0 1\n3 0 1 2\n", "mesh_damaged"),
    "nothing-printable": (bytes(range(256)), "mesh_damaged"),
    "no-faces": (off(TRIANGLE), "mesh_no_triangles"),
    "no-vertices": (b"OFF\n0 0 0\n", "mesh_no_triangles"),
    "nan": (MESH.replace(b"1 0 0", b"nan 0 0"), "mesh_not_finite"),
    "infinite": (MESH.replace(b"1 0 0", b"inf 0 0"), "mesh_not_finite"),
    "infinite-as-float32": (MESH.replace(b"1 0 0", b"1e39 0 0"), "mesh_not_finite"),
    "claims-a-billion-vertices": (MESH.replace(b"3 1 0", b"1000000000 1 0"), "mesh_too_large"),
    "claims-more-than-64-bits": (MESH.replace(b"3 1 0", b"3 " + b"9" * 3000 + b" 0"), "mesh_too_large"),
    "too-many-bytes": (MESH + b"#" * meshes.MAX_MESH_BYTES, "mesh_too_large"),
    "polygon-of-too-many-triangles": (fan(meshes.MAX_MESH_TRIANGLES + 3), "mesh_too_large"),
    "too-much-to-draw": (curtains(), "mesh_too_large"),
}  # fmt: skip
