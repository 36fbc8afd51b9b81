"""What is drawn lies where the annotation says, on pictures of any kind, with or without a mesh."""

import itertools
import math

import numpy as np
import PIL.Image
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from processing.drawing.draw import BOX_COLOR, LAYERS, draw, layers, object_axes
from processing.drawing.mesh import Mesh, parse_mesh
from processing.geometry import camera_position, project

SIZE = (320, 240)
ROW = {
    "bbox": [110.0, 70.0, 210.0, 170.0],
    **{"azimuth": 0.6, "elevation": 0.4, "theta": 6.2, "distance": 5.0},
    **{"px": 160.0, "py": 120.0, "viewport": 400.0},
}
GREY = PIL.Image.new("RGB", SIZE, (128, 128, 128))


def as_mesh(shape):
    return Mesh(np.asarray(shape.vertices, float), np.asarray(shape.faces, np.int64))


CUBE = as_mesh(trimesh.creation.box((1, 1, 1)))


def changed(row, mesh, show=LAYERS, picture=GREY):
    """Which pixels a drawing changes."""
    drawn = draw(picture, row, mesh, show)
    assert drawn.size == picture.size
    return (np.asarray(drawn) != np.asarray(picture.convert("RGB"))).any(axis=2)


def around(mask):
    """x1, y1, x2, y2 of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def overlap(one, other):
    """Intersection over union of two boxes."""
    inner = np.prod(np.maximum(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0))
    return inner / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - inner)


def objects_of(folder):
    """(picture, row, mesh or None) of all placed objects of a raw tree of ours, read with plain numpy."""
    for path in sorted(folder.glob("**/annotations/*/*.npz")):
        top, category = path.parents[2], path.parent.name
        for item in np.load(path, allow_pickle=True)["annotations"]:
            if item.get("distance", 0) > 0:
                file = top / f"CAD/{category}/{item['cad_index']:02d}.off"
                mesh = parse_mesh(file.read_bytes(), file.name) if file.exists() else None
                with PIL.Image.open(top / f"images/{category}/{path.stem}.JPEG") as picture:
                    yield picture.convert("RGB"), item, mesh


def drawn_extent(found):
    """x1, y1, x2, y2 of the mask of the drawn faces, which has a finer grid than the picture."""
    x1, y1, x2, y2 = found.faces.box
    mask = np.asarray(found.faces.image)[..., 3] > 0
    samples = np.array([x2 - x1, y2 - y1] * 2) / (mask.shape[::-1] * 2)  # their size in pixels
    return around(mask) * samples + (x1, y1, x1, y1)


@pytest.mark.parametrize("source", ["sample_folder", pytest.param("real_folder", marks=pytest.mark.slow)])
def test_mask_of_the_drawn_mesh_and_the_annotated_box_agree(source, request):
    """Of the objects that lie wholly in their picture; the boxes are those of the projected meshes."""
    overlaps = []
    step = 3 if source == "real_folder" else 1  # real meshes take their time
    for picture, row, mesh in itertools.islice(objects_of(request.getfixturevalue(source)), 0, None, step):
        x1, y1, x2, y2 = row["bbox"]
        if mesh is None or x1 <= 1 or y1 <= 1 or x2 >= picture.width - 1 or y2 >= picture.height - 1:
            continue
        found = layers(row, mesh, picture.size)
        overlaps.append((overlap(drawn_extent(found), np.asarray(row["bbox"])), found.agreement))
    drawn, projected = np.array(overlaps).T
    assert len(drawn) > 30
    assert drawn.min() >= 0.95
    assert projected.min() >= 0.97


def test_faces_cover_what_the_rendered_object_covers(sample_folder):
    """Faces are drawn nowhere but on the mesh's own pixels, to a pixel of rounding."""
    picture, row, mesh = next(objects_of(sample_folder))
    covered = changed(row, mesh, ("faces",), picture)
    lines = changed(row, mesh, ("outline",), picture)
    assert covered.sum() > 1000
    grown = lines | covered
    assert (around(grown) - around(covered) == 0).sum() >= 2
    assert np.abs(around(grown) - around(covered)).max() <= 2


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_alone(name):
    alone = changed(ROW, CUBE, (name,))
    rest = changed(ROW, CUBE, tuple(other for other in LAYERS if other != name))
    everything = changed(ROW, CUBE)
    assert alone.any()
    assert (everything == (alone | rest)).mean() > 0.999  # lines blend into each other at their edges
    assert rest.sum() < everything.sum()


def test_nothing_shown_nothing_changed():
    assert not changed(ROW, CUBE, ()).any()


def test_box_is_drawn_on_its_sides():
    mask = changed(ROW, None, ("box",))
    np.testing.assert_allclose(around(mask), ROW["bbox"], atol=2.5)
    assert not mask[80:160, 120:200].any()
    assert draw(GREY, ROW, None, ("box",)).getpixel((160, 70)) == PIL.ImageColor.getrgb(BOX_COLOR)


def test_hidden_faces_are_not_drawn():
    """Behind a wall nothing of a ball is seen: all is the wall's one shade."""
    wall = trimesh.creation.box((3, 0.1, 3))
    wall.apply_translation((0, -1, 0))
    ball = trimesh.creation.icosphere(3, 0.5)
    row = ROW | {"azimuth": 0.0, "elevation": 0.0, "theta": 0.0}
    drawn = layers(row, as_mesh(trimesh.util.concatenate([wall, ball])), SIZE).faces.image
    seen = {color for _, color in drawn.getcolors(100_000) if color[3]}
    assert len(seen) == 1
    alone = layers(row, as_mesh(ball), SIZE).faces.image
    assert len({color for _, color in alone.getcolors(100_000) if color[3]}) > 20


def test_axes_follow_the_camera():
    camera = (0.0, 0.0, 0.0, 5.0, 160.0, 120.0, 400.0)
    axes = {axis.name: axis for axis in object_axes(camera, tuple(ROW["bbox"]))}
    assert (axes["x"].x2, axes["x"].y2) == (210, 120)  # to the right, half of the box's side
    assert (axes["z"].x2, axes["z"].y2) == (160, 70)  # up
    assert (axes["y"].x2, axes["y"].y2) == (160, 120)  # away from the camera
    assert object_axes(camera, tuple(ROW["bbox"]))[0].name == "y"  # the farthest first


NO_PHOTOGRAPH = "Distance, centre or viewport are those of no photograph: no mesh or axes to draw."


@pytest.mark.parametrize(
    ("row", "mesh", "remark"),
    [
        (ROW, None, "No mesh: box and axes only."),
        ({"bbox": ROW["bbox"]}, CUBE, "A box and no pose."),
        (ROW | {"theta": None}, CUBE, "A box and no pose."),
        (ROW | {"distance": 0.0}, CUBE, "Never placed in depth: no mesh or axes to draw."),
        (ROW | {"distance": None}, CUBE, "Never placed in depth: no mesh or axes to draw."),
        (ROW | {"py": None}, CUBE, "Its centre (px, py) is not annotated: no mesh or axes to draw."),
        (
            ROW | {"viewport": None},
            CUBE,
            "Its focal length (viewport) is not annotated: no mesh or axes to draw.",
        ),
        (ROW | {"viewport": 1e308}, CUBE, NO_PHOTOGRAPH),
        (ROW | {"viewport": -1.0}, CUBE, NO_PHOTOGRAPH),
        (ROW | {"distance": 1e300}, CUBE, NO_PHOTOGRAPH),
        (ROW | {"px": -1e300}, CUBE, NO_PHOTOGRAPH),
        (ROW | {"px": -9000.0}, CUBE, "Nothing of the mesh is in the picture."),
    ],
)
def test_what_is_not_drawn_is_said(row, mesh, remark):
    found = layers(row, mesh, SIZE)
    assert found.remark == remark
    assert found.mesh is None
    assert found.faces is None
    assert changed(row, mesh, ("box",)).any()
    assert not changed(row, mesh, ("faces", "outline")).any()


def test_a_mesh_that_takes_too_long_to_draw_is_said():
    corners = np.random.default_rng(0).normal(size=(3000, 3))
    faces = np.random.default_rng(1).integers(0, 3000, (400_000, 3))
    found = layers(ROW, Mesh(corners, faces), SIZE)
    assert found.remark == "No mesh: too many large triangles to draw; box and axes only."
    assert len(found.axes) == 3


def test_agreement_tells_a_wrong_box():
    mask = around(changed(ROW, CUBE, ("faces",)))
    right = ROW | {"bbox": mask.astype(float).tolist()}
    wrong = ROW | {"bbox": [10, 10, 60, 60]}
    assert layers(right, CUBE, SIZE).agreement > 0.95
    assert layers(wrong, CUBE, SIZE).agreement == 0
    half = [mask[0], mask[1], (mask[0] + mask[2]) / 2, mask[3]]
    assert layers(ROW | {"bbox": half}, CUBE, SIZE).agreement == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("box", [[210, 170, 110, 70], [110, 170, 210, 70], [210, 70, 110, 170]])
def test_a_box_the_wrong_way_round_is_drawn(box):
    assert (changed(ROW | {"bbox": box}, None) == changed(ROW, None)).all()
    assert layers(ROW | {"bbox": box}, CUBE, SIZE).agreement == layers(ROW, CUBE, SIZE).agreement


@pytest.mark.parametrize(
    "box",
    [
        *([50, 60, 50, 60], [50, 60, 50 + 1e-9, 200], [-900, -900, -100, -100], [400, 60, 900, 100]),
        *([-1e300, -1e300, 1e300, 1e300], [50, 60, 1.7e308, 100]),
    ],
)
def test_a_box_of_any_size_is_no_error(box):
    found = layers(ROW | {"bbox": box}, CUBE, SIZE, 0.5)
    assert np.isfinite(found.box).all()
    assert 0 <= found.agreement <= 1
    assert all(np.isfinite(axis[1:]).all() for axis in found.axes)
    assert draw(GREY, ROW | {"bbox": box}, CUBE).size == SIZE


def test_angles_of_any_size_mean_the_same():
    turned = ROW | {name: ROW[name] + 2 * math.pi * turns for name, turns in
                    (("azimuth", -7), ("elevation", 3), ("theta", 12))}  # fmt: skip
    np.testing.assert_allclose(layers(turned, CUBE, SIZE).faces.box, layers(ROW, CUBE, SIZE).faces.box)


@pytest.mark.parametrize("level", [0, 40, 128, 255])
def test_pictures_of_16_bits_are_shown_as_dark_as_they_are(level):
    picture = PIL.Image.fromarray(np.full((240, 320), level * 257, np.uint16))
    assert picture.mode.startswith("I")
    assert draw(picture, ROW, CUBE, ()).getpixel((5, 5)) == (level,) * 3


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGBA", "P", "1", "I;16"])
def test_pictures_of_any_kind(mode):
    picture = PIL.Image.new(mode, SIZE)
    before = picture.tobytes()
    drawn = draw(picture, ROW, CUBE)
    assert (drawn.mode, drawn.size) == ("RGB", SIZE)
    assert picture.tobytes() == before


def test_a_trimesh_will_do():
    shape = trimesh.creation.box((1, 1, 1))
    assert draw(GREY, ROW, shape).tobytes() == draw(GREY, ROW, CUBE).tobytes()


EYE = camera_position(ROW["azimuth"], ROW["elevation"], ROW["distance"])


@pytest.mark.parametrize("where", [(10, 0, 0), (-2000, 300, 0), (0.1, 0, 0), EYE], ids=str)
def test_vertices_that_no_triangle_uses_change_nothing(where):
    """Far away, inside the mesh or where the camera is; the first vertex or the last."""
    expected = layers(ROW, CUBE, SIZE)
    for mesh in (
        Mesh(np.vstack([CUBE.vertices, where]), CUBE.faces),
        Mesh(np.vstack([where, CUBE.vertices]), CUBE.faces + 1),
        trimesh.Trimesh(np.vstack([CUBE.vertices, where]), CUBE.faces, process=False),
    ):
        found = layers(ROW, mesh, SIZE)
        assert (found.agreement, found.mesh.window) == (expected.agreement, expected.mesh.window)
        np.testing.assert_array_equal(found.mesh.edges, expected.mesh.edges)
        np.testing.assert_array_equal(found.faces.image, expected.faces.image)


def test_layers_scale_with_the_picture():
    whole, half = layers(ROW, CUBE, SIZE), layers(ROW, CUBE, (160, 120), 0.5)
    np.testing.assert_allclose(half.box, np.divide(whole.box, 2))
    np.testing.assert_allclose(half.faces.box, np.divide(whole.faces.box, 2), atol=0.5)
    assert half.agreement == pytest.approx(whole.agreement)


def test_unknown_layer():
    with pytest.raises(ValueError, match="show has mesh; the layers are faces, outline, box, axes"):
        draw(GREY, ROW, CUBE, ("mesh",))


@settings(deadline=None, max_examples=60)
@given(
    pose=st.tuples(*[st.floats(0, 2 * math.pi)] * 3, st.floats(1e-3, 1e3), *[st.floats(-1e4, 1e4)] * 2),
    viewport=st.floats(1, 1e4),
    box=st.tuples(*[st.floats(-1e3, 1e3)] * 4),
)
def test_any_pose_can_be_drawn(pose, viewport, box):
    """Around the camera, beside the picture, smaller than a pixel: something, never an error or NaN."""
    row = dict(zip(("azimuth", "elevation", "theta", "distance", "px", "py"), pose, strict=True))
    x, y, width, height = box
    row |= {"viewport": viewport, "bbox": (x, y, x + width, y + height)}
    found = layers(row, CUBE, (64, 48))
    assert found.agreement is None or 0 <= found.agreement <= 1
    if found.mesh is not None:
        points, depth = project(CUBE.vertices, *pose, viewport)
        for line in found.mesh.silhouette:
            assert np.isfinite(line).all()
            assert (line >= -3).all()
            assert (line <= [67, 51]).all()
        assert (depth > 0).any()
        assert np.isfinite(points[depth > 0]).all()
    assert draw(PIL.Image.new("RGB", (64, 48)), row, CUBE).size == (64, 48)
