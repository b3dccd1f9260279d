"""Standardise the vector inputs: positions vary by 0.1 m, velocities by 0.014 m/s.

Statistics are float64 moments merged batch by batch (Chan, Golub & LeVeque 1983, "Algorithms for
Computing the Sample Variance"), so large offsets cancel nothing. They are buffers: a checkpoint
carries them, and an evaluation sees what training saw.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from fetchlab.errors import require

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["none", "fixed", "running"]


class VectorNormalizer(nn.Module):
    """``clamp((x - mean) / max(std, std_floor), -clip, clip)`` for each named vector.

    ``none`` is the identity and keeps no statistics. ``fixed`` is the identity until `freeze`, then
    uses the statistics of the rows seen before it, for ever. ``running`` follows every `update`.

    What `forward` reads is float32 buffers, changed in place and without a branch on them, so a
    captured CUDA graph follows an update.

    Args:
        names_dims: size of each vector by its entry's name, e.g. ``{"proprio": 10}``.
        mode: ``none``, ``fixed`` or ``running``.
        std_floor: least standard deviation divided by, in the input's unit, > 0.
        clip: bound on the standardised value, in standard deviations, > 0.

    Raises:
        ConfigError: an unknown mode, or a size, floor or clip that is not positive.
    """

    _frozen: Tensor

    def __init__(
        self, names_dims: dict[str, int], mode: Mode, std_floor: float, clip: float
    ) -> None:
        super().__init__()
        modes = get_args(Mode)
        require(mode in modes, "obs.normalize", mode, f"one of {modes}", "choose one of them")
        require(
            std_floor > 0, "obs.normalize_std_floor", std_floor, "a positive number", "e.g. 1e-3"
        )
        require(
            clip > 0, "obs.normalize_clip", clip, "a positive number", "e.g. 5 standard deviations"
        )
        require(
            min(names_dims.values(), default=1) >= 1,
            "names_dims",
            names_dims,
            "positive sizes",
            "list only entries that the task has",
        )
        self.mode = mode
        self.names = tuple(names_dims)
        self._std_floor = std_floor
        self._clip = clip
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
        """Merge ``rows`` (n, dim), n >= 0, into the statistics of ``name``.

        Does nothing in mode ``none`` and once frozen.
        """
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
        """Fix the statistics and normalise from now on; only mode ``fixed`` has this moment.

        In the other modes, and the second time, this does nothing.

        Raises:
            ConfigError: an entry has seen no row yet.
        """
        if self.mode != "fixed" or self.frozen:
            return
        for name in self.names:
            count = int(getattr(self, f"{name}_count"))
            require(
                count >= 1,
                f"rows of {name!r} before learning starts",
                count,
                "at least 1",
                "raise collect.learning_starts, or use obs.normalize=none or running",
            )
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


_MOMENTS = ("count", "mean", "m2")
_APPLIED = ("shift", "scale", "limit")
