"""Global average: how much of each feature is in the image, and nothing of where.

Lin et al. 2013, "Network In Network" (arXiv 1312.4400, section 3.2). The opposite of a spatial
softmax, which keeps only the where: the control that says how much of a task needs positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from fetchlab.types import require

if TYPE_CHECKING:
    from torch import Tensor


class GlobalAverage(nn.Module):
    """Mean of each feature map; nothing to learn.

    Args:
        in_shape: ``(F, h, w)`` of one encoded image.

    Attributes:
        out_dim: ``F``.

    Raises:
        ConfigError: a size is not positive.
    """

    out_dim: int

    def __init__(self, in_shape: tuple[int, int, int]) -> None:
        super().__init__()
        require(min(in_shape) >= 1, "in_shape", in_shape, "positive sizes", "check the encoder")
        self.out_dim = in_shape[0]

    def forward(self, maps: Tensor) -> Tensor:
        """Average ``maps`` (B, F, h, w) float over positions: (B, F) float32."""
        return maps.mean(dim=(2, 3), dtype=torch.float32)
