"""Properties of the camera model: against scipy, inverted, mirrored and in other conventions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.spatial.transform import Rotation

from processing import geometry

# A busy machine may take its time; what is measured here is numbers.
untimed = settings(deadline=None)

angles = st.floats(-4 * np.pi, 4 * np.pi)
# Half of the time within a hair of a pole, where the viewpoint is hardest to tell from the rotation.
close_to_a_pole = st.builds(
    lambda sign, exponent: sign * (np.pi / 2 - 10.0**exponent), st.sampled_from([-1, 1]), st.floats(-17, -1)
)
elevations = st.one_of(st.floats(-np.pi / 2, np.pi / 2), close_to_a_pole)
viewpoints = st.tuples(angles, elevations, angles)
rotations = viewpoints.map(lambda viewpoint: geometry.rotation_from_viewpoint(*viewpoint))
# distance, px, py, viewport; the points below lie within a distance of 1.8
placements = st.tuples(st.floats(2, 100), st.floats(-500, 2000), st.floats(-500, 2000), st.floats(100, 5000))

POINTS = np.array([[x, y, z] for x in (-1.0, 0.3, 1.0) for y in (-1.0, 0.1, 1.0) for z in (-1.0, 0.2, 1.0)])
MIRROR = np.array([-1.0, 1.0, 1.0])


def angle_between(left, right):
    """Return how far two angles are apart on the circle."""
    return np.abs(np.angle(np.exp(1j * (np.asarray(left) - np.asarray(right)))))


# What is not annotated


@pytest.mark.parametrize("absent", [None, np.nan])
def test_what_is_not_annotated_is_nan_and_nothing_else_is(absent):
    """A column of a table may be null, alone or for some of its rows."""
    view, whole = (0.4, 0.3, 6.1), (4.0, 100.0, 80.0, 3000.0)
    pixels, depth = geometry.project(POINTS, *view, 4.0, [100.0, absent], 80.0, 3000.0)
    assert np.isnan(pixels[1, :, 0]).all()
    assert_allclose(pixels[0], geometry.project(POINTS, *view, *whole)[0])
    assert np.isfinite(pixels[1, :, 1]).all()
    assert np.isfinite(depth).all()
    for convert in (geometry.to_opencv, geometry.to_pytorch3d):
        camera, sound = convert(*view, 4.0, 100.0, 80.0, absent), convert(*view, *whole)
        assert_allclose(camera.R, sound.R)
        assert_allclose(camera.T, sound.T)
        assert np.isnan(camera.K).any()
    mirrored = geometry.flip_annotation(*view, absent, (10.0, 20.0, 30.0, 40.0), 200)
    assert np.isnan(mirrored.px)
    assert_allclose(mirrored.bbox, (170, 20, 190, 40))
    assert np.isnan(geometry.rotation_from_viewpoint(absent, 0.3, 6.1)).any()
    assert np.isnan(geometry.wrap_angle([absent, 7.0])).tolist() == [True, False]


# Rotation and viewpoint


@untimed
@given(viewpoints)
def test_rotation_is_the_product_of_three_turns(viewpoint):
    azimuth, elevation, theta = viewpoint
    turns = [("z", theta), ("x", -(np.pi / 2 - elevation)), ("z", -azimuth)]
    product = np.eye(3)
    for axis, angle in turns:
        product = product @ Rotation.from_euler(axis, angle).as_matrix()
    assert_allclose(geometry.rotation_from_viewpoint(*viewpoint), product, atol=1e-14)


@untimed
@given(viewpoints)
def test_viewpoint_gives_the_rotation_back(viewpoint):
    rotation = geometry.rotation_from_viewpoint(*viewpoint)
    azimuth, elevation, theta = geometry.viewpoint_from_rotation(rotation)
    assert 0 <= azimuth < 2 * np.pi
    assert -np.pi / 2 <= elevation <= np.pi / 2
    assert 0 <= theta < 2 * np.pi
    assert_allclose(geometry.rotation_from_viewpoint(azimuth, elevation, theta), rotation, atol=5e-12)


@untimed
@given(angles, st.floats(-1.5, 1.5), angles)
def test_rotation_gives_the_viewpoint_back(azimuth, elevation, theta):
    rotation = geometry.rotation_from_viewpoint(azimuth, elevation, theta)
    again = geometry.viewpoint_from_rotation(rotation)
    assert angle_between(again[0], azimuth) < 1e-12
    assert again[1] == pytest.approx(elevation, abs=1e-13)
    assert angle_between(again[2], theta) < 1e-12


@untimed
@given(st.integers(0, 2**32 - 1))
def test_any_rotation_has_a_viewpoint(seed):
    rotation = Rotation.random(None, np.random.default_rng(seed)).as_matrix()
    viewpoint = geometry.viewpoint_from_rotation(rotation)
    assert_allclose(geometry.rotation_from_viewpoint(*viewpoint), rotation, atol=1e-12)


@untimed
@given(elevations, st.floats(0, 1))
def test_elevation_is_accurate_close_to_the_poles(elevation, azimuth):
    # An arc sine of the matrix's last entry would be off by up to 1e-8 here.
    rotation = geometry.rotation_from_viewpoint(azimuth, elevation, 0.5)
    assert geometry.viewpoint_from_rotation(rotation)[1] == pytest.approx(elevation, abs=1e-15)


@pytest.mark.parametrize("pole", [np.pi / 2, -np.pi / 2])
def test_at_a_pole_theta_holds_all_of_the_turn(pole):
    azimuth, elevation, theta = geometry.viewpoint_from_rotation(
        geometry.rotation_from_viewpoint(0.7, pole, 0.4)
    )
    assert azimuth == 0
    assert elevation == pytest.approx(pole)
    # From above the azimuth turns the picture against theta, from below along with it.
    assert theta == pytest.approx(0.4 - 0.7 + 2 * np.pi if pole > 0 else 0.4 + 0.7)


def test_released_elevations_past_pi_are_negative_ones():
    assert_allclose(
        geometry.rotation_from_viewpoint(1.0, 2 * np.pi - 0.1, 0.2),
        geometry.rotation_from_viewpoint(1.0, -0.1, 0.2),
        atol=1e-15,
    )


@pytest.mark.parametrize(("angle", "wrapped"), [(-1e-20, 0.0), (2 * np.pi, 0.0), (-0.5, 2 * np.pi - 0.5)])
def test_wrapped_angles_stay_below_a_full_turn(angle, wrapped):
    assert geometry.wrap_angle(angle) == wrapped
    assert geometry.wrap_angle(angle) < 2 * np.pi


@untimed
@given(viewpoints, st.floats(0.1, 100))
def test_camera_stands_at_the_origin_of_camera_space(viewpoint, distance):
    position = geometry.camera_position(viewpoint[0], viewpoint[1], distance)
    in_camera = geometry.rotation_from_viewpoint(*viewpoint) @ position - [0, 0, distance]
    assert_allclose(in_camera, 0, atol=1e-12)


# Projection


@pytest.mark.parametrize(
    ("viewpoint", "point", "pixel", "depth"),
    [
        # From the front: the camera at (0, -5, 0) sees x to the right and z up.
        ((0, 0, 0), (0, 0, 0), (100, 200), 5),
        ((0, 0, 0), (1, 0, 0), (110, 200), 5),
        ((0, 0, 0), (0, 0, 1), (100, 190), 5),
        ((0, 0, 0), (1, 5, 1), (105, 195), 10),
        # Azimuth a quarter turn: the camera at (5, 0, 0) sees y to the right.
        ((np.pi / 2, 0, 0), (0, 1, 0), (110, 200), 5),
        # From above: the camera at (0, 0, 5) sees y up.
        ((0, np.pi / 2, 0), (0, 1, 0), (100, 190), 5),
        ((0, np.pi / 2, 0), (0, 0, 1), (100, 200), 4),
        # Theta a quarter turn takes what was on the right up: counter-clockwise in the picture.
        ((0, 0, np.pi / 2), (1, 0, 0), (100, 190), 5),
    ],
)
def test_projection_of_known_points(viewpoint, point, pixel, depth):
    pixels, depths = geometry.project([point], *viewpoint, 5, 100, 200, 50)
    assert_allclose(pixels, [pixel], atol=1e-12)
    assert_allclose(depths, [depth], atol=1e-12)


@untimed
@given(viewpoints, placements, rotations)
def test_turning_mesh_and_viewpoint_together_changes_no_pixel(viewpoint, placement, turn):
    pixels, depth = geometry.project(POINTS, *viewpoint, *placement)
    turned_viewpoint = geometry.viewpoint_from_rotation(geometry.rotation_from_viewpoint(*viewpoint) @ turn.T)
    turned_pixels, turned_depth = geometry.project(POINTS @ turn.T, *turned_viewpoint, *placement)
    assert_allclose(turned_pixels, pixels, atol=1e-5)
    assert_allclose(turned_depth, depth, atol=1e-9)


@untimed
@given(viewpoints, placements)
def test_depth_is_the_distance_along_the_view(viewpoint, placement):
    distance = placement[0]
    camera = geometry.camera_position(viewpoint[0], viewpoint[1], distance)
    _, depth = geometry.project(POINTS, *viewpoint, *placement)
    assert_allclose(depth, (camera - POINTS) @ camera / distance, atol=1e-10)


def test_points_at_or_behind_the_camera_have_no_pixels():
    points = [[0, -2, 0], [0.5, -3, 0.5], [0, 0, 0]]
    pixels, depth = geometry.project(points, 0, 0, 0, 2, 100, 200, 50)
    assert_allclose(depth, [0, -1, 2], atol=1e-15)
    assert np.isnan(pixels[:2]).all()
    assert_allclose(pixels[2], [100, 200])


def test_a_batch_is_its_members_one_by_one():
    rng = np.random.default_rng(0)
    poses = np.concatenate([rng.uniform(-3, 3, (3, 7)), rng.uniform(3, 9, (4, 7))])
    pixels, depth = geometry.project(POINTS, *poses)
    assert pixels.shape == (7, len(POINTS), 2)
    assert depth.shape == (7, len(POINTS))
    for number, pose in enumerate(poses.T):
        one_pixels, one_depth = geometry.project(POINTS, *pose)
        assert_allclose(pixels[number], one_pixels)
        assert_allclose(depth[number], one_depth)


@pytest.mark.parametrize("scalar", range(7))
def test_every_pose_field_broadcasts(scalar):
    fields = [np.full((2, 3), value) for value in (0.1, 0.2, 0.3, 5.0, 100.0, 200.0, 50.0)]
    expected = geometry.project(POINTS, *fields)
    fields[scalar] = fields[scalar][0, 0]
    for found, wanted in zip(geometry.project(POINTS, *fields), expected, strict=True):
        assert_allclose(found, wanted)
        assert found.shape == wanted.shape


def test_only_one_field_may_be_a_batch():
    pixels, depth = geometry.project(POINTS, 0.1, 0.2, 0.3, 5.0, 100.0, np.array([1.0, 2.0]), 50.0)
    assert pixels.shape == (2, len(POINTS), 2)
    assert depth.shape == (2, len(POINTS))
    assert_allclose(pixels[1] - pixels[0], np.broadcast_to([0, 1], (len(POINTS), 2)))


@pytest.mark.parametrize("points", [[1.0, 2.0, 3.0], np.zeros((4, 2)), 1.0])
def test_projection_refuses_points_of_other_shapes(points):
    with pytest.raises(ValueError, match=r"give \(M, 3\)"):
        geometry.project(points, 0, 0, 0, 5, 100, 200, 50)


# Mirroring


@untimed
@given(viewpoints, placements, st.floats(1, 4000))
def test_flipped_mesh_projects_onto_mirrored_pixels(viewpoint, placement, width):
    distance, px, py, viewport = placement
    pixels, depth = geometry.project(POINTS, *viewpoint, *placement)
    box = [*pixels.min(axis=0), *pixels.max(axis=0)]
    flipped = geometry.flip_annotation(*viewpoint, px, box, width)
    mirrored, mirrored_depth = geometry.project(
        POINTS * MIRROR, flipped.azimuth, flipped.elevation, flipped.theta, distance, flipped.px, py, viewport
    )
    assert_allclose(mirrored, [width, 0] + pixels * [-1, 1], atol=1e-6)
    assert_allclose(mirrored_depth, depth, atol=1e-12)
    assert_allclose(flipped.bbox, [*mirrored.min(axis=0), *mirrored.max(axis=0)], atol=1e-6)


@untimed
@given(viewpoints, st.floats(-500, 2000), st.floats(1, 4000))
def test_flipping_twice_is_identity(viewpoint, px, width):
    box = np.array([10.5, 20, 300, 400])
    once = geometry.flip_annotation(*viewpoint, px, box, width)
    twice = geometry.flip_annotation(once.azimuth, once.elevation, once.theta, once.px, once.bbox, width)
    assert angle_between(twice.azimuth, viewpoint[0]) < 1e-14
    assert twice.elevation == viewpoint[1]
    assert angle_between(twice.theta, viewpoint[2]) < 1e-14
    assert twice.px == pytest.approx(px, abs=1e-9)
    assert_allclose(twice.bbox, box, atol=1e-9)


def test_flip_of_a_batch():
    flipped = geometry.flip_annotation(
        np.array([0.0, 1.0]),
        0.2,
        np.array([0.0, 2.0]),
        10,
        np.array([[0, 1, 5, 6], [2, 3, 8, 9]]),
        [100, 200],
    )
    assert_allclose(flipped.azimuth, [0, 2 * np.pi - 1])
    assert_allclose(flipped.theta, [0, 2 * np.pi - 2])
    assert_allclose(flipped.px, [90, 190])
    assert_allclose(flipped.bbox, [[95, 1, 100, 6], [192, 3, 198, 9]])


def test_flip_updates_a_row():
    row = {"azimuth": 1.0, "elevation": 0.1, "theta": 0.2, "px": 30.0, "bbox": [0, 1, 2, 3], "width": 100}
    flipped = geometry.flip_annotation(**row)
    assert set(flipped._asdict()) == set(row) - {"width"}


def test_flip_refuses_a_box_of_other_shapes():
    with pytest.raises(ValueError, match=r"bbox has the shape \(3,\)"):
        geometry.flip_annotation(0, 0, 0, 10, [1, 2, 3], 100)


# Other conventions


@untimed
@given(viewpoints, placements)
def test_opencv_camera_projects_onto_the_same_pixels(viewpoint, placement):
    pixels, depth = geometry.project(POINTS, *viewpoint, *placement)
    camera = geometry.to_opencv(*viewpoint, *placement)
    in_camera = POINTS @ camera.R.T + camera.T
    homogeneous = in_camera @ camera.K.T
    assert_allclose(in_camera[:, 2], depth, atol=1e-10)
    assert_allclose(homogeneous[:, :2] / homogeneous[:, 2:], pixels, atol=1e-6)
    assert np.linalg.det(camera.R) == pytest.approx(1)


@untimed
@given(viewpoints, placements)
def test_pytorch3d_camera_projects_onto_the_same_pixels(viewpoint, placement):
    width, height = 640, 480
    pixels, depth = geometry.project(POINTS, *viewpoint, *placement)
    camera = geometry.to_pytorch3d(*viewpoint, *placement)
    in_camera = POINTS @ camera.R + camera.T
    # What PyTorch3D does with a camera in screen space: the principal point goes to the other side of 0, NDC
    # has (1, 1) top left at the shorter side, and the screen is NDC turned by half a turn.
    projected = np.column_stack([in_camera, np.ones(len(POINTS))]) @ camera.K.T
    principal = camera.K[:2, 2]
    ndc = (projected[:, :2] / projected[:, 3:] - 2 * principal + [width / 2, height / 2]) / (height / 2)
    screen = [width / 2, height / 2] - ndc * (height / 2)
    assert_allclose(in_camera[:, 2], depth, atol=1e-10)
    assert_allclose(screen, pixels, atol=1e-6)
    assert np.linalg.det(camera.R) == pytest.approx(1)


@pytest.mark.parametrize(("convert", "size"), [(geometry.to_opencv, 3), (geometry.to_pytorch3d, 4)])
def test_cameras_of_a_batch_share_its_shape(convert, size):
    camera = convert(0.1, 0.2, 0.3, np.array([1.0, 2.0]), 10, np.array([[1.0], [2.0], [3.0]]), 50)
    assert [field.shape for field in camera] == [(3, 2, 3, 3), (3, 2, 3), (3, 2, size, size)]


# Rotation error


@untimed
@given(rotations, rotations)
def test_error_agrees_with_scipy(first, second):
    magnitude = (Rotation.from_matrix(first).inv() * Rotation.from_matrix(second)).magnitude()
    assert geometry.rotation_error(first, second) == pytest.approx(magnitude, abs=1e-7)


@untimed
@given(rotations, rotations, rotations)
def test_error_is_a_metric(first, second, third):
    assert geometry.rotation_error(first, first) == 0
    assert geometry.rotation_error(first, second) == geometry.rotation_error(second, first)
    around = geometry.rotation_error(first, second) + geometry.rotation_error(second, third)
    assert geometry.rotation_error(first, third) <= around + 1e-12


@untimed
@given(rotations, st.floats(0, 1), st.floats(-18, 0), st.booleans(), st.integers(0, 2**32 - 1))
def test_error_is_accurate_near_nothing_and_near_half_a_turn(rotation, part, exponent, opposite, seed):
    angle = part * 10.0**exponent
    angle = np.pi - angle if opposite else angle
    axis = np.random.default_rng(seed).normal(size=3)
    turn = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    assert geometry.rotation_error(rotation, rotation @ turn) == pytest.approx(angle, abs=1e-14)


@untimed
@given(viewpoints)
def test_the_opposite_pose_is_half_a_turn_away(viewpoint):
    azimuth, elevation, theta = viewpoint
    error = geometry.rotation_error(
        geometry.rotation_from_viewpoint(azimuth, elevation, theta),
        geometry.rotation_from_viewpoint(azimuth, elevation, theta + np.pi),
    )
    assert error == pytest.approx(np.pi, abs=1e-14)
    assert error <= np.pi


@untimed
@given(rotations, rotations, rotations)
def test_error_does_not_depend_on_the_frame(first, second, turn):
    error = geometry.rotation_error(first, second)
    assert geometry.rotation_error(turn @ first, turn @ second) == pytest.approx(error, abs=1e-14)
    assert geometry.rotation_error(first @ turn, second @ turn) == pytest.approx(error, abs=1e-14)


def test_error_broadcasts():
    rotations = geometry.rotation_from_viewpoint(np.array([[0.0, 0.1, 0.2]] * 2), 0, 0)
    assert_allclose(geometry.rotation_error(rotations, rotations[0, 0]), [[0, 0.1, 0.2]] * 2, atol=1e-15)


def test_single_precision_rotations_are_accepted():
    rotation = geometry.rotation_from_viewpoint(1.0, 0.5, 0.2)
    assert geometry.rotation_error(rotation.astype(np.float32), rotation) < 1e-6


@pytest.mark.parametrize(
    "matrix",
    [
        np.diag([1.0, 1.0, -1.0]),
        np.zeros((3, 3)),
        1.01 * np.eye(3),
        np.eye(3) + np.eye(3, k=1) * 0.01,
        np.full((3, 3), np.nan),
        np.full((3, 3), np.inf),
    ],
    ids=["reflection", "zero", "scaled", "sheared", "nan", "infinite"],
)
def test_what_is_no_rotation_is_refused_by_name(matrix):
    stacked = np.stack([np.eye(3), matrix])
    assert geometry.is_rotation(stacked).tolist() == [True, False]
    with pytest.raises(
        ValueError, match=r"predicted holds 1 matrices of 2 .* first at \(1,\).*orthonormalise"
    ):
        geometry.rotation_error(stacked, np.eye(3))
    with pytest.raises(ValueError, match="true holds 1 matrices of 2"):
        geometry.rotation_error(np.eye(3), stacked)
    with pytest.raises(ValueError, match="rotation holds 1 matrices of 2"):
        geometry.viewpoint_from_rotation(stacked)


@pytest.mark.parametrize("shape", [(9,), (3,), (3, 4), (4, 3)])
def test_matrices_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"give \(\.\.\., 3, 3\)"):
        geometry.rotation_error(np.zeros(shape), np.eye(3))
