"""The actor's loss alone trains the encoder: Stable-Baselines3 with a shared extractor.

SB3's SAC with ``share_features_extractor=True`` puts the extractor in the actor's optimizer only
and runs the critic's extraction under ``set_grad_enabled(False)``, in the critic's loss and when
the critic scores the actor's actions. The study stayed at chance level with it; kept as its
baseline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from fetchlab.entries import LossName


class ActorRouting:
    """Encoder in the actor's optimizer; every call of the critic gets detached features."""

    encoder_optimizer: Literal["critic", "actor"] = "actor"
    trained_by: frozenset[LossName] = frozenset({"actor", "auxiliary"})

    def for_critic(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) without their graph."""
        return features.detach()

    def for_actor(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features

    def for_auxiliary(self, features: Tensor) -> Tensor:
        """Return ``features`` (B, D) with their graph."""
        return features
