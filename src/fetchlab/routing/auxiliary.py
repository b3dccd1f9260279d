"""The goal-prediction loss alone trains the encoder: where is the object, and nothing else.

Separates seeing from valuing, as decoupled representation learning does (Stooke et al. 2020, arXiv
2009.08319). Needs a weight for goal prediction; with it the critic may do without pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from fetchlab.entries import LossName


class AuxiliaryRouting:
    """Encoder and prediction head in the critic's optimizer; critic and actor get no graph."""

    encoder_optimizer: Literal["critic", "actor"] = "critic"
    trained_by: frozenset[LossName] = frozenset({"auxiliary"})

    def for_critic(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) without their graph."""
        return features.detach()

    def for_actor(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) without their graph."""
        return features.detach()

    def for_auxiliary(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features
