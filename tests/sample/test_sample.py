"""The synthetic raw tree: picture, mesh, pose and box agree, and everything odd is where it is said to be.

Projection is written out here from the release's camera model, so that an error in `processing.geometry` does
not hide itself.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image, ImageDraw, ImageFilter

from ImageNet3D import CATEGORIES, KNOWN_CATEGORIES
from processing.sample import MARK, pictures
from processing.sample import command as sample
from processing.sample.command import category_order, write_sample

pytestmark = pytest.mark.slow

# A pixel is an object's if a channel differs this much (of 255) from the picture without objects. JPEG noise
# stays below it on the backgrounds.
PIXEL_DIFFERENCE = 32
# How far beyond the outline JPEG ringing and antialiasing reach, pixels.
OUTLINE_TOLERANCE = 2

CATEGORY_CAPTIONS = Path("captions/category_captions.json")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The default tree."""
    out = tmp_path_factory.mktemp("sample")
    write_sample(out)
    return out


@pytest.fixture(scope="module")
def empty_scenes(tmp_path_factory):
    """The default tree with no object drawn: the backgrounds alone."""
    out = tmp_path_factory.mktemp("backgrounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "render", lambda *args: np.zeros((args[-1][1], args[-1][0], 4), np.uint8))
        write_sample(out)
    return out


def picture_paths(tree):
    """Paths of all pictures, in the order they were written: a category's ids rise."""
    for category in category_order()[:12]:
        yield from sorted(
            (tree / "images" / category).iterdir(), key=lambda path: int(path.stem.split("_")[1])
        )


def picture_at(tree, place, index):
    return list(picture_paths(tree))[6 * place + index]


def objects_of(picture):
    category = picture.parent.name
    path = picture.parents[2] / "annotations" / category / f"{picture.stem}.npz"
    with np.load(path, allow_pickle=True) as archive:
        return list(archive["annotations"])


def objects_at(tree, place, index):
    return objects_of(picture_at(tree, place, index))


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def mesh_of(tree, annotation):
    path = tree / "CAD" / annotation["class"] / f"{annotation['cad_index']:02d}.off"
    return trimesh.load_mesh(path, process=False)


def project(vertices, annotation, turned=0.0):
    """Project by X_cam = Rz(t) · Rx(-(π/2 - e)) · Rz(-a) · (X - C), with the azimuth off by an angle."""
    azimuth = annotation["azimuth"] + turned
    elevation, theta, distance = (float(annotation[key]) for key in ("elevation", "theta", "distance"))

    def around_z(angle):
        return np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])

    tilt = -(np.pi / 2 - elevation)
    around_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    position = distance * np.array(
        [np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)]
    )
    x, y, z = around_z(theta) @ around_x @ around_z(-azimuth) @ (np.asarray(vertices) - position).T
    focal = annotation["viewport"]
    return np.column_stack([annotation["px"] + focal * x / -z, float(annotation["py"]) - focal * y / -z])


def outline(tree, annotations, size, turned=0.0):
    """Fill the projected triangles of all objects: a mask of the picture's size."""
    mask = Image.new("1", size)
    draw = ImageDraw.Draw(mask)
    for annotation in annotations:
        mesh = mesh_of(tree, annotation)
        # Pillow's whole numbers are the centres of pixels.
        points = project(mesh.vertices, annotation, turned) - 0.5
        for triangle in points[mesh.faces]:
            draw.polygon([tuple(corner) for corner in triangle], fill=1)
    return mask


def wholly_posed(tree):
    """Pictures all of whose objects are posed in depth, with these objects."""
    for picture in picture_paths(tree):
        annotations = objects_of(picture)
        if all(annotation.get("distance", 0) > 0 for annotation in annotations):
            yield picture, annotations


def object_pixels(picture, empty_scenes):
    background = pixels_of(empty_scenes / "images" / picture.parent.name / picture.name)
    return np.abs(pixels_of(picture) - background).max(axis=2) > PIXEL_DIFFERENCE


def overlap(mask, other):
    """Intersection over union."""
    other = np.asarray(other)
    return (mask & other).sum() / (mask | other).sum()


def grown(mask):
    return np.asarray(mask.convert("L").filter(ImageFilter.MaxFilter(2 * OUTLINE_TOLERANCE + 1))) > 0


def all_bytes(tree):
    return {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.is_file()}


# --------------------------------------------------------------------------------------------------------
# Agreement
# --------------------------------------------------------------------------------------------------------


def test_box_is_the_extent_of_the_projected_mesh_within_the_picture(tree):
    checked = 0
    for _, annotations in wholly_posed(tree):
        for annotation in annotations:
            points = project(mesh_of(tree, annotation).vertices, annotation)
            limits = [annotation["width"], annotation["height"]]
            extent = np.clip([points.min(axis=0), points.max(axis=0)], 0, limits)
            np.testing.assert_allclose(annotation["bbox"], extent.ravel(), atol=1e-6)
            checked += 1
    assert checked > 80


@pytest.mark.slow
def test_objects_fill_their_outlines_and_nothing_else(tree, empty_scenes):
    overlaps = []
    for picture, annotations in wholly_posed(tree):
        seen = object_pixels(picture, empty_scenes)
        mask = outline(tree, annotations, seen.shape[::-1])
        assert not (seen & ~grown(mask)).any(), picture
        overlaps.append(overlap(seen, mask))
    # Short of 1 because thin parts are antialiased and some faces have almost the background's colour.
    assert len(overlaps) > 60
    assert min(overlaps) > 0.75
    assert np.mean(overlaps) > 0.92


def test_a_wrong_azimuth_would_be_noticed(tree, empty_scenes):
    """Turning the pose by 17 degrees breaks the agreement, where the form is not nearly round."""
    wrong = []
    for picture, annotations in wholly_posed(tree):
        if len(annotations) > 1 or picture.parent.name not in ("car", "chair", "aeroplane", "bed"):
            continue
        seen = object_pixels(picture, empty_scenes)
        right = overlap(seen, outline(tree, annotations, seen.shape[::-1]))
        wrong.append(overlap(seen, outline(tree, annotations, seen.shape[::-1], turned=0.3)))
        assert wrong[-1] < right - 0.05, picture
    assert len(wrong) >= 12
    assert np.median(wrong) < 0.8


def test_a_lone_object_reaches_all_sides_of_its_box(tree, empty_scenes):
    checked = 0
    for picture, [annotation, *others] in wholly_posed(tree):
        seen = object_pixels(picture, empty_scenes)
        x1, y1, x2, y2 = annotation["bbox"]
        whole = x1 > 0 and y1 > 0 and x2 < annotation["width"] and y2 < annotation["height"]
        if others or not whole:
            continue
        rows, columns = np.nonzero(seen)
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(extent, annotation["bbox"], atol=2, err_msg=str(picture))
        checked += 1
    assert checked > 20


def test_an_objects_status_is_its_visible_share(tree):
    """Of a lone object, the part of its outline that the picture's edge leaves."""
    lowest = {"status_good": 0.9, "status_partially": 0.5, "status_barely": 0.2, "status_bad": 0.0}
    highest = {"status_good": 1.0, "status_partially": 0.9, "status_barely": 0.5, "status_bad": 0.2}
    found = Counter()
    margin = 400  # room for what lies beyond the edges
    for picture, [annotation, *others] in wholly_posed(tree):
        if others or "object_status" not in annotation:
            continue
        width, height = int(annotation["width"]), int(annotation["height"])
        shifted = annotation | {"px": annotation["px"] + margin, "py": float(annotation["py"]) + margin}
        mask = np.asarray(outline(tree, [shifted], (width + 2 * margin, height + 2 * margin)))
        share = mask[margin:-margin, margin:-margin].sum() / mask.sum()
        status = annotation["object_status"]
        # Pillow counts every pixel that the outline touches, the stage those whose centre it holds.
        assert lowest[status] - 0.03 <= share <= highest[status] + 0.03, picture
        found[status] += 1
    assert set(found) == set(lowest)


def test_a_hidden_object_is_behind_and_says_so(tree):
    # The scene "behind": the place of the category plus the picture's index is 5.
    pairs = [objects_at(tree, place, 5 - place) for place in range(6)]
    assert all(len(pair) == 2 and pair[0]["distance"] > pair[1]["distance"] + 1 for pair in pairs)
    assert sum(pair[0]["object_status"] != "status_good" for pair in pairs) >= 3


# --------------------------------------------------------------------------------------------------------
# The release's format
# --------------------------------------------------------------------------------------------------------


def test_the_tree_has_the_layout_of_the_release(tree):
    categories = sorted(category_order()[:12])
    assert sum(category in KNOWN_CATEGORIES for category in categories) == 6
    assert sorted(path.name for path in tree.iterdir()) == [
        "CAD",
        MARK,
        "annotations",
        "captions",
        "images",
        "lists",
    ]
    for folder in ("images", "annotations", "CAD"):
        assert sorted(path.name for path in (tree / folder).iterdir()) == categories
    lists = {f"{name}_imagenet_{split}.txt" for name in categories for split in ("train", "val")}
    assert {path.name for path in (tree / "lists").iterdir()} == lists
    for picture in picture_paths(tree):
        assert re.fullmatch(r"n0\d{7}_\d+\.JPEG", picture.name)
        for annotation in objects_of(picture):
            assert annotation["class"] == picture.parent.name


def test_fields_have_the_types_of_the_release(tree):
    types = {
        "class": str,
        "height": np.uint16,
        "width": np.uint16,
        "bbox": np.ndarray,
        "azimuth": float,
        "elevation": np.float64,
        "theta": float,
        "distance": np.float64,
        "px": float,
        "py": np.float32,
        "principal": np.ndarray,
        "focal": int,
        "viewport": int,
        "cad_index": int,
        "ignore": int,
        "object_status": str,
        "dense": str,
    }
    for picture in picture_paths(tree):
        with Image.open(picture) as image:
            size = image.size
        for annotation in objects_of(picture):
            assert (annotation["width"], annotation["height"]) == size
            assert annotation["bbox"].dtype == np.float64
            for key, value in annotation.items():
                assert type(value) is types[key] or (key, value) == ("distance", 0.0)
            for angle in ("azimuth", "elevation", "theta"):
                assert 0 <= annotation.get(angle, 0) < 2 * np.pi
    assert list(objects_at(tree, 0, 0)[0]) == list(types)


def test_meshes_fit_the_unit_sphere_and_use_all_their_vertices(tree):
    for path in (tree / "CAD").rglob("*.off"):
        mesh = trimesh.load_mesh(path, process=False)
        assert 100 < len(mesh.faces) < 5000
        np.testing.assert_allclose(np.linalg.norm(mesh.extents), 1, atol=1e-4)
        np.testing.assert_array_equal(np.unique(mesh.faces), np.arange(len(mesh.vertices)))


def lists_of(tree):
    """Name of a list -> its image ids."""
    return {path.name: path.read_text().split() for path in (tree / "lists").iterdir()}


def test_no_list_is_empty_unless_asked_for(tree, tmp_path):
    """The authors' code cannot read an empty list."""
    assert all(lists_of(tree).values())
    write_sample(tmp_path / "small", categories=5, images_per_category=2)  # the fifth has an unlisted picture
    assert all(lists_of(tmp_path / "small").values())
    write_sample(tmp_path / "empty", images_per_category=2, empty_lists=True)
    listed = lists_of(tmp_path / "empty")
    for split in ("train", "val"):
        of_split = {name: ids for name, ids in listed.items() if name.endswith(f"_{split}.txt")}
        filled = {name.removesuffix(f"_imagenet_{split}.txt") for name, ids in of_split.items() if ids}
        assert 0 < len(filled) < len(of_split)
        assert filled & KNOWN_CATEGORIES
        assert filled & set(CATEGORIES) - KNOWN_CATEGORIES


def test_every_picture_but_one_is_in_one_list(tree):
    listed = lists_of(tree)
    ids = [image_id for listing in listed.values() for image_id in listing]
    assert len(ids) == len(set(ids))
    unlisted = [picture for picture in picture_paths(tree) if picture.stem not in ids]
    assert unlisted == [picture_at(tree, 4, 1)]


def test_captions(tree):
    image_captions = json.loads((tree / "captions" / "image_captions.json").read_text())
    pictures = {f"{path.parent.name}/{path.stem}" for path in picture_paths(tree)}
    assert len(pictures) == 72
    assert pictures - set(image_captions) == {
        f"{path.parent.name}/{path.stem}" for path in list(picture_paths(tree))[4::6]
    }
    car = picture_at(tree, 0, 1)
    assert image_captions[f"car/{car.stem}"] == "A rendering of car: <obj0> is the car, with 2 more nearby."
    category_captions = json.loads((tree / "captions" / "category_captions.json").read_text())
    assert set(category_order()[:12]) - set(category_captions) == {"desk_lamp"}


# --------------------------------------------------------------------------------------------------------
# What is odd
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (0, ("JPEG", "L", None)),
        (1, ("JPEG", "CMYK", None)),
        (2, ("PNG", "RGB", None)),
        (3, ("JPEG", "RGB", 6)),
    ],
)
def test_odd_pictures(tree, place, kind):
    with Image.open(picture_at(tree, place, 1)) as image:
        assert (image.format, image.mode, image.getexif().get(0x0112)) == kind


def test_all_other_pictures_are_plain(tree):
    kinds = Counter()
    for path in picture_paths(tree):
        with Image.open(path) as image:
            kinds[image.format, image.mode, image.getexif().get(0x0112)] += 1
    assert kinds["JPEG", "RGB", None] == 68


def test_odd_objects(tree):
    box_only = ["class", "height", "width", "bbox"]
    assert list(objects_at(tree, 4, 3)[2]) == box_only
    assert [list(annotation) for annotation in objects_at(tree, 5, 1)] == [box_only]
    assert "object_status" not in objects_at(tree, 6, 1)[-1]
    assert "dense" not in objects_at(tree, 7, 1)[-1]
    assert objects_at(tree, 8, 1)[-1]["ignore"] == 1
    assert objects_at(tree, 9, 1)[-1]["distance"] == 0


def test_both_densities_and_several_objects_occur(tree):
    counts, dense = Counter(), Counter()
    for picture in picture_paths(tree):
        annotations = objects_of(picture)
        counts[len(annotations)] += 1
        dense.update(annotation.get("dense") for annotation in annotations)
    assert counts[1] > counts[2] > 0
    assert counts[3] > 0
    assert dense["dense_yes"] > 0
    assert dense["dense_no"] > 0


# --------------------------------------------------------------------------------------------------------
# Arguments
# --------------------------------------------------------------------------------------------------------


def test_same_arguments_same_bytes_in_another_process(tree, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write_sample(here, categories=2, images_per_category=3)
    subprocess.run(
        [
            sys.executable,
            "-c",
            f"from processing.sample.command import write_sample; write_sample({str(there)!r}, 2, 3)",
        ],
        check=True,
        cwd=Path(sample.__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    written = all_bytes(here)
    assert written == all_bytes(there)
    # A larger tree begins with the same pictures.
    larger = all_bytes(tree)
    shared = [path for path in written if path.parts[0] in ("images", "annotations", "CAD")]
    assert len(shared) == 2 * (3 + 3 + 3)
    assert all(written[path] == larger[path] for path in shared)


def test_another_seed_is_another_tree(tmp_path):
    for seed in (0, 1):
        write_sample(tmp_path / str(seed), categories=1, images_per_category=2, seed=seed)
    trees = [all_bytes(tmp_path / str(seed)) for seed in (0, 1)]
    mesh = Path("CAD/car/01.off")
    assert trees[0][mesh] != trees[1][mesh]
    alike = {trees[0][CATEGORY_CAPTIONS], trees[0][Path(MARK)]}
    assert set(trees[0].values()) & set(trees[1].values()) <= alike


def test_the_smallest_trees_have_both_splits(tmp_path):
    for name, count in (("single", 1), ("pair", 2)):
        write_sample(tmp_path / name, categories=2, images_per_category=count, empty_lists=count == 1)
        for split in ("train", "val"):
            lists = (tmp_path / name / "lists").glob(f"*_{split}.txt")
            assert sum(len(path.read_text().split()) for path in lists) == count


def test_category_order_is_a_permutation_that_alternates():
    order = category_order()
    assert sorted(order) == sorted(CATEGORIES)
    assert [name in KNOWN_CATEGORIES for name in order[:20]] == [True, False] * 10


def test_refuses_what_is_there(tmp_path):
    (tmp_path / "file").write_text("precious")
    for out in (tmp_path, tmp_path / "file"):
        with pytest.raises(FileExistsError, match="name a new one"):
            write_sample(out)
    assert (tmp_path / "file").read_text() == "precious"


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sample, "_write_json", interrupted)  # after all pictures
        with pytest.raises(KeyboardInterrupt):
            write_sample(tmp_path / "out", 1, 2)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    write_sample(tmp_path / "out", 1, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in (tmp_path / "out").iterdir()} > {
        "images",
        "annotations",
        "lists",
        "captions",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"categories": 0},
        {"categories": 999},
        {"images_per_category": 0},
        {"images_per_category": 1},
        {"seed": -1},
    ],
)
def test_refuses_numbers_out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        write_sample(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
