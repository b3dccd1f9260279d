"""HER strategy ``future``: a goal that the same episode achieved later (arXiv 1707.01495)."""

from __future__ import annotations

import torch
from torch import Tensor

from fetchlab.types import require


class FutureRelabel:
    """With probability k / (k + 1) the goal achieved at a later time of the same episode.

    Args:
        k: relabelled samples for each sample that keeps its goal, > 0.

    Raises:
        ConfigError: k is not a positive number.
    """

    def __init__(self, k: float) -> None:
        number = isinstance(k, int | float) and not isinstance(k, bool)
        require(
            number and 0 < k < float("inf"),
            "relabel.k",
            k,
            "a positive number",
            "the study used 4 and 8; relabel=none switches relabelling off",
        )
        self.share = k / (k + 1)

    def __call__(self, t: Tensor, length: Tensor, generator: torch.Generator) -> Tensor:
        """Times (B,) in [t + 1, length], each equally likely, or -1; two random numbers each."""
        chance, where = torch.rand(
            (2, *t.shape), dtype=torch.float64, device=generator.device, generator=generator
        ).to(t.device)
        later = t + 1 + where.mul_(length - t).long()
        return later.masked_fill_(chance >= self.share, -1)
