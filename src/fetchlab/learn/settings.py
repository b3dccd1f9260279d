"""Hyperparameters of an update, checked once."""

from __future__ import annotations

from dataclasses import dataclass

from fetchlab.types import require


@dataclass(frozen=True)
class SACSettings:
    """What ``configs/algo`` says about the losses.

    Args:
        discount: in (0, 1).
        tau: Polyak step of critic and encoder targets, in (0, 1].
        entropy_coefficient: alpha, fixed; or its initial value when it is learned.
        learn_entropy: learn log alpha towards the target entropy ``-action_dim``.
        q_bounds: clamp the target's Q to [-1/(1-discount), 0] (arXiv 2312.05787).
        backup_entropy: keep the entropy term in the target.

    Raises:
        ConfigError: a number outside of its range.
    """

    discount: float
    tau: float
    entropy_coefficient: float
    learn_entropy: bool
    q_bounds: bool
    backup_entropy: bool

    def __post_init__(self) -> None:
        discount, tau, alpha = self.discount, self.tau, self.entropy_coefficient
        require(0.0 < discount < 1.0, "algo.discount", discount, "in (0, 1)", "0.95 is usual")
        require(0.0 < tau <= 1.0, "algo.tau", tau, "in (0, 1]", "0.005 is usual")
        require(alpha > 0.0, "algo.entropy_coefficient", alpha, "positive", "the study used 0.05")
