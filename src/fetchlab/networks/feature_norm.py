"""Standardise the encoder's feature vector by statistics that follow its training.

The study found that normalisation made its losses look better and the success no higher;
``feature_norm=none``, ``layer_norm`` or ``running`` asks again. The first two are torch's own
modules (LayerNorm, Ba et al. 2016, arXiv 1607.06450: each vector by its own mean and deviation);
this file is ``running``: each feature by its mean and deviation over the batches of training.

Not batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167): the same stored statistics are
applied in training, acting and targets, so a feature does not depend on the batch it came in, and
no gradient runs through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from fetchlab.errors import require

if TYPE_CHECKING:
    from torch import Tensor


class RunningNorm(nn.Module):
    """``(x - mean) / max(std, std_floor)`` of each feature; the identity before the first batch.

    The n-th batch of mean m and variance v moves the statistics at rate r = max(1 / n, momentum):
    ``var <- (1 - r) (var + r (m - mean)^2) + r v`` and ``mean <- mean + r (m - mean)``. So they are
    those of all samples while n <= 1 / momentum, and forget old encoders exponentially after it
    (Finch 2009, "Incremental calculation of weighted mean and variance").

    Only a forward pass in training mode with gradients enabled adds its batch: the pass that a loss
    sees, once an update, and neither acting nor targets. The statistics are buffers, so a
    checkpoint carries them; a Polyak average of parameters does not: copy them to a target network.

    Args:
        dim: size D of the feature vector, at least 1.
        momentum: least rate of the statistics, in (0, 1].
        std_floor: least standard deviation divided by, > 0; bounds how much noise is amplified.

    Attributes:
        count: () float32, batches seen.
        mean: (D,) float32.
        var: (D,) float32, of the population, not of a sample.

    Raises:
        ConfigError: a value outside its range.
    """

    count: Tensor
    mean: Tensor
    var: Tensor

    def __init__(self, dim: int, momentum: float, std_floor: float) -> None:
        super().__init__()
        require(dim >= 1, "dim", dim, "at least 1", "check the pooling")
        require(
            0 < momentum <= 1, "feature_norm.momentum", momentum, "a number in (0, 1]", "e.g. 0.01"
        )
        require(
            std_floor > 0, "feature_norm.std_floor", std_floor, "a positive number", "e.g. 0.01"
        )
        self._momentum = momentum
        self._std_floor = std_floor
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("var", torch.ones(dim))

    def forward(self, features: Tensor) -> Tensor:
        """Standardise ``features`` (B, D) float to (B, D) float32."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            if self.training and torch.is_grad_enabled():
                self._follow(features.detach())
            # A new tensor, not a buffer: a second pass before the backward may change those.
            scale = self.var.sqrt().clamp(min=self._std_floor).reciprocal()
            return (features - self.mean) * scale

    @torch.no_grad()
    def _follow(self, batch: Tensor) -> None:
        """Add one batch (B, D), in place and without a branch on the statistics (CUDA graphs)."""
        self.count += 1
        rate = self.count.reciprocal().clamp(min=self._momentum)
        var, mean = torch.var_mean(batch, dim=0, correction=0)
        delta = mean - self.mean
        self.var.copy_((1 - rate) * (self.var + rate * delta.square()) + rate * var)
        self.mean += rate * delta
