"""Both losses train the encoder: one representation for values and actions.

The critic's optimizer holds the encoder. It steps first, so the actor's loss cannot use the
features from before that step: their graph refers to weights that have changed. The observation is
encoded again, and the actor's gradient reaches the encoder through the policy, never through the
critics, in a second step of the critic's optimizer on the encoder alone. Yarats et al. 2019
(arXiv 1910.01741, section 4.2) found that the actor's gradient hurts; here it is one word to try.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from fetchlab.entries import LossName


class JointRouting:
    """Encoder in the critic's optimizer, reached by every loss."""

    encoder_optimizer: Literal["critic", "actor"] = "critic"
    trained_by: frozenset[LossName] = frozenset({"critic", "actor", "auxiliary"})

    def for_critic(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features

    def for_actor(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features

    def for_auxiliary(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features
