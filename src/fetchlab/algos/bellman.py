"""Pieces of the Bellman equation that all algorithms here share: target, loss, bounds of Q."""

from __future__ import annotations

import torch
from torch import Tensor

from fetchlab.entries import EnvSpec
from fetchlab.errors import require


def q_range(env_spec: EnvSpec, discount: float, n_step: int) -> tuple[float, float]:
    """Least and largest Q that rewards of this environment can return: a clamp of the target's Q.

    Hiraoka 2023, arXiv 2312.05787: [-1/(1-discount), 0] for the Fetch tasks' rewards of -1 and 0.
    """
    low, high = env_spec.reward_range
    expected = f"false where rewards lie in [{low:g}, {high:g}]"
    remedy = "use algo.q_bounds=false or a task with a sparse reward"
    require(abs(low) + abs(high) < float("inf"), "algo.q_bounds", True, expected, remedy)
    expected = "1 with algo.q_bounds=true, whose bound is that of one reward and one bootstrap"
    require(
        n_step == 1, "algo.n_step", n_step, expected, "use algo.n_step=1 or algo.q_bounds=false"
    )
    endless = low / (1 - discount), high / (1 - discount)
    # Where an episode may end, its last reward is all that follows.
    return min(low, endless[0]), max(high, endless[1])


@torch.no_grad()
def td_target(
    reward: Tensor,
    terminated: Tensor,
    next_value: Tensor,
    discount: float,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """``y = r + discount (1 - terminated) V'`` (B,), the critics' target, without gradient.

    Truncation is not an argument: a time limit ends the episode, not the value. ``bootstrap`` (B,)
    stands in for ``discount``: discount^m where ``reward`` is the discounted sum of m rewards.
    """
    factor = discount if bootstrap is None else bootstrap
    return reward + factor * next_value.masked_fill(terminated, 0)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Sum over critics (E, B) of half the mean squared error (the scale of Stable-Baselines3)."""
    return 0.5 * (q - target).square().mean(dim=1).sum()


def least_q(q: Tensor, bounds: tuple[float, float] | None) -> Tensor:
    """The least (B,) of critics' values (E, B), clamped to ``bounds``, see `q_range`."""
    value = q.amin(dim=0)
    return value if bounds is None else value.clamp(*bounds)
