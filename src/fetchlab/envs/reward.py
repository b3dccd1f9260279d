"""The task's reward of a batch of torch goals, which hindsight asks for.

`GoalReward` is Fetch's as torch operations, so that it runs where the batch is: bit for bit what
the environment's own ``compute_reward`` gives for float32 goals. The squares are added in numpy's
order, (x + y) + z; the root is taken in float64, because torch's float32 root on a CPU is off in
the last bit for one number in six. Tests hold the two together on a million pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from fetchlab.entries import GoalFunction


class GoalReward:
    """Sparse: -1 above ``threshold_m`` metres, else 0; dense: minus the distance."""

    def __init__(self, sparse: bool, threshold_m: float) -> None:
        self._sparse, self._threshold_m = sparse, threshold_m

    def __call__(self, achieved_goal: Tensor, desired_goal: Tensor) -> Tensor:
        """Reward (...,) float32 of goals (..., 3) float32, metres, on any device."""
        x, y, z = (achieved_goal - desired_goal).unbind(-1)
        distance = (x * x + y * y + z * z).double().sqrt().float()
        return -(distance > self._threshold_m).float() if self._sparse else -distance


def on_host(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> GoalFunction:
    """A function of numpy goals (B, G) as one of torch goals (..., G), by the host's memory."""

    def of_tensors(achieved_goal: Tensor, desired_goal: Tensor) -> Tensor:
        goals = (goal.flatten(0, -2).cpu().numpy() for goal in (achieved_goal, desired_goal))
        values = torch.from_numpy(function(*goals))
        return values.view(achieved_goal.shape[:-1]).to(achieved_goal.device)

    return of_tensors
