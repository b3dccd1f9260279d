"""Soft actor-critic as pure functions (Haarnoja et al. 2018, arXiv 1812.05905).

    J_Q(i)   = E[ 1/2 (Q_i(s, a) - y)^2 ]                    eq. 5
    y        = r + discount (min_i Q'_i(s', a') - alpha log pi(a'|s'))
    J_pi     = E[ alpha log pi(a|s) - min_i Q_i(s, a) ]      eq. 7
    J(alpha) = E[ -log alpha (log pi(a|s) + target entropy) ]

The last is the form everyone implements, in log alpha; the paper's eq. 18 has alpha itself there.
Randomness is an argument and nothing here knows of a network, so every number can be checked by
hand and against Stable-Baselines3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import softplus

if TYPE_CHECKING:
    from torch import Tensor

_LOG_2 = math.log(2)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Squash a Gaussian sample: ``a = tanh(u)``, ``u = mean + std * noise`` (appendix C).

    ``log pi(a) = sum_j [log N(u_j) - log(1 - tanh(u_j)^2)]``, the last term by the identity
    ``2 (log 2 - u - softplus(-2u))``, exact for every u. Stable-Baselines3 takes
    ``log(1 - a^2 + 1e-6)``, which cannot fall below -13.8: it calls saturated actions less likely
    than they are, by 4.8 nats per dimension at u = 10.

    Args:
        mean: (B, A) of the Gaussian.
        log_std: (B, A), nats.
        noise: (B, A) standard normal.

    Returns:
        Action (B, A) in [-1, 1] and its log probability density (B,), both differentiable.
    """
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - _HALF_LOG_2PI
    log_jacobian = 2 * (_LOG_2 - u - softplus(-2 * u))
    return u.tanh(), (log_normal - log_jacobian).sum(dim=-1)


@torch.no_grad()
def td_target(
    reward: Tensor,
    terminated: Tensor,
    next_q: Tensor,
    next_log_prob: Tensor,
    alpha: float | Tensor,
    discount: float,
    q_bounds: bool,
    backup_entropy: bool,
    bootstrap: Tensor | None = None,
) -> Tensor:
    """Regression target of the critics, without gradient.

    ``y = r + discount (1 - terminated) (clamp(min_i Q'_i, -1/(1-discount), 0) - alpha log pi)``.
    The clamp (``q_bounds``; Hiraoka 2023, arXiv 2312.05787) holds the target to what rewards of
    -1 and 0 can return. As its authors do, it bounds Q and not the entropy bonus: without
    ``backup_entropy`` the bound on y is exact. Truncation is not an argument: a time limit ends
    the episode, not the value.

    Args:
        reward: (B,).
        terminated: (B,) bool.
        next_q: (E, B) target critics' values of the next action.
        next_log_prob: (B,) of the next action.
        alpha: entropy coefficient, > 0.
        discount: in [0, 1), below 1 because the bound divides by 1 - discount.
        q_bounds: clamp the bootstrapped value to [-1/(1-discount), 0].
        backup_entropy: include ``-alpha log pi`` in the bootstrapped value.
        bootstrap: (B,) factor of the next value in place of ``discount``: ``discount^m`` where
            ``reward`` is the discounted sum of m rewards.

    Returns:
        Target (B,).
    """
    value = next_q.amin(dim=0)
    if q_bounds:
        value = value.clamp(-1 / (1 - discount), 0)
    if backup_entropy:
        value = value - alpha * next_log_prob
    factor = discount if bootstrap is None else bootstrap
    return reward + factor * value.masked_fill(terminated, 0)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """Sum over critics of half the mean squared error (the scale of Stable-Baselines3).

    Args:
        q: (E, B) online critics.
        target: (B,) from `td_target`.

    Returns:
        Scalar.
    """
    return 0.5 * (q - target).square().mean(dim=1).sum()


def actor_loss(q: Tensor, log_prob: Tensor, alpha: float | Tensor) -> Tensor:
    """Mean of ``alpha log pi - min_i Q_i`` over the batch.

    Args:
        q: (E, B) values of the sampled actions, differentiable in them.
        log_prob: (B,) of those actions.
        alpha: entropy coefficient, detached.

    Returns:
        Scalar.
    """
    return (alpha * log_prob - q.min(dim=0).values).mean()


def entropy_coefficient_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Loss of the learned ``log_alpha``: it falls while the entropy is above its target.

    Args:
        log_alpha: scalar parameter.
        log_prob: (B,) of the current policy's actions; no gradient flows into it.
        target_entropy: nats, usually -A.

    Returns:
        Scalar.
    """
    return -(log_alpha * (log_prob.detach() + target_entropy)).mean()
