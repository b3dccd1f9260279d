"""Nothing trains the encoder: what random, or loaded, features are worth.

The control of every claim about representation learning (Burda et al. 2018, arXiv 1808.04355, found
random features a strong baseline). A goal-prediction head still learns: it then measures how much
of the object's position the features hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from fetchlab.entries import LossName


class FrozenRouting:
    """Encoder in the critic's optimizer, which never has a gradient for it."""

    encoder_optimizer: Literal["critic", "actor"] = "critic"
    trained_by: frozenset[LossName] = frozenset()

    def for_critic(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) without their graph."""
        return features.detach()

    def for_actor(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) without their graph."""
        return features.detach()

    def for_auxiliary(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) without their graph."""
        return features.detach()
