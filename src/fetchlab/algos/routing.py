"""Which losses train the shared encoder: data, one YAML each in ``configs/routing``.

- ``critic``: the critic's loss, DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645) and the study's
  critic-encoder: the critic's optimizer steps the encoder, the actor sees ``features.detach()``.
- ``actor``: the actor's loss, as Stable-Baselines3's SAC does with a shared extractor. The study
  stayed at chance level with it; kept as its baseline.
- ``joint``: both. The critic's optimizer holds the encoder and steps first, so the actor's loss
  cannot use the features from before that step: the observation is encoded again. Yarats et al.
  2019 (arXiv 1910.01741, section 4.2) found that the actor's gradient hurts.
- ``auxiliary``: the auxiliary losses alone, which separates seeing from valuing (Stooke et al.
  2020, arXiv 2009.08319).
- ``frozen``: none, the control of every claim about representation learning (Burda et al. 2018,
  arXiv 1808.04355). Heads of auxiliary losses still learn: they measure what the features hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fetchlab.entries import PIXELS
from fetchlab.errors import ConfigError, require

LossName = Literal["critic", "actor", "auxiliary"]


@dataclass(frozen=True)
class Routing:
    """Who holds the encoder and who trains it.

    Args:
        encoder_optimizer: the one optimizer that holds the encoder's parameters, and those of the
            auxiliary losses' heads.
        trained_by: the losses whose gradient reaches the encoder.

    Raises:
        ConfigError: a critic's loss that would train an encoder of the actor's optimizer.
    """

    encoder_optimizer: Literal["critic", "actor"]
    trained_by: Sequence[LossName]

    def __post_init__(self) -> None:
        holder, key = self.encoder_optimizer, "routing.encoder_optimizer"
        fits = holder == "critic" or "critic" not in self.trained_by
        expected = "critic, since the critic's loss trains the encoder"
        require(fits, key, holder, expected, f"use {key}=critic")

    @property
    def encodes_again(self) -> bool:
        """Whether the actor's loss needs features of the weights after the critic's step."""
        return self.encoder_optimizer == "critic" and "actor" in self.trained_by

    def check(
        self, actor_inputs: Sequence[str], critic_inputs: Sequence[str], auxiliary: bool
    ) -> None:
        """Refuse (`ConfigError`) to train an encoder by a loss that cannot reach it."""
        fits, remedy = auxiliary or set(self.trained_by) != {"auxiliary"}, "choose another routing"
        expected = "a loss, because this routing trains the encoder by auxiliary losses alone"
        require(fits, "auxiliary", [], expected, f"use auxiliary=[goal_prediction] or {remedy}")
        heads = {"critic": critic_inputs, "actor": actor_inputs}
        for loss, names in heads.items():
            if loss in self.trained_by and PIXELS not in names:
                key, others = f"obs.{loss}_inputs", [one for one in heads if PIXELS in heads[one]]
                expected = (
                    f"{PIXELS} among them, because this routing trains the encoder by that loss"
                )
                named = ", ".join((*others, "auxiliary", "frozen"))
                remedy = f"add {PIXELS} to {key} or {remedy} ({named})"
                raise ConfigError(key, list(names), expected, remedy)
