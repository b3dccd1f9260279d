"""Training metrics, summed as tensors between two logging points.

`LightningModule.log` costs milliseconds a call, adding five scalars microseconds. The sums are
part of the checkpoint, so a resumed run writes the same row as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

UPDATE_METRICS: tuple[str, ...] = (
    "train/critic_loss",
    "train/actor_loss",
    "train/entropy",
    "train/q_mean",
    "train/entropy_coefficient",
)
#: Norm of each loss's gradient at the encoder's output (`fetchlab.learn.update`).
ENCODER_METRICS: tuple[str, ...] = (
    "train/feature_gradient_critic",
    "train/feature_gradient_actor",
    "train/feature_gradient_auxiliary",
)
GOAL_METRICS: tuple[str, ...] = ("train/goal_error_m",)


class MetricSums:
    """Sums of named scalars, read as means.

    Sums and count lie in one tensor that is only changed in place, so that adding can be part of a
    CUDA graph.

    Args:
        names: of the scalars, in the order in which `add` receives them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._sums = torch.zeros(len(self.names) + 1, dtype=torch.float64)
        self._one = torch.ones(())

    def to(self, device: torch.device) -> None:
        """Sum on ``device`` from now on."""
        self._sums, self._one = self._sums.to(device), self._one.to(device)

    @torch.no_grad()
    def add(self, values: Sequence[Tensor]) -> None:
        """Add one value per name; values are 0-d tensors on the sums' device."""
        self._sums += torch.stack([*values, self._one])

    def pop(self) -> dict[str, float]:
        """Means since the last call, empty when nothing was added; starts again from zero."""
        *sums, count = self._sums.tolist()
        self._sums.zero_()
        return {name: total / count for name, total in zip(self.names, sums, strict=True) if count}

    def state_dict(self) -> dict[str, object]:
        """Sums and count."""
        return {"sums": self._sums.cpu()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue from `state_dict`."""
        sums = state["sums"]
        assert isinstance(sums, Tensor)
        self._sums.copy_(sums)
