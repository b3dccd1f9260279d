"""The shared image encoder: uint8 pixels -> convolutions -> pooling -> norm -> feature vector.

The one place where pixels become floats. What trains it is the routing's choice, not its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from fetchlab.entries import Encoder, Pooling

_UINT8_MAX = 255


class PixelEncoder(nn.Module):
    """A convolutional network, its pooling and what normalises its features, as one module.

    Args:
        cnn: `types.Encoder`, maps (B, C, H, W) float in [0, 1] to feature maps.
        pooling: `types.Pooling`, built for ``cnn.out_shape``.
        feature_norm: (B, D) float to (B, D) float, built for ``pooling.out_dim``; `nn.Identity`
            leaves the features as they are.

    Attributes:
        out_dim: size D of the feature vector, ``pooling.out_dim``.
    """

    out_dim: int

    def __init__(self, cnn: Encoder, pooling: Pooling, feature_norm: nn.Module) -> None:
        super().__init__()
        self.cnn = cnn
        self.pooling = pooling
        self.feature_norm = feature_norm
        self.out_dim = pooling.out_dim

    def forward(self, pixels: Tensor, is_scaled: bool = False) -> Tensor:
        """Encode ``pixels`` (B, C, H, W) uint8, in any memory format, as (B, D) float.

        Args:
            pixels: images.
            is_scaled: they are what `scaled` made of them, once for several encoders.
        """
        if not is_scaled:
            pixels = scaled(pixels, torch.float32, torch.preserve_format)
        return self.feature_norm(self.pooling(self.cnn(pixels)))


def scaled(pixels: Tensor, dtype: torch.dtype, memory_format: torch.memory_format) -> Tensor:
    """``pixels`` (B, C, H, W) uint8 as numbers in [0, 1], converted in one pass over them.

    In bfloat16, which holds 0 .. 255 exactly, these are the rounded numbers of float32.

    Raises:
        TypeError: the pixels are not uint8 (scaling floats again would blacken them silently).
    """
    if pixels.dtype != torch.uint8:
        raise TypeError(f"pixels.dtype={pixels.dtype}: expected torch.uint8; pass raw frames")
    return pixels.to(dtype, memory_format=memory_format).div_(_UINT8_MAX)
