"""From pixels of the image to coordinates of a spatial softmax, and the signal in both.

`fetchlab.networks.pooling` puts the centres of a map's border cells at -1 and 1, so
neighbouring cells of a map w wide are 2 / (w - 1) apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from hydra.utils import instantiate

from fetchlab.schema import Camera
from measure.frames import Moments
from measure.projection import project

#: Pixels by which an image is enlarged to see its maps grow: a multiple of every usual stride.
_GROWTH_PX = 480


class Geometry(NamedTuple):
    """Sides of image and maps, and the pixels from one map cell to the next."""

    image_px: int
    map_cells: int
    stride_px: float

    @property
    def cells_per_px(self) -> float:
        """Map cells that a pixel of the image spans."""
        return 1 / self.stride_px

    @property
    def per_px(self) -> float:
        """Coordinate units in [-1, 1] that a pixel of the image spans."""
        return self.cells_per_px * 2 / (self.map_cells - 1)


def geometry(cfg: Mapping[str, Any]) -> Geometry:
    """Of the configured encoder, by its own ``out_shape``.

    The stride is how many pixels an image must grow for its maps to grow by one cell. The ratio of
    the sides would say something else: convolutions without padding lose cells at the border.
    """
    make, image_px = instantiate(cfg["encoder"]), cfg["obs"]["pixels"]["image_size"]
    channels = 3 * cfg["obs"]["frame_stack"]
    small, large = (
        make(in_channels=channels, image_size=size).out_shape[-1]
        for size in (image_px, image_px + _GROWTH_PX)
    )
    return Geometry(image_px, small, _GROWTH_PX / (large - small))


def uniform_std(largest: int) -> float:
    """Standard deviation of a whole number uniform in {-largest, ..., largest}."""
    return math.sqrt(((2 * largest + 1) ** 2 - 1) / 12)


def signal(cfg: Mapping[str, Any], moments: Moments, shape: Geometry) -> dict[str, Any] | None:
    """Where gripper and object are in the picture, apart from each other, in coordinate units.

    Returns:
        ``inside`` (share of moments with both in the picture), ``mean`` and ``std`` (x, y) of
        object minus gripper, ``std_rms`` over both axes, and their mean ``distance``; None for a
        task without an object.
    """
    if moments.object is None:
        return None
    camera = cfg["obs"]["pixels"].get("camera")
    seen_by = None if camera is None else Camera(**camera)
    places = [
        project(points.double().numpy(), seen_by, shape.image_px)
        for points in (moments.gripper, moments.object)
    ]
    low, high = -0.5, shape.image_px - 0.5
    inside = np.all([(low <= place) & (place <= high) for place in places], axis=(0, 2))
    apart = (places[1] - places[0]) * shape.per_px
    std = apart.std(axis=0)
    return {
        "inside": float(inside.mean()),
        "mean": apart.mean(axis=0).tolist(),
        "std": std.tolist(),
        "std_rms": float(np.sqrt((std**2).mean())),
        "distance": float(np.linalg.norm(apart, axis=1).mean()),
    }
