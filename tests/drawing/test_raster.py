"""The rasteriser against definitions: pixel centres in triangles, planes cut by rays."""

import numpy as np
import pytest

from processing.drawing import raster
from processing.drawing.raster import drawing_costs, rasterize, render, shade

SIZE = (40, 30)  # width, height
TRIANGLE = np.array([[3.2, 4.1], [35.7, 11.3], [12.9, 27.6]])
FACE = np.array([[0, 1, 2]])


def inside(triangle, size=SIZE):
    """Pixels whose centre is in a triangle, by the sign of three cross products."""
    width, height = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    sides = [
        (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
        for a, b in zip(triangle, np.roll(triangle, -1, axis=0), strict=True)
    ]
    return np.all(np.array(sides) >= 0, axis=0) | np.all(np.array(sides) <= 0, axis=0)


@pytest.mark.parametrize("seed", range(50))
def test_a_triangle_covers_the_pixels_whose_centre_it_holds(seed):
    triangle = np.random.default_rng(seed).uniform(-20, 60, (3, 2))  # partly, or wholly, beyond the edges
    seen = rasterize(triangle, np.ones(3), FACE, SIZE)
    np.testing.assert_array_equal(seen.face >= 0, inside(triangle))
    np.testing.assert_array_equal(np.isfinite(seen.depth), seen.face >= 0)


def test_neighbours_leave_no_gap_and_share_no_pixel():
    rng = np.random.default_rng(0)
    border = [[0, 0], [20.5, 0], [40, 0], [40, 30], [17.3, 30], [0, 30]]
    fan = np.array([[18.4, 13.9], *border])
    # Some vertices exactly on pixel centres, where ties are decided.
    for center in (rng.uniform(5, 25, 2), [10.5, 10.5]):
        fan[0] = center
        faces = np.array([[0, i, i % 6 + 1] for i in range(1, 7)])
        times = sum((rasterize(fan, np.ones(7), face[None], SIZE).face >= 0).astype(int) for face in faces)
        np.testing.assert_array_equal(times, np.ones((30, 40)))


def test_depth_is_that_of_the_plane_the_ray_meets():
    focal, normal, offset = 30.0, np.array([0.4, -0.7, 1.0]), 5.0  # normal · X = offset
    x, y = TRIANGLE.T
    rays = np.column_stack([(x - 20) / focal, (y - 15) / focal, np.ones(3)])
    depth = offset / (rays @ normal)
    assert depth.max() > 1.5 * depth.min()  # so that interpolating depth itself would fail
    seen = rasterize(TRIANGLE, depth, FACE, SIZE)
    rows, columns = np.nonzero(seen.face == 0)
    rays = np.column_stack([(columns + 0.5 - 20) / focal, (rows + 0.5 - 15) / focal, np.ones(len(rows))])
    np.testing.assert_allclose(seen.depth[rows, columns], offset / (rays @ normal), rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 37, 1000, 10**9])
def test_is_the_same_however_many_faces_are_drawn_at_once(batch, monkeypatch):
    rng = np.random.default_rng(7)
    points, depth = rng.uniform(-30, 70, (60, 2)), rng.integers(1, 4, 60).astype(float)  # with ties
    points[:3] = [[np.nan] * 2, [1e300] * 2, [-1e300] * 2]
    depth[0] = -1
    faces = rng.integers(0, 60, (80, 3))
    expected = rasterize(points, depth, faces, SIZE)
    monkeypatch.setattr(raster, "_BATCH", batch)
    found = rasterize(points, depth, faces, SIZE)
    np.testing.assert_array_equal(found.face, expected.face)
    np.testing.assert_array_equal(found.depth, expected.depth)


@pytest.mark.parametrize("seed", range(20))
def test_costs_are_about_the_pixels_that_are_drawn(seed):
    triangle = np.random.default_rng(seed).uniform(-20, 60, (3, 2))
    drawn = np.count_nonzero(rasterize(triangle, np.ones(3), FACE, SIZE).face >= 0)
    (cost,) = drawing_costs(triangle, FACE, SIZE)
    assert drawn <= cost <= SIZE[0] * SIZE[1] + 4 * SIZE[1] + 1


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_the_nearer_of_two_crossing_triangles_is_seen(order):
    points = np.array([[0, 0], [40, 0], [0, 30], [40, 30], [0, 0], [40, 0], [0, 30], [40, 30]])
    inclined = np.array([1.0, 3.0, 1.0, 3.0])
    depth = np.concatenate([inclined, inclined[::-1]])
    quads = np.array([[[0, 1, 2], [1, 3, 2]], [[4, 5, 6], [5, 7, 6]]])[order]
    seen = rasterize(points, depth, quads.reshape(-1, 3), SIZE).face // 2
    # 1 / depth of both is the same in the middle column.
    np.testing.assert_array_equal(seen[:, :20], order.index(0))
    np.testing.assert_array_equal(seen[:, 20:], order.index(1))


@pytest.mark.parametrize("depth", [[1.0, 1.0, 0.0], [-1.0, 2.0, 2.0]])
def test_a_face_that_reaches_behind_the_camera_is_not_drawn(depth):
    points = np.where(np.array(depth)[:, None] > 0, TRIANGLE, np.nan)  # as `project` gives them
    assert (rasterize(points, depth, FACE, SIZE).face == -1).all()


def test_nothing_in_nothing_out():
    seen = rasterize(np.zeros((0, 2)), np.zeros(0), np.zeros((0, 3), dtype=int), SIZE)
    assert seen.face.shape == (30, 40)
    assert np.isinf(seen.depth).all()


def test_render_smooths_edges_and_keeps_colours_pure():
    quad = np.array([[2, 2], [10.5, 2], [2, 8], [10.5, 8]])
    faces, colors = np.array([[0, 1, 2], [1, 3, 2]]), np.array([[1.0, 0.5, 0.0]] * 2)
    picture = render(quad, np.ones(4), faces, colors, SIZE, supersampling=2)
    assert picture.shape == (30, 40, 4)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[5, 1], [0, 0, 0, 0])
    np.testing.assert_array_equal(picture[5, 2], [255, 128, 0, 255])
    np.testing.assert_array_equal(picture[5, 10], [255, 128, 0, 128])


def test_shade_is_brightest_towards_the_light_and_blind_to_winding():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=float)
    faces = np.array([[0, 1, 2], [0, 2, 1], [0, 2, 3]])
    shaded = shade(vertices, faces, np.ones((3, 3)), eye=(5, 5, 5), light=(0, 0, 2))
    np.testing.assert_allclose(shaded[0], 1)
    np.testing.assert_array_equal(shaded[0], shaded[1])
    assert (shaded[2] < shaded[0]).all()
