"""Sides of feature maps: what a stack of square layers leaves of a square image.

Every encoder asks here at construction, so that an image too small for it is refused with the
smallest size that would do, before anything is simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from fetchlab.errors import require

MIN_MAP_SIDE = 2  # below this there is no position left to speak of


class Layer(NamedTuple):
    """One convolution or pooling layer: its kernel, stride and padding, in pixels."""

    kernel: int
    stride: int
    padding: int


def output_side(side: int, layers: Sequence[Layer]) -> int:
    """Side of the last map: ``floor((n + 2 padding - kernel) / stride) + 1`` layer by layer.

    Args:
        side: of the image, pixels.
        layers: in order.

    Returns:
        the side, or 0 where a kernel no longer fits.
    """
    for kernel, stride, padding in layers:
        side = max((side + 2 * padding - kernel) // stride + 1, 0)
    return side


def check_image(in_channels: int, image_size: int, layers: Sequence[Layer]) -> int:
    """Return the side of the last map, refusing what the layers cannot encode.

    Args:
        in_channels: stacked frames x 3, at least 1.
        image_size: side of the square image, pixels.
        layers: in order.

    Raises:
        ConfigError: no channels, or maps smaller than 2x2; the remedy names the least size.
    """
    require(in_channels >= 1, "in_channels", in_channels, "at least 1", "use stack x 3 channels")
    side = output_side(image_size, layers) if image_size >= 1 else 0
    least = next(size for size in count(1) if output_side(size, layers) >= MIN_MAP_SIDE)
    require(
        side >= MIN_MAP_SIDE,
        "image_size",
        image_size,
        f"an image that leaves feature maps of {MIN_MAP_SIDE}x{MIN_MAP_SIDE} or more",
        f"use at least {least} pixels; the study's is 84",
    )
    return side
