"""Meshes are read safely, and an error names the file."""

import contextlib
import io
import itertools
import zipfile

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.raw_tree import bounded, damaged

from ImageNet3D import RawTree
from processing.drawing import mesh
from processing.drawing.mesh import Mesh, MeshError, glb_bytes, parse_mesh, read_mesh, without_unused

TRIANGLE = b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"
NAME = "CAD/bed/01.off"


@pytest.fixture
def tree(tmp_path):
    """A raw tree with one picture, one good and one damaged mesh."""
    for folder in ("images/bed", "CAD/bed"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "raw/images/bed/n1_1.JPEG")
    (tmp_path / "raw" / NAME).write_bytes(TRIANGLE)
    (tmp_path / "raw/CAD/bed/02.off").write_bytes(b"OFF\n3 1 0\n0 0 0\n")
    return tmp_path / "raw"


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


@pytest.mark.parametrize("archived", [False, True])
def test_reads_from_folder_and_zip(tree, archived):
    read = read_mesh(RawTree(str(zipped(tree) if archived else tree)), "bed", 1)
    np.testing.assert_array_equal(read.vertices, [[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(read.faces, [[0, 1, 2]])


@pytest.mark.parametrize(("cad_index", "why"), [(2, "02.off: damaged"), (3, "03.off: not in the release")])
def test_errors_name_the_file(tree, cad_index, why):
    with pytest.raises(MeshError, match=why):
        read_mesh(RawTree(str(tree)), "bed", cad_index)


def test_size_limit(tree, monkeypatch):
    monkeypatch.setattr(mesh, "MAX_MESH_BYTES", len(TRIANGLE) - 1)
    for read in (lambda: read_mesh(RawTree(str(tree)), "bed", 1), lambda: parse_mesh(TRIANGLE, NAME)):
        with pytest.raises(MeshError, match=r"01\.off: more than \d+ bytes"):
            read()


SQUARE = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
ROOF = SQUARE + "0.5 2 0\n"


@pytest.mark.parametrize(
    ("text", "area"),
    [
        (f"# a\nOFF # b\n# c\n4 1 0\n# d\n{SQUARE}# e\n4 0 1 2 3\n", 1),
        ("OFF\n3 1 0\n0 0 0 # first\n1 0 0 # 2\n1 1 0#3 4 5\n3 0 1 2 # one\n", 0.5),
        (f"OFF\n4 2 0\n{SQUARE}3 0 1 2 255 0 0\n3 0 2 3 0 255 0 255\n", 1),
        (f"OFF\n4 2 0\n{SQUARE}3 0 1 2 1.0 0.5 0.25\n3 0 2 3 0.1 0.2 0.3 1.0\n", 1),
        (f"OFF\n4 1 0\n{SQUARE}4 0 1 2 3 10 20 30\n", 1),
        ("COFF\n4 1 0\n" + SQUARE.replace("\n", " 255 0 0 255\n") + "4 0 1 2 3\n", 1),
        (f"OFF\n5 1 0\n{ROOF}5 0 1 2 4 3\n", 1.5),
        (f"OFF\n5 2 0\n{ROOF}4 0 1 2 3\n3 3 2 4\n", 1.5),
        (f"OFF\n4 2 0\n{SQUARE}2 0 1\n4 0 1 2 3\n", 1),
        (f"OFF 4 1 0\n{SQUARE}4 0 1 2 3\n", 1),
        (f"OFF\n\n4 1 0\n\n{SQUARE}\n4 0 1 2 3\n\n".replace("\n", "\r\n"), 1),
        (f"OFF\n4 1\n{SQUARE}4 0 1\n2 3\n", 1),
        ("OFF\n4\n1 0\n0 0 0 1 0 0\n1 1 0\n0 1\n0\n4 0 1 2 3 1 0 0\n", 1),
        (f"OFF4 1 0\n{SQUARE}4 0 1 2 3", 1),
        ("STNOFF\n4 1 0\n" + SQUARE.replace("\n", " 0 0 1 0.5 0.5\n") + "4 0 1 2 3\n", 1),
        ("CNOFF 4 1\n" + SQUARE.replace("\n", " 0 0 1 255 0 0\n") + "4 0 1 2 3 7\n", 1),
    ],
    ids=[
        *("comment lines", "comments behind", "whole colours", "colours in shares", "coloured polygon"),
        *("coloured vertices", "five corners", "mixed", "a line among faces", "one line of head", "Windows"),
        *("a face over two lines", "two vertices a line", "glued", "normals and textures", "all at once"),
    ],
)
def test_off_files_of_all_kinds(text, area):
    """Every face is there, once: their areas sum up."""
    read = parse_mesh(text.encode(), NAME)
    corners = read.vertices[read.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert areas.sum() == pytest.approx(area)
    assert (areas > 0).all()


@st.composite
def polygon_meshes(draw):
    """Vertices that float32 holds, and faces of three to six corners."""
    number = st.floats(-1e6, 1e6, width=32)
    vertices = draw(st.lists(st.tuples(number, number, number), min_size=3, max_size=12))
    corner = st.integers(0, len(vertices) - 1)
    return vertices, draw(st.lists(st.lists(corner, min_size=3, max_size=6), min_size=1, max_size=12))


def spelled(vertices, faces, separators):
    """An OFF file; between the tokens of vertices stands what the separators say."""
    coordinates = "".join(f"{value!r}{next(separators)}" for value in itertools.chain(*vertices))
    corners = "\n".join(" ".join(map(str, [len(face), *face])) for face in faces)
    return f"OFF\n{len(vertices)} {len(faces)} 0\n{coordinates}\n{corners}\n".encode()


@settings(max_examples=100, deadline=None)
@given(polygon_meshes(), st.lists(st.sampled_from([" ", "\n", "\t", " \n\n "]), min_size=1))
def test_any_mesh_is_read_as_it_is_meant(mesh, separators):
    """However its vertices are spread over lines; polygons become fans, on their way to GLB and back too."""
    vertices, faces = mesh
    read = parse_mesh(spelled(vertices, faces, itertools.cycle(separators)), NAME)
    np.testing.assert_array_equal(read.vertices, vertices)
    fans = [(face[0], *pair) for face in faces for pair in itertools.pairwise(face[1:])]
    np.testing.assert_array_equal(read.faces, fans)
    again = parse_mesh(glb_bytes(read), "bed_01.glb")
    np.testing.assert_array_equal(again.vertices, read.vertices)
    np.testing.assert_array_equal(again.faces, read.faces)


@settings(max_examples=100, deadline=None)
@given(polygon_meshes())
def test_without_unused_vertices_the_triangles_are_the_same(mesh):
    """And in their order; a mesh that uses all its vertices is itself, as read."""
    read = parse_mesh(spelled(*mesh, itertools.cycle("\n")), NAME)
    found = without_unused(read)
    np.testing.assert_array_equal(found.vertices[found.faces], read.vertices[read.faces])
    np.testing.assert_array_equal(np.unique(found.faces), np.arange(len(found.vertices)))
    assert without_unused(found) is found
    np.testing.assert_array_equal(read.bounds, found.bounds)


@settings(max_examples=100, deadline=None)
@given(polygon_meshes(), st.data())
def test_counts_that_disagree_with_the_content_are_damage(mesh, data):
    """A line too few or too many, of vertices or of faces; a file that ends early."""
    vertices, faces = mesh
    lines = spelled(vertices, faces, itertools.cycle("  \n")).decode().splitlines()
    lines = [line for line in lines if line]
    at = data.draw(st.integers(2, len(lines) - 1))
    changed = data.draw(
        st.sampled_from([lines[:at] + lines[at + 1 :], lines[:at] + lines[at : at + 1] * 2 + lines[at + 1 :]])
    )
    cut = "\n".join([*lines[:-1], lines[-1].rpartition(" ")[0]])
    for text in ("\n".join(changed), cut):
        with pytest.raises(MeshError) as caught:
            parse_mesh(text.encode(), NAME)
        assert caught.value.reason == "mesh_damaged"


def test_a_vertex_that_is_missing_is_not_made_of_a_face():
    """The first face has as many tokens as are left of the vertices."""
    text = "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n3 0 1 2\n3 0 2 3\n"
    with pytest.raises(MeshError, match="the vertices are not as many"):
        parse_mesh(text.encode(), NAME)


def test_trimesh_reads_the_glb_and_we_read_its():
    """Object space is kept: z stays z."""
    box = trimesh.creation.box((1, 2, 3))
    read = parse_mesh(box.export(file_type="glb"), "bed_01.glb")
    np.testing.assert_allclose(np.ptp(read.vertices, axis=0), (1, 2, 3))
    theirs = trimesh.load_mesh(io.BytesIO(glb_bytes(read)), file_type="glb", process=False)
    np.testing.assert_array_equal(theirs.vertices, read.vertices)
    np.testing.assert_array_equal(theirs.faces, read.faces)


@bounded
@given(damaged(glb_bytes(Mesh(np.eye(3), np.array([[0, 1, 2]])))))
def test_damaged_glb_is_read_or_refused(data):
    with contextlib.suppress(MeshError):
        parse_mesh(data, "bed_01.glb")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"OFF",
        b"OFF\n-1 -1 0\n",
        b"OFF\n999999999999 1 0\n",
        b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n",
        TRIANGLE.replace(b"3 0 1 2", b"3 0 1 7"),
        TRIANGLE.replace(b"3 0 1 2", b"3 0 1 -1"),
        TRIANGLE.replace(b"1 0 0", b"nan 0 0"),
        TRIANGLE.replace(b"1 0 0", b"inf 0 0"),
        io.BytesIO(bytes(range(256))).read(),
    ],
)
def test_hostile_bytes(data):
    with pytest.raises(MeshError, match=NAME):
        parse_mesh(data, NAME)


def test_other_formats_are_refused():
    with pytest.raises(MeshError, match=r"01\.obj: neither"):
        parse_mesh(b"v 0 0 0", "01.obj")
