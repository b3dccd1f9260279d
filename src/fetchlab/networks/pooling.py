"""From feature maps (B, F, h, w) to a vector: where a feature fires, or what the image looks like.

- `SpatialSoftmax`: each map becomes the image coordinates where it fires. Levine et al. 2016 (arXiv
  1504.00702, section 4), with the learned temperature of Finn et al. 2016 (arXiv 1509.06113,
  section IV): ``s = softmax(a / T)`` over a map's positions; the feature point is the expected
  position under ``s``.
- `FlattenLinear`: flatten and project, the study's ablation of it (cells B and C), to 50 features
  as in SAC-AE and DrQ (Yarats et al. 2019, arXiv 1910.01741), without their LayerNorm and tanh.
- `FlattenNormTanh`: their whole trunk, with LayerNorm (Ba et al. 2016, arXiv 1607.06450) and tanh,
  so that the heads see numbers in [-1, 1] however large the maps are. DrQ-v2 kept it.
- `GlobalAverage`: how much of each feature is in the image, and nothing of where (Lin et al. 2013,
  arXiv 1312.4400, section 3.2): the control that says how much of a task needs positions.

All are built for ``in_shape``, the ``(F, h, w)`` of one encoded image, and say their ``out_dim``.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor, nn

from fetchlab.errors import require
from fetchlab.fields import Above, Hint, Min


class SpatialSoftmax(nn.Module):
    """Expected (x, y) of each feature map, in [-1, 1], pixel centres of the border at -1 and 1.

    The temperature is one learned number for all maps. Its logarithm is the parameter, so it stays
    positive whatever the optimizer does, and a step changes it by a ratio.

    Args:
        in_shape: ``(F, h, w)``, h and w at least 2.
        temperature: start value of T; 1 is the plain softmax.

    The vector is laid out x_1, y_1, x_2, y_2, ...; x grows to the right, y downwards.

    Raises:
        ConfigError: a map narrower than two positions.
    """

    grid: Tensor

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        temperature: Annotated[float, Above(0), Hint("use 1.0 for the plain softmax")],
    ) -> None:
        super().__init__()
        filters, height, width = in_shape
        fits, remedy = min(height, width) >= 2, "use a larger image or smaller strides"
        require(fits, "in_shape", in_shape, "maps of 2x2 or more", remedy)
        sides = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        y, x = torch.meshgrid(*sides, indexing="ij")
        # Derived from the shape, so not in the state dict.
        self.register_buffer("grid", torch.stack((x.flatten(), y.flatten()), 1), persistent=False)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.out_dim = 2 * filters

    def forward(self, maps: Tensor) -> Tensor:
        """Pool ``maps`` (B, F, h, w) float into coordinates (B, 2F) float32 in [-1, 1]."""
        # bfloat16 resolves coordinates near 1 to 2^-8, which is the signal here: leave autocast.
        with torch.autocast(maps.device.type, enabled=False):
            scores = maps.flatten(2).float() * torch.exp(-self.log_temperature)
            return (scores.softmax(dim=-1) @ self.grid).flatten(1)


class FlattenLinear(nn.Module):
    """One linear layer over all positions of all feature maps, to ``features`` numbers."""

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        features: Annotated[int, Min(1), Hint("the study's is 50")],
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(in_shape), features)
        self.out_dim = features

    def forward(self, maps: Tensor) -> Tensor:
        """Project ``maps`` (B, F, h, w) float to (B, features) float, unbounded."""
        return self.linear(maps.flatten(1))


class FlattenNormTanh(nn.Module):
    """``tanh(LayerNorm(W maps + b))`` over all positions of all maps, to ``features`` numbers.

    At least two: of one number, LayerNorm leaves only its bias.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int],
        features: Annotated[int, Min(2), Hint("the paper's is 50")],
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(in_shape), features)
        self.norm = nn.LayerNorm(features)
        self.out_dim = features

    def forward(self, maps: Tensor) -> Tensor:
        """Project ``maps`` (B, F, h, w) float to (B, features) float32 in [-1, 1]."""
        projected = self.linear(maps.flatten(1))
        # bfloat16 resolves a tanh near 1 to 2^-8: leave autocast once the large product is done.
        with torch.autocast(maps.device.type, enabled=False):
            return torch.tanh(self.norm(projected.float()))


class GlobalAverage(nn.Module):
    """Mean of each of the F feature maps; nothing to learn."""

    def __init__(self, in_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.out_dim = in_shape[0]

    def forward(self, maps: Tensor) -> Tensor:
        """Average ``maps`` (B, F, h, w) float over positions: (B, F) float32."""
        return maps.mean(dim=(2, 3), dtype=torch.float32)
