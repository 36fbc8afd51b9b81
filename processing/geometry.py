"""The geometry of an annotated pose: viewpoints, rotations, projection, mirroring and rotation error.

**Object space** is the space of the CAD mesh. A viewpoint is *azimuth* a, *elevation* e and in-plane rotation
*theta* t, in radians; the camera stands *distance* d from the object's origin, in units of the mesh, at

    C = d · (cos e · sin a, -cos e · cos a, sin e)

**Camera space** has x to the right, y up and z backwards, as in OpenGL: the camera looks along -z.
A point X of object space has the camera coordinates

    X_cam = R · X + (0, 0, -d),    R = Rz(t) · Rx(-(π/2 - e)) · Rz(-a)

where Rx and Rz turn counter-clockwise. Rx · Rz takes C to (0, 0, d), which is why the translation has no
other part; Rz(t) leaves it alone, so that theta turns the picture about the principal axis and never moves
the camera.

**Pixels** are continuous: a picture spans [0, width] x [0, height], x to the right and y down. With (X, Y,
Z) the camera coordinates and *viewport* the focal length in pixels, a point lands at

    x = px + viewport · X / (-Z),    y = py - viewport · Y / (-Z)

The object's origin therefore lands at (px, py), which in this model is the principal point too, and a
picture turned by theta is turned about (px, py).

Every function takes scalars or arrays and broadcasts them; "..." in a shape stands for the broadcast axes.
Results are float64. NaN goes in and NaN comes out, except where a rotation matrix is checked; None, which
rows hold where nothing is annotated, counts as NaN. So what depends on an absent viewport is NaN, and the
rest is not.

The model is that of PASCAL3D+ (Xiang, Mottaghi and Savarese, WACV 2014) in one matrix; ImageNet3D (Ma et
al., NeurIPS 2024) annotates with it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

TWO_PI = 2 * np.pi

# Room for matrices that a network produced in float32 or that were written with five digits.
ROTATION_TOLERANCE = 1e-4

# cos(elevation) below which azimuth and theta cannot be told apart in float64.
POLE_TOLERANCE = 1e-12


class Camera(NamedTuple):
    """Extrinsics and intrinsics in the convention named by the function that returns it."""

    R: NDArray[np.float64]  # (..., 3, 3)
    T: NDArray[np.float64]  # (..., 3), units of the mesh
    K: NDArray[np.float64]  # (..., 3, 3) for OpenCV, (..., 4, 4) for PyTorch3D, pixels


class MirroredAnnotation(NamedTuple):
    """The fields that change in a mirrored picture; `row | mirrored._asdict()` updates a row."""

    azimuth: NDArray[np.float64]  # (...), radians in [0, 2π)
    elevation: NDArray[np.float64]  # (...), radians
    theta: NDArray[np.float64]  # (...), radians in [0, 2π)
    px: NDArray[np.float64]  # (...), pixels
    bbox: NDArray[np.float64]  # (..., 4), x1, y1, x2, y2 in pixels


def wrap_angle(angle: ArrayLike) -> NDArray[np.float64]:
    """Bring angles in radians, of any shape, into [0, 2π).

    An angle so little below 0 that float64 would round it up to 2π becomes 0.
    """
    wrapped = np.mod(np.asarray(angle, dtype=np.float64), TWO_PI)
    return np.where(wrapped >= TWO_PI, 0.0, wrapped)


def rotation_from_viewpoint(
    azimuth: ArrayLike, elevation: ArrayLike, theta: ArrayLike
) -> NDArray[np.float64]:
    """Return the object-to-camera rotation of a viewpoint.

    Args:
        azimuth, elevation, theta: (...), radians, any range; 2π - 0.1, as annotated, means -0.1.

    Returns:
        (..., 3, 3) rotations R with X_cam = R · X + (0, 0, -distance): the product in the module's docstring,
        multiplied out.
    """
    azimuth, elevation, theta = np.broadcast_arrays(*_float64(azimuth, elevation, theta))
    sin_a, cos_a = np.sin(azimuth), np.cos(azimuth)
    sin_e, cos_e = np.sin(elevation), np.cos(elevation)
    sin_t, cos_t = np.sin(theta), np.cos(theta)
    rotation = np.empty((*azimuth.shape, 3, 3))
    rotation[..., 0, 0] = cos_t * cos_a + sin_t * sin_e * sin_a
    rotation[..., 0, 1] = cos_t * sin_a - sin_t * sin_e * cos_a
    rotation[..., 0, 2] = -sin_t * cos_e
    rotation[..., 1, 0] = sin_t * cos_a - cos_t * sin_e * sin_a
    rotation[..., 1, 1] = sin_t * sin_a + cos_t * sin_e * cos_a
    rotation[..., 1, 2] = cos_t * cos_e
    rotation[..., 2, 0] = cos_e * sin_a
    rotation[..., 2, 1] = -cos_e * cos_a
    rotation[..., 2, 2] = sin_e
    return rotation


def viewpoint_from_rotation(
    rotation: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the viewpoint of an object-to-camera rotation, the inverse of `rotation_from_viewpoint`.

    Looking straight down or up (elevation ±π/2), azimuth and theta turn about the same axis and only their
    sum or difference is seen. There azimuth is 0 by rule and theta holds all of the turn. Close to the
    poles azimuth alone is as uncertain as the matrix makes it, but the three angles together always give
    the matrix back.

    Args:
        rotation: (..., 3, 3) object-to-camera rotations.

    Returns:
        azimuth (...) in [0, 2π), elevation (...) in [-π/2, π/2] and theta (...) in [0, 2π), radians.

    Raises:
        ValueError: the shape is not (..., 3, 3), or a matrix is not a rotation.
    """
    rotation = _checked_rotation(rotation, "rotation")
    # The last row is the direction to the camera: (cos e · sin a, -cos e · cos a, sin e).
    cos_e = np.hypot(rotation[..., 2, 0], rotation[..., 2, 1])
    elevation = np.arctan2(rotation[..., 2, 2], cos_e)
    azimuth = np.arctan2(rotation[..., 2, 0], -rotation[..., 2, 1])
    azimuth = np.where(cos_e < POLE_TOLERANCE, 0.0, azimuth)
    # R · Rz(a) = Rz(t) · Rx has the first column (cos t, sin t, 0) at every elevation. Reading theta from
    # the last column instead would lose it near the poles, where that column is cos e times it.
    unturned = (
        rotation[..., :2, 0] * np.cos(azimuth)[..., None] + rotation[..., :2, 1] * np.sin(azimuth)[..., None]
    )
    theta = np.arctan2(unturned[..., 1], unturned[..., 0])
    return wrap_angle(azimuth), elevation, wrap_angle(theta)


def camera_position(azimuth: ArrayLike, elevation: ArrayLike, distance: ArrayLike) -> NDArray[np.float64]:
    """Return where the camera stands in object space: d · (cos e · sin a, -cos e · cos a, sin e).

    Args:
        azimuth, elevation: (...), radians, any range.
        distance: (...), units of the mesh.

    Returns:
        (..., 3), units of the mesh.
    """
    azimuth, elevation, distance = np.broadcast_arrays(*_float64(azimuth, elevation, distance))
    direction = np.stack(
        [np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)],
        axis=-1,
    )
    return distance[..., None] * direction


def project(
    points: ArrayLike,
    azimuth: ArrayLike,
    elevation: ArrayLike,
    theta: ArrayLike,
    distance: ArrayLike,
    px: ArrayLike,
    py: ArrayLike,
    viewport: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Project points of object space into the picture.

    Args:
        points: (M, 3), or (..., M, 3) with axes that broadcast against the pose; units of the mesh.
        azimuth, elevation, theta: (...), radians, any range.
        distance: (...), units of the mesh. Values <= 0 mark objects that were never placed in depth; they are
            computed as any other, and put the object's origin at or behind the camera.
        px, py: (...), pixels, where the object's origin lands.
        viewport: (...), focal length in pixels.

    Returns:
        pixels (..., M, 2) as x, y, continuous and not clipped to the picture; and depth (..., M) = -Z, in
        units of the mesh, positive in front of the camera. A point at or behind the camera (depth <= 0) has
        no picture: its pixels are NaN and its depth is given all the same.

    Raises:
        ValueError: the points' shape is not (..., M, 3), or shapes do not broadcast.
    """
    points = np.asarray(points, dtype=np.float64)
    if points.ndim < 2 or points.shape[-1] != 3:
        raise ValueError(f"points have the shape {points.shape}; give (M, 3), one row a point")
    distance, px, py, viewport = (value[..., None] for value in _float64(distance, px, py, viewport))
    turned = points @ np.swapaxes(rotation_from_viewpoint(azimuth, elevation, theta), -1, -2)
    depth = distance - turned[..., 2]
    # NaN in the divisor, so that a point on the camera's plane needs no division by zero.
    scale = viewport / np.where(depth > 0, depth, np.nan)
    pixels = np.stack(np.broadcast_arrays(px + scale * turned[..., 0], py - scale * turned[..., 1]), axis=-1)
    return pixels, np.broadcast_to(depth, pixels.shape[:-1])


def flip_viewpoint(
    azimuth: ArrayLike, elevation: ArrayLike, theta: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the viewpoint of the mirrored object in the horizontally mirrored picture.

    A mirrored picture shows the mirrored object: the mesh with x → -x. With M = diag(-1, 1, 1) its rotation
    is M · R · M, and since M turns Rz around and leaves Rx alone, that is the viewpoint (-a, e, -t). For an
    object that is its own mirror image across x = 0 the mesh stays the same.

    Args:
        azimuth, elevation, theta: (...), radians, any range.

    Returns:
        azimuth (...) in [0, 2π), elevation (...) as given, theta (...) in [0, 2π).
    """
    azimuth, elevation, theta = _float64(azimuth, elevation, theta)
    return wrap_angle(-azimuth), elevation, wrap_angle(-theta)


def flip_annotation(
    azimuth: ArrayLike,
    elevation: ArrayLike,
    theta: ArrayLike,
    px: ArrayLike,
    bbox: ArrayLike,
    width: ArrayLike,
) -> MirroredAnnotation:
    """Return what the fields of an object become when its picture is mirrored horizontally.

    Pixels go from x to width - x, continuous coordinates of a picture that spans [0, width]; the box's left
    and right side change places. Distance, py, viewport and everything else stay. The pose is that of the
    mirrored mesh: see `flip_viewpoint`.

    Args:
        azimuth, elevation, theta: (...), radians, any range.
        px: (...), pixels.
        bbox: (..., 4), x1, y1, x2, y2 in pixels.
        width: (...), of the picture, pixels.

    Returns:
        The changed fields; angles in [0, 2π) but for the elevation, which stays as given.

    Raises:
        ValueError: the box's last axis is not 4.
    """
    px, bbox, width = _float64(px, bbox, width)
    if bbox.shape[-1:] != (4,):
        raise ValueError(f"bbox has the shape {bbox.shape}; give (..., 4) as x1, y1, x2, y2")
    x1, y1, x2, y2 = np.moveaxis(bbox, -1, 0)
    flipped = np.stack(np.broadcast_arrays(width - x2, y1, width - x1, y2), axis=-1)
    return MirroredAnnotation(*flip_viewpoint(azimuth, elevation, theta), width - px, flipped)


def to_opencv(
    azimuth: ArrayLike,
    elevation: ArrayLike,
    theta: ArrayLike,
    distance: ArrayLike,
    px: ArrayLike,
    py: ArrayLike,
    viewport: ArrayLike,
) -> Camera:
    """Return the camera in OpenCV's convention: x right, y down, z forward, X_cam = R · X + T.

    Theta turns the picture about (px, py). Because (px, py) is the principal point of this model, that is a
    rotation about the principal axis and belongs to R; K holds (px, py) as the principal point, also where
    it is far from the picture's centre. With `cv2.projectPoints`, pass R through `cv2.Rodrigues` and no
    distortion.

    OpenCV puts the centre of the first pixel at (0, 0) when it samples pictures; the pixels here are those
    of the annotations, unshifted.

    Source: OpenCV documentation, module calib3d, "Camera Calibration and 3D Reconstruction".

    Args:
        azimuth, elevation, theta: (...), radians, any range.
        distance: (...), units of the mesh.
        px, py: (...), pixels.
        viewport: (...), focal length in pixels.

    Returns:
        R (..., 3, 3), T (..., 3) and K (..., 3, 3) with x ~ K · (R · X + T).
    """
    rotation = rotation_from_viewpoint(azimuth, elevation, theta)
    distance, px, py, viewport = _float64(distance, px, py, viewport)
    intrinsics = np.zeros((*np.broadcast_shapes(px.shape, py.shape, viewport.shape), 3, 3))
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = viewport
    intrinsics[..., 0, 2] = px
    intrinsics[..., 1, 2] = py
    intrinsics[..., 2, 2] = 1
    # From y up, z backwards: half a turn about x.
    return _same_batch(np.array([1.0, -1.0, -1.0])[:, None] * rotation, _ahead(distance), intrinsics)


def to_pytorch3d(
    azimuth: ArrayLike,
    elevation: ArrayLike,
    theta: ArrayLike,
    distance: ArrayLike,
    px: ArrayLike,
    py: ArrayLike,
    viewport: ArrayLike,
) -> Camera:
    """Return the camera in PyTorch3D's convention: x left, y up, z forward, row vectors X_cam = X · R + T.

    For `PerspectiveCameras(R=..., T=..., K=..., in_ndc=False, image_size=[(height, width)])`. In screen space
    PyTorch3D lets x and y of the picture grow against the camera's axes: x = px - viewport · X / Z and
    y = py - viewport · Y / Z. As in `to_opencv`, theta is in R and (px, py) is the principal point.

    Source: PyTorch3D documentation, note "Cameras" (coordinate systems, screen space), and the docstring of
    `PerspectiveCameras` for the layout of K.

    Args:
        azimuth, elevation, theta: (...), radians, any range.
        distance: (...), units of the mesh.
        px, py: (...), pixels.
        viewport: (...), focal length in pixels.

    Returns:
        R (..., 3, 3) for row vectors, T (..., 3) and K (..., 4, 4).
    """
    rotation = rotation_from_viewpoint(azimuth, elevation, theta)
    distance, px, py, viewport = _float64(distance, px, py, viewport)
    intrinsics = np.zeros((*np.broadcast_shapes(px.shape, py.shape, viewport.shape), 4, 4))
    intrinsics[..., 0, 0] = intrinsics[..., 1, 1] = viewport
    intrinsics[..., 0, 2] = px
    intrinsics[..., 1, 2] = py
    intrinsics[..., 2, 3] = intrinsics[..., 3, 2] = 1
    # From x right, z backwards: half a turn about y; transposed for row vectors.
    turned = np.array([-1.0, 1.0, -1.0])[:, None] * rotation
    return _same_batch(np.swapaxes(turned, -1, -2), _ahead(distance), intrinsics)


def is_rotation(rotation: ArrayLike, tolerance: float = ROTATION_TOLERANCE) -> NDArray[np.bool_]:
    """Tell which matrices are rotations: orthonormal, and right-handed, so that no reflection passes.

    Args:
        rotation: (..., 3, 3).
        tolerance: how far dot and cross products of the rows may be off, no unit.

    Returns:
        (...) of bool; False for matrices with NaN or infinity.

    Raises:
        ValueError: the shape is not (..., 3, 3).
    """
    rotation = _matrix(rotation, "rotation")
    first, second, third = rotation[..., 0, :], rotation[..., 1, :], rotation[..., 2, :]
    with np.errstate(invalid="ignore", over="ignore"):
        # The third row has to be the cross product of two unit, perpendicular ones.
        off = np.abs(_cross(first, second) - third).max(axis=-1)
        for product, wanted in [(_dot(first, first), 1), (_dot(second, second), 1), (_dot(first, second), 0)]:
            off = np.maximum(off, np.abs(product - wanted))
    return off <= tolerance


def rotation_error(predicted: ArrayLike, true: ArrayLike) -> NDArray[np.float64]:
    """Return the geodesic angle of predictedᵀ · true: the smallest turn that takes one rotation to the other.

    Of D = predictedᵀ · true, |axial vector| / 2 is the sine of the angle and (trace - 1) / 2 its cosine.
    The arc tangent of both is accurate to rounding over the whole range; the usual arc cosine of the trace
    loses half of the digits near 0 and near π (Huynh, "Metrics for 3D Rotations", JMIV 2009, gives the
    metric).

    Args:
        predicted: (..., 3, 3) object-to-camera rotations.
        true: (..., 3, 3), broadcast against the predicted ones.

    Returns:
        (...) radians in [0, π]; exactly 0 for a rotation against itself.

    Raises:
        ValueError: a shape is not (..., 3, 3), or a matrix is not a rotation.
    """
    predicted, true = _checked_rotation(predicted, "predicted"), _checked_rotation(true, "true")
    # Row by row: the axial vector of D is the sum of the rows' cross products, the trace that of their dot
    # products.
    sine = _cross(predicted, true).sum(axis=-2)
    cosine = (predicted * true).sum(axis=(-2, -1)) - 1
    return np.arctan2(np.sqrt(_dot(sine, sine)), cosine)


def _float64(*values: ArrayLike) -> list[NDArray[np.float64]]:
    return [np.asarray(value, dtype=np.float64) for value in values]


def _matrix(rotation: ArrayLike, name: str) -> NDArray[np.float64]:
    rotation = np.asarray(rotation, dtype=np.float64)
    if rotation.shape[-2:] != (3, 3):
        raise ValueError(
            f"{name} has the shape {rotation.shape}; give (..., 3, 3), nine numbers reshaped row by row"
        )
    return rotation


def _checked_rotation(rotation: ArrayLike, name: str) -> NDArray[np.float64]:
    rotation = _matrix(rotation, name)
    valid = is_rotation(rotation)
    if not valid.all():
        first = tuple(int(index) for index in np.argwhere(~valid)[0])
        raise ValueError(
            f"{name} holds {np.count_nonzero(~valid)} matrices of {valid.size} that are not rotations, the "
            f"first at {first}: {rotation[first].tolist()}; orthonormalise them (U · Vᵀ of the SVD, "
            "determinant +1)"
        )
    return rotation


def _cross(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    # np.cross moves axes about and takes several times as long on a million rows.
    x1, y1, z1 = left[..., 0], left[..., 1], left[..., 2]
    x2, y2, z2 = right[..., 0], right[..., 1], right[..., 2]
    return np.stack([y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2], axis=-1)


def _dot(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.einsum("...i,...i->...", left, right)


def _ahead(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (0, 0, distance): the object's origin in a camera that looks along +z."""
    translation = np.zeros((*distance.shape, 3))
    translation[..., 2] = distance
    return translation


def _same_batch(
    rotation: NDArray[np.float64], translation: NDArray[np.float64], intrinsics: NDArray[np.float64]
) -> Camera:
    batch = np.broadcast_shapes(rotation.shape[:-2], translation.shape[:-1], intrinsics.shape[:-2])
    return Camera(
        np.broadcast_to(rotation, (*batch, 3, 3)),
        np.broadcast_to(translation, (*batch, 3)),
        np.broadcast_to(intrinsics, batch + intrinsics.shape[-2:]),
    )
