"""Which transitions a batch holds, and with which goals: hindsight experience replay.

Andrychowicz et al., Hindsight Experience Replay (arXiv 1707.01495). The relabeller chooses the time
whose ``achieved_goal`` becomes the desired goal; the reward is recomputed for every sample with the
environment's own function, from the goal achieved *by* the transition: its next observation's.

With ``n_step`` above 1 every reward on the way is recomputed with the one goal of its sample:
``R = sum_i discount^i r(achieved_{t+i+1}, goal)``, i < m = min(n_step, length - t), and the target
bootstraps with ``discount^m``. The chain is cut at the episode's end, never at the goal: Fetch
episodes go on there. The actions in between are the old policy's, a bias that grows with n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from torchrl.data.replay_buffers import Sampler

from fetchlab.entries import DESIRED_GOAL, GOAL_DIM, STATE, Relabeller
from fetchlab.errors import require
from fetchlab.replay.storage import EpisodeStorage

if TYPE_CHECKING:
    from fetchlab.entries import RewardFunction
    from fetchlab.replay.reader import RowReader
    from fetchlab.replay.window import Places


class HindsightSampler(Sampler):
    """Uniform transitions of finished episodes, with relabelled goals and recomputed rewards.

    Args:
        relabel: chooses the goal's time, see `Relabeller`.
        compute_reward: (B, 3) achieved and (B, 3) desired goals to (B,) rewards.
        goal_slice: where ``achieved_goal`` lies in ``state``.
        discount: of the rewards on the way, where the storage's transitions have several steps.

    Attributes:
        env_steps: env steps collected so far, for relabellers that follow a schedule.

    Raises:
        ConfigError: a slice that does not hold a goal.
    """

    def __init__(
        self,
        relabel: Relabeller,
        compute_reward: RewardFunction,
        goal_slice: slice,
        discount: float,
    ) -> None:
        require(
            goal_slice.step is None and goal_slice.stop - goal_slice.start == GOAL_DIM,
            "goal_slice",
            goal_slice,
            f"{GOAL_DIM} adjacent entries of the state",
            "use the environment's goal_slice",
        )
        self._relabel, self._compute_reward = relabel, compute_reward
        self._goal, self._discount = goal_slice, discount
        self.env_steps = 0

    def sample(self, storage: EpisodeStorage, batch_size: int) -> tuple[Tensor, dict[Any, Tensor]]:
        """Draw indices (B,) with replacement, and what `EpisodeStorage.get` cannot know.

        Returns:
            The indices, and ``desired_goal`` (B, 3) and ``("next", "reward")`` (B,), which the
            replay buffer adds to the batch; with several steps also ``("next", "discount")`` (B,).

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
        goal_time = self._relabel(t, places.length, self._rng, self.env_steps)
        times = torch.stack((t + 1, goal_time.clamp_min(0)))
        achieved, hindsight = reader.vectors(STATE, places, times)[..., self._goal].unbind(0)
        own = reader.vectors(DESIRED_GOAL, places, t)
        goal = torch.where(goal_time[:, None] < 0, own, hindsight)
        if reader.n_step > 1:
            return index, {DESIRED_GOAL: goal, **self._several_steps(reader, places, goal)}
        return index, {DESIRED_GOAL: goal, ("next", "reward"): self._compute_reward(achieved, goal)}

    def _several_steps(
        self, reader: RowReader, places: Places, goal: Tensor
    ) -> dict[tuple[str, str], Tensor]:
        """Discounted rewards (B,) on the way to the next observation, and discount^m (B,)."""
        steps = reader.steps(places)
        nth = torch.arange(reader.n_step, device=goal.device)[:, None]
        times = torch.minimum(places.t + 1 + nth, places.length)
        achieved = reader.vectors(STATE, places, times)[..., self._goal]
        rewards = self._compute_reward(achieved, goal.expand_as(achieved))
        weights = torch.pow(self._discount, nth).masked_fill(nth >= steps, 0.0)
        return {
            ("next", "reward"): (weights * rewards).sum(0),
            ("next", "discount"): torch.pow(self._discount, steps),
        }

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
