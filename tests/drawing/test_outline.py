"""A mesh in few lines: the silhouette is where the mesh is, and hidden edges are not drawn."""

import sys

import numpy as np
import pytest
import trimesh
from click.testing import CliRunner

from processing.__main__ import main
from processing.drawing.mesh import Mesh
from processing.drawing.outline import MAX_EDGES, MAX_REGIONS, MAX_SILHOUETTE_POINTS, trace
from processing.geometry import project

SIZE = (360, 300)
CAMERA = (np.deg2rad(35), np.deg2rad(25), 0, 6.0, 180, 150, 600)


def as_mesh(shape):
    return Mesh(np.asarray(shape.vertices, float), np.asarray(shape.faces, np.int64))


def drawn(mesh, camera=CAMERA, size=SIZE):
    return trace(mesh, *project(mesh.vertices, *camera), size)


def extremes(points):
    return np.r_[points.min(axis=0), points.max(axis=0)]


CUBE = as_mesh(trimesh.creation.box((1, 1, 1)))


def test_cube_shows_nine_of_its_twelve_edges():
    drawing = drawn(CUBE)
    pixels, depth = project(CUBE.vertices, *CAMERA)
    assert len(drawing.edges) == 9
    farthest = pixels[depth.argmax()]  # the corner that the cube itself hides
    assert np.linalg.norm(drawing.edges - farthest, axis=-1).min() > 5


def test_silhouette_of_a_cube_is_a_hexagon():
    drawing = drawn(CUBE)
    pixels, depth = project(CUBE.vertices, *CAMERA)
    (outline,) = drawing.silhouette
    seen = np.delete(pixels, [depth.argmax(), depth.argmin()], axis=0)
    distances = np.linalg.norm(outline[:, None] - seen, axis=-1)
    assert distances.min(axis=0).max() < 0.7
    assert len(outline) <= 12


@pytest.mark.parametrize("shape", ["box", "icosphere", "cylinder"])
def test_winding_doubling_and_joining_do_not_matter(shape):
    made = {
        "box": lambda: trimesh.creation.box((1, 1, 1)),
        "icosphere": lambda: trimesh.creation.icosphere(3, 0.6),
        "cylinder": lambda: trimesh.creation.cylinder(0.5, 1.2),
    }[shape]()
    mesh = as_mesh(made)
    rng = np.random.default_rng(0)
    faces = np.concatenate([mesh.faces, mesh.faces[:, ::-1]])[rng.permutation(2 * len(mesh.faces))]
    loose = Mesh(mesh.vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))
    one, other = drawn(mesh), drawn(loose)
    assert [line.tolist() for line in one.silhouette] == [line.tolist() for line in other.silhouette]
    assert len(one.edges) == len(other.edges)


def test_holes_are_traced():
    ring = as_mesh(trimesh.creation.torus(1, 0.2))
    assert len(drawn(ring, (0, np.pi / 2, 0, 6.0, 180, 150, 400)).silhouette) == 2


def test_silhouette_of_a_large_mesh_stays_small():
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(4000, 1, 3)) + rng.normal(scale=0.05, size=(4000, 3, 3))
    drawing = drawn(Mesh(corners.reshape(-1, 3), np.arange(12000).reshape(-1, 3)))
    assert len(drawing.silhouette) <= MAX_REGIONS
    assert sum(map(len, drawing.silhouette)) <= MAX_SILHOUETTE_POINTS
    assert len(drawing.edges) <= MAX_EDGES


def test_a_small_object_is_drawn_as_exactly_as_a_large_one():
    for distance in (4, 60, 240):
        camera = (*CAMERA[:3], distance, *CAMERA[4:])
        outline = np.concatenate(drawn(CUBE, camera).silhouette)
        pixels, _ = project(CUBE.vertices, *camera)
        np.testing.assert_allclose(extremes(outline), extremes(pixels), atol=0.6)


def test_what_is_cut_by_the_picture_ends_just_outside_it():
    outline = np.concatenate(drawn(CUBE, (*CAMERA[:4], 0, 150, 600)).silhouette)
    assert -3 <= outline[:, 0].min() <= -1


@pytest.mark.parametrize(
    "camera",
    [(*CAMERA[:4], -900, 150, 600), (*CAMERA[:3], -6.0, *CAMERA[4:]), (*CAMERA[:3], 0.0, 180, 900, 600)],
    ids=["beside the picture", "behind the camera", "around the camera, below the picture"],
)
def test_nothing_in_the_picture(camera):
    drawing = drawn(CUBE, camera)
    assert drawing is None or all(np.isfinite(line).all() for line in drawing.silhouette)


def test_names_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "contourpy", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[demo\]" in a clone'):
        drawn(CUBE)


def test_the_preview_names_it_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "contourpy", None)
    done = CliRunner().invoke(main, ["preview", str(tmp_path / "raw"), str(tmp_path / "page.html")])
    assert done.exit_code == 2
    assert "preview needs contourpy: pip install -e '.[demo]' in a clone" in done.output
