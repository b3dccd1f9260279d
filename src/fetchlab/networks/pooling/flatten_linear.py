"""Flatten the feature maps and project them: what the image looks like, not where.

The study's ablation of spatial softmax (``--no-spatial-softmax``, cells B and C), 50 features as
in SAC-AE and DrQ (Yarats et al. 2019, arXiv 1910.01741). Their trunk also has a LayerNorm and a
tanh after the projection; the study's has neither, so neither has this.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from fetchlab.types import require

if TYPE_CHECKING:
    from torch import Tensor


class FlattenLinear(nn.Module):
    """One linear layer over all positions of all feature maps.

    Args:
        in_shape: ``(F, h, w)`` of one encoded image.
        features: size of the output, at least 1.

    Attributes:
        out_dim: ``features``.

    Raises:
        ConfigError: a size is not positive.
    """

    out_dim: int

    def __init__(self, in_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        require(min(in_shape) >= 1, "in_shape", in_shape, "positive sizes", "check the encoder")
        require(features >= 1, "pooling.features", features, "at least 1", "the study's is 50")
        self.linear = nn.Linear(math.prod(in_shape), features)
        self.out_dim = features

    def forward(self, maps: Tensor) -> Tensor:
        """Project ``maps`` (B, F, h, w) float to (B, features) float, unbounded."""
        return self.linear(maps.flatten(1))
