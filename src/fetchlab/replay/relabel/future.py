"""HER strategy ``future``: a goal that the same episode achieved later (arXiv 1707.01495)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fetchlab.replay.relabel.ratio import HindsightRatio


class FutureRelabel:
    """With probability k / (k + 1) the goal achieved at a later time of the same episode.

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
        """Times (B,) in [t + 1, length], each equally likely, or -1; two random numbers each."""
        chance, where = torch.rand(
            (2, *t.shape), dtype=torch.float64, device=generator.device, generator=generator
        ).to(t.device)
        later = t + 1 + where.mul_(length - t).long()
        return later.masked_fill_(chance >= self._ratio.share(env_steps), -1)
