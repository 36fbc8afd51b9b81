"""Meshes are read safely, and an error names the file."""

import io
import sys
import zipfile

import numpy as np
import pytest
import trimesh
from PIL import Image

from ImageNet3D import RawTree
from processing.drawing import mesh
from processing.drawing.mesh import MeshError, parse_mesh, read_mesh

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
    ],
    ids=[
        *("comment lines", "comments behind", "whole colours", "colours in shares", "coloured polygon"),
        *("coloured vertices", "five corners", "mixed", "a line among faces", "one line of head", "Windows"),
    ],
)
def test_off_files_of_all_kinds(text, area):
    """Every face is there, once: their areas sum up."""
    read = parse_mesh(text.encode(), NAME)
    corners = read.vertices[read.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    assert areas.sum() == pytest.approx(area)
    assert (areas > 0).all()


def test_glb_keeps_the_object_space():
    box = trimesh.creation.box((1, 2, 3))
    read = parse_mesh(box.export(file_type="glb"), "bed_01.glb")
    np.testing.assert_allclose(np.ptp(read.vertices, axis=0), (1, 2, 3))


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


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(ImportError, match=r"pip install imagenet3d\[meshes\]"):
        parse_mesh(TRIANGLE, NAME)
