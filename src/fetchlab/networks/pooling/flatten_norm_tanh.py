"""Flatten, project, LayerNorm, tanh: the trunk of SAC-AE and DrQ.

Yarats et al. 2019, "Improving Sample Efficiency in Model-Free Reinforcement Learning from Images"
(arXiv 1910.01741): one linear layer to 50 features, a LayerNorm (Ba et al. 2016, arXiv 1607.06450)
and a tanh, so the heads see numbers in [-1, 1] however large the maps are. DrQ and DrQ-v2 kept it.
`flatten_linear` is the same without the last two.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from fetchlab.types import require

if TYPE_CHECKING:
    from torch import Tensor


class FlattenNormTanh(nn.Module):
    """``tanh(LayerNorm(W maps + b))`` over all positions of all feature maps.

    Args:
        in_shape: ``(F, h, w)`` of one encoded image.
        features: size of the output, at least 2 (of one number, LayerNorm leaves only its bias).

    Attributes:
        out_dim: ``features``.

    Raises:
        ConfigError: a size is too small.
    """

    out_dim: int

    def __init__(self, in_shape: tuple[int, int, int], features: int) -> None:
        super().__init__()
        require(min(in_shape) >= 1, "in_shape", in_shape, "positive sizes", "check the encoder")
        require(features >= 2, "pooling.features", features, "at least 2", "the paper's is 50")
        self.linear = nn.Linear(math.prod(in_shape), features)
        self.norm = nn.LayerNorm(features)
        self.out_dim = features

    def forward(self, maps: Tensor) -> Tensor:
        """Project ``maps`` (B, F, h, w) float to (B, features) float32 in [-1, 1]."""
        projected = self.linear(maps.flatten(1))
        # bfloat16 resolves a tanh near 1 to 2^-8: leave autocast once the large product is done.
        with torch.autocast(maps.device.type, enabled=False):
            return torch.tanh(self.norm(projected.float()))
