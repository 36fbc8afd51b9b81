"""Meshes come out of the page as they went in, and simplified ones keep their shape."""

import base64
import zlib

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.drawing.mesh import Mesh, parse_mesh
from processing.drawing.raster import rasterize
from processing.geometry import project
from processing.preview.meshes import MAX_FACES, STEPS, embedded, simplified


def as_mesh(shape):
    return Mesh(np.asarray(shape.vertices, float), np.asarray(shape.faces, np.int64))


def decoded(packed):
    """What the page's script does, in numpy."""
    words = np.frombuffer(zlib.decompress(base64.b64decode(packed.data)), "<u2")
    assert len(words) == 3 * (packed.vertices + packed.faces)
    grid, corners = words[: 3 * packed.vertices], words[3 * packed.vertices :]
    grid = np.cumsum(grid.reshape(-1, 3), axis=0, dtype=np.uint16)
    faces = np.cumsum(corners, dtype=np.uint16).reshape(-1, 3)
    return Mesh(grid / STEPS * packed.extent + packed.origin, faces.astype(np.int64))


def mask(mesh, camera=(0.7, 0.4, 0.1, 3.0, 150, 150, 330)):
    return rasterize(*project(mesh.vertices, *camera), mesh.faces, (300, 300)).face >= 0


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@settings(deadline=None)
@given(
    count=st.integers(3, 40),
    faces=st.integers(1, 60),
    scale=st.sampled_from([1e-4, 1.0, 1e5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_there_and_back(count, faces, scale, seed):
    rng = np.random.default_rng(seed)
    mesh = Mesh(rng.normal(size=(count, 3)) * scale, rng.integers(0, count, (faces, 3)))
    packed = embedded(mesh)
    back = decoded(packed)
    assert packed.whole == packed.faces == faces
    np.testing.assert_allclose(
        back.vertices[back.faces], mesh.vertices[mesh.faces], atol=packed.extent / STEPS
    )
    assert len(back.vertices) == len(np.unique(mesh.faces))  # what no face uses is not there


def test_a_point_is_embedded_too():
    packed = embedded(Mesh(np.ones((3, 3)), np.array([[0, 1, 2]])))
    np.testing.assert_array_equal(decoded(packed).vertices, np.ones((3, 3)))


def test_small_meshes_stay_whole():
    mesh = as_mesh(trimesh.creation.box((1, 2, 3)))
    assert simplified(mesh, MAX_FACES) is mesh


@pytest.mark.parametrize("shape", ["sphere", "torus", "soup"])
def test_simplified_meshes_keep_their_shape(shape):
    made = {
        "sphere": lambda: trimesh.creation.icosphere(5, 0.5),
        "torus": lambda: trimesh.creation.torus(0.5, 0.15, 200, 80),
        "soup": lambda: trimesh.creation.torus(0.5, 0.15, 200, 80),
    }[shape]()
    mesh = as_mesh(made)
    if shape == "soup":  # faces that share no vertex, and are wound at random
        faces = np.arange(3 * len(mesh.faces)).reshape(-1, 3)
        faces[::2] = faces[::2, ::-1]
        mesh = Mesh(mesh.vertices[mesh.faces].reshape(-1, 3), faces)
    small = simplified(mesh, MAX_FACES)
    assert MAX_FACES / 4 < len(small.faces) <= MAX_FACES
    assert overlap(mask(small), mask(mesh)) > 0.97


@pytest.mark.parametrize("far", [50.0, 300.0, 2000.0, 1e30])
def test_a_vertex_that_no_triangle_uses_does_not_coarsen(far):
    ball = as_mesh(trimesh.creation.icosphere(4, 0.5))
    assert len(ball.faces) > MAX_FACES
    assert embedded(Mesh(np.vstack([ball.vertices, [far, 0, 0]]), ball.faces)) == embedded(ball)


def test_simplifying_ends_for_any_mesh():
    rng = np.random.default_rng(0)
    noise = Mesh(rng.normal(size=(9000, 3)), rng.integers(0, 9000, (30000, 3)))
    assert 0 < len(simplified(noise, MAX_FACES).faces) <= MAX_FACES
    # All in a line, and all but one vertex at one place.
    needle = Mesh(np.r_[np.zeros((8999, 3)), [[1, 0, 0]]], rng.integers(0, 9000, (30000, 3)))
    assert len(simplified(needle, MAX_FACES).faces) <= MAX_FACES
    # Two small things so far apart that on the grid each is a point.
    ball = trimesh.creation.icosphere(4, 0.5)
    pair = as_mesh(trimesh.util.concatenate([ball, ball.copy().apply_translation((2000, 0, 0))]))
    for mesh in (needle, pair):
        back = decoded(embedded(mesh))
        assert 0 < len(back.faces) <= MAX_FACES
        np.testing.assert_allclose(back.bounds, mesh.bounds, atol=0.6)


@pytest.mark.slow
def test_real_meshes_keep_their_shape(real_folder):
    """Of the few that are too large for the page."""
    overlaps = []
    for path in sorted(real_folder.glob("*/CAD/*/*.off"))[::4]:
        mesh = parse_mesh(path.read_bytes(), path.name)
        if len(mesh.faces) > MAX_FACES:
            middle = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
            size = np.linalg.norm(np.ptp(mesh.vertices, axis=0))
            unit = Mesh((mesh.vertices - middle) / size, mesh.faces)
            overlaps.append(overlap(mask(simplified(unit, MAX_FACES)), mask(unit)))
    assert len(overlaps) > 12
    assert np.median(overlaps) > 0.99
    assert np.quantile(overlaps, 0.1) > 0.95
