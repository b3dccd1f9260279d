"""Where a point of the world lies in the picture: MuJoCo's free camera as a pinhole, in numpy.

The camera stands ``distance`` behind ``lookat`` along its own direction, which azimuth and
elevation give, and sees `FOVY_DEGREES` of height; pictures are square, so as much of width. No
OpenGL: a rendered frame and its projected points come from the same five numbers.
"""

from __future__ import annotations

import math

import numpy as np
from gymnasium_robotics.envs.fetch.fetch_env import DEFAULT_CAMERA_CONFIG

from fetchlab.schema import Camera

FOVY_DEGREES = 45.0  # MuJoCo's default for a free camera; no Fetch model sets another


def project(points: np.ndarray, camera: Camera | None, image_size: int) -> np.ndarray:
    """Image positions of world points.

    Args:
        points: (..., 3) metres.
        camera: None is gymnasium's default camera.
        image_size: side of the square image, pixels.

    Returns:
        (..., 2) float64 pixels (x, y), not rounded: x is the column, growing to the right, y the
        row, growing downwards, and pixel centres are whole numbers, so the image reaches from -0.5
        to ``image_size - 0.5``. NaN for a point that is not in front of the camera.
    """
    if camera is None:
        camera = Camera(**DEFAULT_CAMERA_CONFIG)
    forward, right, up = _axes(camera)
    position = np.asarray(camera.lookat) - camera.distance * forward
    offset = np.asarray(points, np.float64) - position
    depth = offset @ forward
    # Half the picture's height where the point is, metres.
    half = np.where(depth > 0, depth, np.nan) * math.tan(math.radians(FOVY_DEGREES) / 2)
    centre, scale = (image_size - 1) / 2, image_size / 2
    x = centre + scale * (offset @ right) / half
    y = centre - scale * (offset @ up) / half
    return np.stack((x, y), axis=-1)


def _axes(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors forward, right and up, each (3,)."""
    azimuth, elevation = math.radians(camera.azimuth), math.radians(camera.elevation)
    level = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    vertical = np.array([0.0, 0.0, 1.0])
    forward = math.cos(elevation) * level + math.sin(elevation) * vertical
    up = math.cos(elevation) * vertical - math.sin(elevation) * level
    return forward, np.array([level[1], -level[0], 0.0]), up
