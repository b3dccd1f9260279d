"""Spatial softmax: each feature map becomes the image coordinates where it fires.

Levine et al. 2016, "End-to-End Training of Deep Visuomotor Policies" (arXiv 1504.00702, section 4)
with the learned temperature of Finn et al. 2016, "Deep Spatial Autoencoders for Visuomotor
Learning" (arXiv 1509.06113, section IV): ``s = softmax(a / T)`` over a map's positions, and the
feature point is the expected position under ``s``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from fetchlab.types import require

if TYPE_CHECKING:
    from torch import Tensor


class SpatialSoftmax(nn.Module):
    """Expected (x, y) of each feature map, in [-1, 1], pixel centres of the border at -1 and 1.

    The temperature is one learned number for all maps. Its logarithm is the parameter, so it stays
    positive whatever the optimizer does, and a step changes it by a ratio.

    Args:
        in_shape: ``(F, h, w)`` of one encoded image, h and w at least 2.
        temperature: start value of T, > 0; 1 is the plain softmax.

    Attributes:
        out_dim: ``2 * F``, laid out x_1, y_1, x_2, y_2, ...; x grows to the right, y downwards.

    Raises:
        ConfigError: a map narrower than two positions, or a temperature that is not positive.
    """

    grid: Tensor
    out_dim: int

    def __init__(self, in_shape: tuple[int, int, int], temperature: float) -> None:
        super().__init__()
        filters, height, width = in_shape
        require(
            min(height, width) >= 2,
            "in_shape",
            in_shape,
            "maps of 2x2 or more",
            "use a larger image or an encoder with smaller strides",
        )
        require(
            0 < temperature < math.inf,
            "pooling.temperature",
            temperature,
            "a positive number",
            "use 1.0 for the plain softmax",
        )
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
        )
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
