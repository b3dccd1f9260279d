"""Hyperparameters of an update, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from fetchlab.errors import require

Over = Literal["min", "mean"]


class Seeds(NamedTuple):
    """Of the module's two random streams."""

    explore: int  # noise in exploring actions
    update: int  # every random draw of the updates: action noise, augmentation, chosen critics


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
        target_subset: critics, drawn anew for each update, over which the target takes its minimum
            (REDQ: 2 of 10, arXiv 2101.05982); None: all of them.
        actor_over: whether the actor's loss takes the minimum over all critics or, as REDQ does,
            their mean.
        goal_weight: of the goal-prediction loss; 0 switches it off.

    Raises:
        ConfigError: a number outside of its range.
    """

    discount: float
    tau: float
    entropy_coefficient: float
    learn_entropy: bool
    q_bounds: bool
    backup_entropy: bool
    target_subset: int | None
    actor_over: Over
    goal_weight: float

    def __post_init__(self) -> None:
        discount, tau, alpha = self.discount, self.tau, self.entropy_coefficient
        require(0.0 < discount < 1.0, "algo.discount", discount, "in (0, 1)", "0.95 is usual")
        require(0.0 < tau <= 1.0, "algo.tau", tau, "in (0, 1]", "0.005 is usual")
        require(alpha > 0.0, "algo.entropy_coefficient", alpha, "positive", "the study used 0.05")
        choices, over = get_args(Over), self.actor_over
        require(over in choices, "algo.actor_over", over, f"one of {choices}", "SAC takes min")
        require(
            self.goal_weight >= 0,
            "algo.goal_prediction.weight",
            self.goal_weight,
            "0 or more",
            "0 switches goal prediction off",
        )


def check_critics(ensemble: int, target_subset: int | None, n_step: int, q_bounds: bool) -> None:
    """Check the numbers of critics and steps against each other.

    Raises:
        ConfigError: a minimum over more critics than there are, or a bound that does not hold for
            targets of several steps.
    """
    require(
        target_subset is None or 1 <= target_subset <= ensemble,
        "algo.target_subset",
        target_subset,
        f"null or from 1 to algo.ensemble={ensemble}",
        "raise algo.ensemble, or use null for all critics",
    )
    require(
        n_step == 1 or not q_bounds,
        "algo.n_step",
        n_step,
        "1 with algo.q_bounds=true, whose bound is that of one reward and one bootstrap",
        "use algo.n_step=1 or algo.q_bounds=false",
    )
