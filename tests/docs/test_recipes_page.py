"""The recipes run as they stand, one after the other, and give what other ways give."""

import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose
from support import PROJECT
from support.scored import damage_column

from processing.__main__ import main

pytestmark = pytest.mark.slow

PAGE = (PROJECT / "docs/recipes.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
WITHOUT_PICTURES = next(block for _, block in BLOCKS if '"filters"' in block)


@pytest.fixture(scope="module")
def space(
    built_sample: Path, sample_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The names that the page's blocks leave, run in a folder that holds a copy of the dataset.

    Before the recipes that read no pictures, those of train are destroyed: they must not notice.
    """
    folder = tmp_path_factory.mktemp("recipes")
    shutil.copytree(built_sample, folder / "ccvl/ImageNet3D")
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "cache")
        for language, block in BLOCKS:
            if block == WITHOUT_PICTURES:
                for shard in (folder / "ccvl/ImageNet3D/pose").glob("train-*.parquet"):
                    damage_column(shard, "image")
            if language == "python":
                exec(compile(block, f"block of recipes.md: {block[:60]}", "exec"), names)
            else:
                arguments = block.replace("imagenet3d_v1.zip", str(sample_folder)).split()[1:]
                done = CliRunner().invoke(main, arguments)
                assert done.exit_code == 0, done.output
    return names | {"folder": folder}


def projected(row: dict[str, Any], points: np.ndarray) -> np.ndarray:
    """Pixels of points of object space, by the camera's place and view alone."""
    a, e, t, d = (row[name] for name in ("azimuth", "elevation", "theta", "distance"))
    towards = np.array([np.cos(e) * np.sin(a), -np.cos(e) * np.cos(a), np.sin(e)])
    right = np.array([np.cos(a), np.sin(a), 0.0])
    up = np.cross(towards, right)
    seen = points - d * towards
    x, y, depth = seen @ right, seen @ up, -(seen @ towards)
    x, y = np.cos(t) * x - np.sin(t) * y, np.sin(t) * x + np.cos(t) * y
    f = row["viewport"]
    return np.stack([row["px"] + f * x / depth, row["py"] - f * y / depth], axis=-1)


def test_every_recipe_is_short() -> None:
    assert len(BLOCKS) >= 15
    assert max(block.count("\n") for _, block in BLOCKS) <= 20


def test_rotation_and_quaternion(space: dict[str, Any]) -> None:
    row = space["poses"][0]
    # The third row looks from the object to the camera; a turn by theta moves none of it.
    a, e = row["azimuth"], row["elevation"]
    assert_allclose(space["R"][2], [np.cos(e) * np.sin(a), -np.cos(e) * np.cos(a), np.sin(e)], atol=1e-12)
    w, x, y, z = (space[name] for name in "wxyz")
    vector = np.array([0.3, -1.2, 0.7])
    axis = np.array([x, y, z])
    turned = vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)
    assert_allclose(space["R"] @ vector, turned, atol=1e-12)
    assert np.cos(space["azimuth"] - a) == pytest.approx(1)


@pytest.mark.parametrize("convention", ["opencv", "pytorch3d"])
def test_cameras(space: dict[str, Any], convention: str) -> None:
    wanted = projected(space["poses"][0], np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.2]]))
    assert_allclose(space[f"pixels_{convention}"], wanted)


def test_opencv_itself_agrees(space: dict[str, Any]) -> None:
    cv2 = pytest.importorskip("cv2")
    from processing.geometry import to_opencv

    camera = to_opencv(*space["pose"])
    points = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.2]])
    seen, _ = cv2.projectPoints(points, cv2.Rodrigues(camera.R)[0], camera.T, camera.K, None)
    assert_allclose(seen[:, 0], space["pixels_opencv"], atol=1e-6)


def test_corners_and_mask_fit_the_box(space: dict[str, Any]) -> None:
    row = space["poses"][0]
    assert space["corners"].shape == (8, 3)
    assert_allclose(space["corner_pixels"], projected(row, space["corners"]))
    assert (space["corner_depth"] > 0).all()
    # The sample's boxes are the projections of its meshes.
    rows, columns = np.nonzero(space["mask"])
    x1, y1, x2, y2 = row["bbox"]
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert_allclose(seen, np.clip([x1, y1, x2, y2], 0, [row["width"], row["height"]] * 2), atol=1.5)


def test_omni3d_boxes_are_those_of_the_meshes(space: dict[str, Any]) -> None:
    coco = json.loads(json.dumps(space["coco"]))
    assert len(coco["annotations"]) == len(coco["images"]) == len(space["poses"])
    row, image, found = space["poses"][0], coco["images"][0], coco["annotations"][0]
    box = np.array(found["bbox3D_cam"])
    seen = box @ np.array(image["K"]).T
    mesh = space["meshes"][row["category"], row["cad_index"]]
    corners = np.array([[x, y, z] for x, y, z in np.ndindex(2, 2, 2)])
    wanted = projected(row, np.array(mesh["bounds"])[corners, [0, 1, 2]])
    pixels = seen[:, :2] / seen[:, 2:]
    assert_allclose(pixels[np.lexsort(pixels.round(6).T)], wanted[np.lexsort(wanted.round(6).T)])
    # The corners' order and the box's axes: from 0 to 1 goes the length, to 3 the height, to 4 the width.
    width, height, length = found["dimensions"]
    edges = [box[1] - box[0], box[3] - box[0], box[4] - box[0]]
    assert_allclose(np.array(edges).T, np.array(found["R_cam"]) * [length, height, width], atol=1e-12)
    assert np.linalg.det(found["R_cam"]) == pytest.approx(1)
    front, up = np.array(mesh["bounds"]).mean(axis=0) + np.array([[0, -1e-3, 0], [0, 0, 1e-3]])
    center = projected(row, np.array(mesh["bounds"]).mean(axis=0)[None])[0]
    for point, axis in ((front, 0), (up, 1)):
        moved = projected(row, point[None])[0] - center
        along = np.array(found["R_cam"])[:, axis] * (-1 if axis else 1)
        shown = (np.array(found["center_cam"]) + 1e-3 * along) @ np.array(image["K"]).T
        assert_allclose(shown[:2] / shown[2] - center, moved, atol=1e-9)


def test_bop_scene(space: dict[str, Any]) -> None:
    scene = space["folder"] / "bop/test/000001"
    cameras, truth = (json.loads((scene / f"scene_{name}.json").read_text()) for name in ("camera", "gt"))
    assert len(list((scene / "rgb").iterdir())) == len(cameras) == len(truth) == len(space["poses"])
    row, found = space["poses"][1], truth["1"][0]
    K = np.reshape(cameras["1"]["cam_K"], (3, 3))  # noqa: N806 - what everyone calls it
    seen = K @ (np.reshape(found["cam_R_m2c"], (3, 3)) @ [100.0, 50.0, 0.0] + found["cam_t_m2c"])
    assert_allclose(seen[:2] / seen[2], projected(row, np.array([[0.1, 0.05, 0.0]]))[0])
    assert space["models"][row["category"], row["cad_index"]] == found["obj_id"]


def test_the_words_are_what_is_seen(space: dict[str, Any]) -> None:
    assert len(space["talks"]) == len(space["poses"])
    row = space["poses"][0] | {"elevation": 0.0, "theta": 0.0}
    for azimuth in np.arange(-0.3, 7, 0.1):
        seen = row | {"azimuth": float(azimuth)}
        origin, front = projected(seen, np.array([[0.0, 0.0, 0.0], [0.0, -1e-3, 0.0]]))
        words = space["conversation"](seen)["conversations"][1]["value"]
        sideways = (front - origin)[0] / (seen["viewport"] / seen["distance"] * 1e-3)  # sine of the angle
        if abs(sideways) > np.sin(np.pi / 8) + 0.01:
            assert ("left" if sideways < 0 else "right") in words
        elif abs(sideways) < np.sin(np.pi / 8) - 0.01:
            assert "left" not in words
            assert "right" not in words
        if abs(np.cos(azimuth)) > np.sin(np.pi / 8) + 0.01:
            assert ("toward" if np.cos(azimuth) > 0 else "away") in words


def test_crops_have_height_and_width(space: dict[str, Any]) -> None:
    assert (space["height"], space["width"]) == (640, 800)


def test_what_reads_no_pictures(space: dict[str, Any], built_sample: Path) -> None:
    shards = sorted((built_sample / "pose").glob("train-*"))
    columns = ["category", "object_status", "elevation"]
    train = [row for shard in shards for row in pq.read_table(shard, columns=columns).to_pylist()]
    assert train
    category = space["chosen"]["filters"][0][2]
    assert len(space["angles"]) == sum(row["category"] == category for row in train) > 0
    assert "image" not in space["angles"].column_names
    assert sum(count for _, count, _ in space["counts"]) == sum(row["object_status"] == 0 for row in train)
    assert len(space["from_above"]) == sum(np.sin(row["elevation"]) > 0.5 for row in train) > 0


def test_tars_hold_the_pictures_and_their_fields(space: dict[str, Any]) -> None:
    import PIL.Image
    import webdataset

    (tar,) = space["folder"].glob("objects-*.tar")
    samples = list(webdataset.WebDataset(str(tar), shardshuffle=False))
    assert len(samples) == len(space["poses"])
    first, row = samples[0], space["poses"][0]
    assert PIL.Image.open(io.BytesIO(first["jpg"])).size == row["image"].size
    assert json.loads(first["json"])["azimuth"] == row["azimuth"]
