"""HER strategy ``final``: the goal that the episode achieved at its end (arXiv 1707.01495)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fetchlab.replay.relabel.ratio import HindsightRatio


class FinalRelabel:
    """With probability k / (k + 1) the goal achieved in the episode's last row.

    The paper compares it as the simplest strategy, with one copy per transition: k = 1.

    Args:
        k: relabelled samples for each sample that keeps its goal, see `HindsightRatio`.

    Raises:
        ConfigError: k is neither a positive number nor a line over env steps.
    """

    def __init__(self, k: float | Mapping[str, Any]) -> None:
        self._ratio = HindsightRatio(k)

    def __call__(
        self, t: Tensor, length: Tensor, generator: torch.Generator, env_steps: int
    ) -> Tensor:
        """Times (B,): ``length``, the last row's, or -1; one random number each."""
        chance = torch.rand(
            t.shape, dtype=torch.float64, device=generator.device, generator=generator
        ).to(t.device)
        return length.masked_fill(chance >= self._ratio.share(env_steps), -1)
