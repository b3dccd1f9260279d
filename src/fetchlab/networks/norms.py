"""Normalisation by running statistics: of the vector inputs, and of the encoder's features.

Inputs: positions vary by 0.1 m, velocities by 0.014 m/s, around large offsets (`VectorNormalizer`).

Features: the study found that normalisation made its losses look better and the success no higher;
``feature_norm=none``, ``layer_norm`` or ``running`` asks again. The first two are torch's own
modules (LayerNorm, Ba et al. 2016, arXiv 1607.06450: each vector by its own mean and deviation);
the third, each feature by its mean and deviation over the batches of training, is `RunningNorm`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from fetchlab.errors import require
from fetchlab.fields import Above, Hint, Max

Mode = Literal["none", "fixed", "running"]
_MOMENTS = ("count", "mean", "m2")
_APPLIED = ("shift", "scale", "limit")


class VectorNormalizer(nn.Module):
    """``clamp((x - mean) / max(std, std_floor), -clip, clip)`` for each named vector.

    ``none`` is the identity and keeps no statistics. ``fixed`` is the identity until `freeze`, then
    uses the statistics of the rows seen before it, for ever. ``running`` follows every `update`.

    What `forward` reads is float32 buffers, changed in place and without a branch on them, so a
    captured CUDA graph follows an update.

    Statistics are float64 moments merged batch by batch (Chan, Golub & LeVeque 1983, "Algorithms
    for Computing the Sample Variance"), so large offsets cancel nothing. They are buffers: a
    checkpoint carries them, and an evaluation sees what training saw.

    Args:
        names_dims: size of each vector by its entry's name, e.g. ``{"proprio": 10}``.
        mode: ``none``, ``fixed`` or ``running``.
        std_floor: least standard deviation divided by, in the input's unit, > 0.
        clip: bound on the standardised value, in standard deviations, > 0.
    """

    _frozen: Tensor

    def __init__(
        self, names_dims: Mapping[str, int], mode: Mode, std_floor: float, clip: float
    ) -> None:
        super().__init__()
        self.mode, self.names = mode, tuple(names_dims)
        self._std_floor, self._clip = std_floor, clip
        if mode == "none":
            return
        self.register_buffer("_frozen", torch.tensor(False))
        # The same on the host, where every round asks; None: a checkpoint was loaded since.
        self._frozen_here: bool | None = False
        for name, dim in names_dims.items():
            self.register_buffer(f"{name}_count", torch.zeros((), dtype=torch.float64))
            self.register_buffer(f"{name}_mean", torch.zeros(dim, dtype=torch.float64))
            self.register_buffer(f"{name}_m2", torch.zeros(dim, dtype=torch.float64))
            # The identity until statistics apply: no shift, no scale, no clip.
            self.register_buffer(f"{name}_shift", torch.zeros(dim))
            self.register_buffer(f"{name}_scale", torch.ones(dim))
            self.register_buffer(f"{name}_limit", torch.tensor(math.inf))

    @property
    def frozen(self) -> bool:
        """Whether `freeze` has fixed the statistics."""
        if self.mode != "fixed":
            return False
        if self._frozen_here is None:
            self._frozen_here = bool(self._frozen)
        return self._frozen_here

    @property
    def counting(self) -> bool:
        """Whether `update` still changes anything."""
        return self.mode == "running" or (self.mode == "fixed" and not self.frozen)

    def forward(self, name: str, x: Tensor) -> Tensor:
        """Normalise ``x`` (..., dim) float32, the entry called ``name``."""
        if self.mode == "none":
            return x
        shift, scale, limit = (getattr(self, f"{name}_{part}") for part in _APPLIED)
        return torch.clamp((x - shift) * scale, -limit, limit)

    @torch.no_grad()
    def update(self, name: str, rows: Tensor) -> None:
        """Merge ``rows`` (n, dim), n >= 0, into the statistics of ``name``, while `counting`."""
        if not self.counting or rows.shape[0] == 0:
            return
        count, mean, m2 = (getattr(self, f"{name}_{part}") for part in _MOMENTS)
        new = rows.to(mean)
        new_mean = new.mean(dim=0)
        delta = new_mean - mean
        total = count + new.shape[0]
        m2 += (new - new_mean).square().sum(dim=0) + delta.square() * count * new.shape[0] / total
        mean += delta * new.shape[0] / total
        count.copy_(total)
        if self.mode == "running":
            self._use(name)

    @torch.no_grad()
    def freeze(self) -> None:
        """Fix the statistics and normalise from now on; once, and only in mode ``fixed``.

        Raises:
            ConfigError: an entry has seen no row yet.
        """
        if self.mode != "fixed" or self.frozen:
            return
        remedy = "raise collect.learning_starts, or use obs.normalize=none or running"
        for name in self.names:
            count = int(getattr(self, f"{name}_count"))
            rows = f"rows of {name!r} before learning starts"
            require(count >= 1, rows, count, "at least 1", remedy)
            self._use(name)
        self._frozen.fill_(True)
        self._frozen_here = True

    def _load_from_state_dict(self, *args: Any, **options: Any) -> None:
        super()._load_from_state_dict(*args, **options)
        self._frozen_here = None

    def _use(self, name: str) -> None:
        """Let `forward` apply the statistics of ``name`` as they stand."""
        count, mean, m2 = (getattr(self, f"{name}_{part}") for part in _MOMENTS)
        shift, scale, limit = (getattr(self, f"{name}_{part}") for part in _APPLIED)
        shift.copy_(mean)
        scale.copy_((m2 / count).sqrt().clamp(min=self._std_floor).reciprocal())
        limit.fill_(self._clip)


class RunningNorm(nn.Module):
    """``(x - mean) / max(std, std_floor)`` of each feature; the identity before the first batch.

    Not batch normalisation (Ioffe & Szegedy 2015, arXiv 1502.03167): the same stored statistics are
    applied in training, acting and targets, so a feature does not depend on the batch it came in,
    and no gradient runs through them.

    The n-th batch of mean m and variance v moves the statistics at rate r = max(1 / n, momentum):
    ``var <- (1 - r) (var + r (m - mean)^2) + r v`` and ``mean <- mean + r (m - mean)``. So they are
    those of all samples while n <= 1 / momentum, and forget old encoders exponentially after it
    (Finch 2009, "Incremental calculation of weighted mean and variance").

    Only a forward pass in training mode with gradients enabled adds its batch: the pass that a loss
    sees, once an update (twice under joint routing), and neither acting nor targets. The statistics
    are buffers, so a checkpoint carries them; a Polyak average of parameters does not: copy them to
    a target network.

    Args:
        dim: size D of the feature vector.
        momentum: least rate of the statistics.
        std_floor: least standard deviation divided by; bounds how much noise is amplified.

    """

    count: Tensor  # () float32, batches seen
    mean: Tensor  # (D,) float32
    var: Tensor  # (D,) float32, of the population, not of a sample

    def __init__(
        self,
        dim: int,
        momentum: Annotated[float, Above(0), Max(1), Hint("e.g. 0.01", "a number in (0, 1]")],
        std_floor: Annotated[float, Above(0), Hint("e.g. 0.01")],
    ) -> None:
        super().__init__()
        self._momentum, self._std_floor = momentum, std_floor
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
