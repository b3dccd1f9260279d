"""The critic's loss alone trains the encoder: DrQ-v2 and the study's critic-encoder.

Yarats et al. 2021, arXiv 2107.09645: the critic's optimizer steps the encoder, and the actor sees
``encoder(obs).detach()``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from fetchlab.entries import LossName


class CriticRouting:
    """Encoder in the critic's optimizer; the actor's loss gets detached features."""

    encoder_optimizer: Literal["critic", "actor"] = "critic"
    trained_by: frozenset[LossName] = frozenset({"critic", "auxiliary"})

    def for_critic(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features

    def for_actor(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) without their graph."""
        return features.detach()

    def for_auxiliary(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features
