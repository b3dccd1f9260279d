"""Goal relabelling: which goal a sampled transition is taken to have had.

Hindsight experience replay (Andrychowicz et al. 2017, arXiv 1707.01495). The paper stores k
relabelled copies of each transition; relabelling at sampling time reaches the same mix by giving a
share k / (k + 1) of the samples a new goal, one that the same episode achieved. All here are
`fetchlab.entries.Relabeller`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fetchlab.errors import require
from fetchlab.schedule import Schedule


class Hindsight(ABC):
    """With probability k / (k + 1) a goal that the same episode achieved.

    Args:
        k: relabelled samples for each sample that keeps its goal, above 0; or a line over env
            steps, see `Schedule`.

    Raises:
        ConfigError: k is neither.
    """

    draws = 2  # random numbers of a sample
    unmet_only = False

    def __init__(self, k: float | Mapping[str, Any]) -> None:
        remedy = "the study used 4 and 8; relabel=none switches relabelling off"
        require(k != 0, "relabel.k", k, "a positive number", remedy)
        self._k = Schedule("relabel.k", k)

    def share(self, env_steps: int) -> float:
        """The share k / (k + 1) of samples to relabel, in [0, 1), after ``env_steps``."""
        k = self._k.at(env_steps)
        return k / (k + 1)

    @abstractmethod
    def _goal_time(self, t: Tensor, length: Tensor, *where: Tensor) -> Tensor:
        """Times (B,) of the goals; ``where`` (B,) in [0, 1) are the draws beyond the first."""

    def __call__(
        self, t: Tensor, length: Tensor, generator: torch.Generator, env_steps: int
    ) -> Tensor:
        """Times (B,), or -1 to keep the episode's own goal."""
        size, device = (self.draws, *t.shape), generator.device
        drawn = torch.rand(size, dtype=torch.float64, device=device, generator=generator)
        chance, *where = drawn.to(t.device)
        return self._goal_time(t, length, *where).masked_fill(chance >= self.share(env_steps), -1)


class FutureRelabel(Hindsight):
    """A later time of the same episode, in [t + 1, length], each equally likely."""

    def _goal_time(self, t: Tensor, length: Tensor, *where: Tensor) -> Tensor:
        return t + 1 + where[0].mul_(length - t).long()


class UnmetFutureRelabel(FutureRelabel):
    """The same, but for goals that the episode began at: those samples keep their own goal.

    Most early episodes never touch the object, so nearly all of their hindsight is "it is where it
    always was". Critics that see take that for a reward of not seeing: where the arm hides the
    object from the camera, the goal is likely one of hindsight, and met
    (docs/what_makes_seeing_cheap.md).
    """

    unmet_only = True


class FinalRelabel(Hindsight):
    """The episode's last row.

    The paper compares it as the simplest strategy, with one copy per transition: k = 1.
    """

    draws = 1

    def _goal_time(self, t: Tensor, length: Tensor, *where: Tensor) -> Tensor:
        return length


class EpisodeRelabel(Hindsight):
    """Any time of the same episode, in [1, length], each equally likely.

    Times before the transition count too: its action may lead away from such a goal. The first row
    is left out, since no action achieved it.
    """

    def _goal_time(self, t: Tensor, length: Tensor, *where: Tensor) -> Tensor:
        return 1 + where[0].mul_(length).long()


class NoRelabel:
    """Keeps the episode's own goal; uses no random numbers."""

    unmet_only = False

    def __call__(
        self, t: Tensor, length: Tensor, generator: torch.Generator, env_steps: int
    ) -> Tensor:
        """-1 (B,) int64 for all."""
        return torch.full_like(t, -1)
