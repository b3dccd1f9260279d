"""What an encoder computes on the way from pixels to features, as the agent runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fetchlab.networks.pixel_encoder import PixelEncoder

_CHUNK = 64  # images at a time: bounds the memory, changes no number by more than rounding


class Layers(NamedTuple):
    """One encoding: ``maps`` (B, F, h, w), ``pooled`` and ``features`` (B, D), all float32.

    ``features`` are ``pooled`` after the feature normalisation; without one they are the same.
    """

    maps: Tensor
    pooled: Tensor
    features: Tensor


@torch.no_grad()
def look(encoder: PixelEncoder, pixels: Tensor) -> Layers:
    """Encode ``pixels`` (B, C, H, W) uint8 and keep what lies before and after the pooling."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = encoder.pooling.register_forward_hook(
        lambda _pooling, inputs, pooled: seen.append((inputs[0], pooled))
    )
    try:
        features = torch.cat([encoder(chunk) for chunk in pixels.split(_CHUNK)])
    finally:
        hook.remove()
    maps, pooled = (torch.cat(column) for column in zip(*seen, strict=True))
    return Layers(maps, pooled, features)


def coordinates_of(encoder: PixelEncoder) -> Callable[[Tensor], Tensor]:
    """``pixels`` (B, C, H, W) uint8 -> (B, F, 2), the (x, y) of each map's spatial softmax.

    Before any feature normalisation, so in the softmax's own [-1, 1].
    """
    return lambda pixels: look(encoder, pixels).pooled.unflatten(1, (-1, 2))
