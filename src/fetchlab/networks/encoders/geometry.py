"""What every stack of square layers asks at construction: sides of maps, and its convolutions.

An image too small for an encoder is refused with the smallest size that would do, before anything
is simulated. What is left of one, channels, height and width, is every encoder's ``out_shape``. All
are built for ``in_channels``, stacked frames x 3 of each camera, and the side ``image_size`` of a
square image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from fetchlab.errors import require

MIN_MAP_SIDE = 2  # below this there is no position left to speak of


class Layer(NamedTuple):
    """One convolution or pooling layer: its kernel, stride and padding, in pixels."""

    kernel: int
    stride: int
    padding: int


def output_side(side: int, layers: Sequence[Layer]) -> int:
    """Side of the last map, 0 where a kernel no longer fits."""
    for kernel, stride, padding in layers:
        side = max((side + 2 * padding - kernel) // stride + 1, 0)
    return side


def check_image(image_size: int, layers: Sequence[Layer]) -> int:
    """Side of the last map; `ConfigError`, with the least size, where it would be below 2x2."""
    side = output_side(image_size, layers) if image_size >= 1 else 0
    least = MIN_MAP_SIDE
    for kernel, stride, padding in reversed(layers):
        least = max((least - 1) * stride + kernel - 2 * padding, 1)
    expected = f"an image that leaves feature maps of {MIN_MAP_SIDE}x{MIN_MAP_SIDE} or more"
    remedy = f"use at least {least} pixels; the study's is 84"
    require(side >= MIN_MAP_SIDE, "image_size", image_size, expected, remedy)
    return side


def convolutions(
    in_channels: int,
    filters: Sequence[int],
    layers: Sequence[Layer],
    conv: Callable[..., nn.Conv2d] = nn.Conv2d,
) -> list[nn.Module]:
    """A convolution of each layer, of so many filters, and a ReLU after each."""
    stack: list[nn.Module] = []
    for n_in, n_out, layer in zip((in_channels, *filters), filters, layers, strict=False):
        # A ReLU's gradient needs only its own output.
        stack += [conv(n_in, n_out, *layer), nn.ReLU(inplace=True)]
    return stack
