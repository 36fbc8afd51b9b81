"""Pictures of a synthetic release: scenes in drawn colours over a background."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from processing.drawing.raster import LIGHT, render, shade
from processing.geometry import (
    TWO_PI,
    camera_position,
    rotation_from_viewpoint,
)
from processing.sample.scenes import Placed, Scene, one_mesh


def draw_picture(rng: np.random.Generator, scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene over a background: (height, width, 3), RGB."""
    width, height = scene.size
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))](rng, width, height)
    colors = np.concatenate([_face_colors(rng, placed) for placed in scene.objects])
    points, depth, faces, _ = one_mesh(scene)
    drawn = render(points, depth, faces, colors, scene.size) / 255
    alpha = drawn[..., 3:]
    picture = np.clip(background, 0, 1) * (1 - alpha) + drawn[..., :3] * alpha
    return np.rint(picture * 255).astype(np.uint8)


def _face_colors(rng: np.random.Generator, placed: Placed) -> NDArray[np.float64]:
    """Return (F, 3): each tone of the model in colours drawn for this picture, lit from above the camera."""
    hue = rng.random()
    tones = np.array(
        [
            colorsys.hsv_to_rgb(hue, rng.uniform(0.6, 0.85), rng.uniform(0.65, 0.9)),
            colorsys.hsv_to_rgb((hue + rng.choice((-0.08, 0.08, 0.5))) % 1, rng.uniform(0.5, 0.75), 0.55),
            (0.17, 0.18, 0.22),
            (1.0, 0.94, 0.74),
        ]
    )
    model = placed.model
    eye = camera_position(placed.azimuth, placed.elevation, placed.distance)
    light = np.array(LIGHT) @ rotation_from_viewpoint(*placed.viewpoint)  # camera space to object space
    return shade(model.vertices, model.faces, tones[model.tones], eye, light)


def _pastel(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a pale colour, which objects, being vivid or dark, stand out against."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.04, 0.22), rng.uniform(0.74, 0.88)))


def _grid(width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the pixels' y, (height, 1), and x, (1, width), from 0 to 1."""
    return np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]


def _blend(share: ArrayLike, first: ArrayLike, second: ArrayLike) -> NDArray[np.float64]:
    """Mix two colours, (3,) or (height, width, 3), by shares (height, width) of the second one."""
    share = np.asarray(share, dtype=np.float64)[..., None]
    return np.asarray(first, np.float64) * (1 - share) + np.asarray(second, np.float64) * share


def _gradient(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    y, x = _grid(width, height)
    angle = rng.uniform(0, TWO_PI)
    ramp = (x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)
    return _blend(np.clip(ramp + 0.5, 0, 1), _pastel(rng), _pastel(rng) * 0.8)


def _checker(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    side = int(rng.integers(16, 40))
    squares = (np.arange(height)[:, None] // side + np.arange(width)[None, :] // side) % 2
    color = _pastel(rng)
    return _blend(squares, color, color * 0.88)


def _room(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    """A wall that darkens upwards and a tiled floor that recedes towards it."""
    y, x = _grid(width, height)
    horizon = rng.uniform(0.5, 0.7)
    wall, floor = _pastel(rng), _pastel(rng)
    below = np.maximum(y - horizon, 1e-3)
    tiles = (np.floor(0.5 / below) + np.floor((x - 0.5) * 1.5 / below)) % 2
    # Tiles far away are smaller than a pixel: fade them out instead.
    tiles *= np.clip(below * 6, 0, 1)
    upright = _blend(np.broadcast_to(1 - y / horizon, (height, width)) * 0.25, wall, wall * 0)
    return np.where((y > horizon)[..., None], _blend(tiles, floor * 0.95, floor * 0.78), upright)


# Each draws (height, width, 3), RGB about [0, 1].
BACKGROUNDS: Sequence[Callable[[np.random.Generator, int, int], NDArray[np.float64]]] = (
    _gradient,
    _checker,
    _room,
)
