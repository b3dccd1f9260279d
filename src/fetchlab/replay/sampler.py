"""Which transitions a batch holds, and with which goals: hindsight experience replay.

Andrychowicz et al., Hindsight Experience Replay (arXiv 1707.01495). The relabeller chooses the time
whose ``achieved_goal`` becomes the desired goal; the reward is recomputed for every sample with the
environment's own function, from the goal achieved *by* the transition: its next observation's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from torchrl.data.replay_buffers import Sampler

from fetchlab.replay.storage import EpisodeStorage
from fetchlab.types import DESIRED_GOAL, GOAL_DIM, STATE, Relabeller, require

if TYPE_CHECKING:
    from fetchlab.types import RewardFunction


class HindsightSampler(Sampler):
    """Uniform transitions of finished episodes, with relabelled goals and recomputed rewards.

    Args:
        relabel: chooses the goal's time, see `Relabeller`.
        compute_reward: (B, 3) achieved and (B, 3) desired goals to (B,) rewards.
        goal_slice: where ``achieved_goal`` lies in ``state``.

    Raises:
        ConfigError: a slice that does not hold a goal.
    """

    def __init__(
        self, relabel: Relabeller, compute_reward: RewardFunction, goal_slice: slice
    ) -> None:
        require(
            goal_slice.step is None and goal_slice.stop - goal_slice.start == GOAL_DIM,
            "goal_slice",
            goal_slice,
            f"{GOAL_DIM} adjacent entries of the state",
            "use the environment's goal_slice",
        )
        self._relabel, self._compute_reward = relabel, compute_reward
        self._goal = goal_slice

    def sample(self, storage: EpisodeStorage, batch_size: int) -> tuple[Tensor, dict[Any, Tensor]]:
        """Draw indices (B,) with replacement, and what `EpisodeStorage.get` cannot know.

        Returns:
            The indices, and ``desired_goal`` (B, 3) and ``("next", "reward")`` (B,), which the
            replay buffer adds to the batch.

        Raises:
            RuntimeError: no finished episode is stored yet.
        """
        if batch_size < 1 or len(storage) == 0:
            raise RuntimeError(
                f"cannot draw {batch_size} of {len(storage)} stored transitions: only finished "
                "episodes are sampled; raise collect.learning_starts"
            )
        index = storage.window.draw(batch_size, self._rng)
        places, reader = storage.window.locate(index), storage.reader
        t = places.t
        goal_time = self._relabel(t, places.length, self._rng)
        times = torch.stack((t + 1, goal_time.clamp_min(0)))
        achieved, hindsight = reader.vectors(STATE, places, times)[..., self._goal].unbind(0)
        own = reader.vectors(DESIRED_GOAL, places, t)
        goal = torch.where(goal_time[:, None] < 0, own, hindsight)
        return index, {DESIRED_GOAL: goal, ("next", "reward"): self._compute_reward(achieved, goal)}

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the generator belongs to the replay buffer, which saves it."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore."""

    def _empty(self) -> None:
        """Nothing is kept between batches."""

    def dumps(self, path: Any) -> NoReturn:
        """Not offered: see `EpisodeStorage.dumps`."""
        raise NotImplementedError("save `state_dict()`")

    def loads(self, path: Any) -> NoReturn:
        """Not offered: see `EpisodeStorage.loads`."""
        raise NotImplementedError("use `load_state_dict`")
