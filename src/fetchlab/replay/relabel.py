"""Goal relabelling: which goal a sampled transition is taken to have had.

Hindsight experience replay (Andrychowicz et al. 2017, arXiv 1707.01495). The paper stores k
relabelled copies of each transition; relabelling at sampling time reaches the same mix by giving a
share k / (k + 1) of the samples a new goal, one that the same episode achieved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fetchlab.errors import require
from fetchlab.schedule import Schedule


class HindsightRatio:
    """Relabelled samples for each sample that keeps its goal.

    Args:
        k: above 0, or a line over env steps, see `Schedule`.

    Raises:
        ConfigError: k is neither.
    """

    def __init__(self, k: float | Mapping[str, Any]) -> None:
        remedy = "the study used 4 and 8; relabel=none switches relabelling off"
        require(k != 0, "relabel.k", k, "a positive number", remedy)
        self._k = Schedule("relabel.k", k)

    def share(self, env_steps: int) -> float:
        """The share k / (k + 1) of samples to relabel, in [0, 1), after ``env_steps``."""
        k = self._k.at(env_steps)
        return k / (k + 1)


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


class EpisodeRelabel:
    """With probability k / (k + 1) the goal achieved at any time of the same episode.

    Times before the transition count too: its action may lead away from such a goal. The first row
    is left out, since no action achieved it.

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
        """Times (B,) in [1, length], each equally likely, or -1; two random numbers each."""
        chance, where = torch.rand(
            (2, *t.shape), dtype=torch.float64, device=generator.device, generator=generator
        ).to(t.device)
        anywhere = 1 + where.mul_(length).long()
        return anywhere.masked_fill_(chance >= self._ratio.share(env_steps), -1)


class NoRelabel:
    """Keeps the episode's own goal."""

    def __call__(
        self, t: Tensor, length: Tensor, generator: torch.Generator, env_steps: int
    ) -> Tensor:
        """-1 (B,) int64 for all; uses no random numbers."""
        return torch.full_like(t, -1)
