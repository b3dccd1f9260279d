"""Which transitions a batch holds, and with which goals: hindsight experience replay.

Andrychowicz et al., Hindsight Experience Replay (arXiv 1707.01495). The relabeller chooses the time
whose ``achieved_goal`` becomes the desired goal; the reward is recomputed for every sample with the
environment's own function, from the goal achieved *by* the transition: its next observation's.

With ``n_step`` above 1 every reward on the way is recomputed with the one goal of its sample:
``R = sum_i discount^i r(achieved_{t+i+1}, goal)``, i < m = min(n_step, length - t), and the target
bootstraps with ``discount^m``. The chain is cut at the episode's end; at the goal only where that
ends episodes. The actions in between are the old policy's, a bias that grows with n.

Where reaching a goal ends an episode, ``terminated`` is that of the sample's goal: the new one ends
it where it is reached, the old one no more. What ended for another reason stays ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchrl.data.replay_buffers import Sampler

from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, STATE, Relabeller
from fetchlab.replay.layout import TERMINATED
from fetchlab.replay.storage import EpisodeStorage, no_state, not_offered

if TYPE_CHECKING:
    from fetchlab.entries import GoalFunction
    from fetchlab.replay.reader import RowReader
    from fetchlab.replay.window import Places


class HindsightSampler(Sampler):
    """Uniform transitions of finished episodes, with relabelled goals and recomputed rewards.

    Args:
        relabel: chooses the goal's time, see `Relabeller`.
        compute_reward: of achieved and desired goals.
        compute_terminated: whether these end an episode; None where goals end none.
        goal_slice: where ``achieved_goal`` lies in ``state``; None: it is stored.
        discount: of the rewards on the way, where the storage's transitions have several steps.

    ``env_steps`` are those collected so far, for relabellers that follow a schedule.
    """

    def __init__(
        self,
        relabel: Relabeller,
        compute_reward: GoalFunction,
        compute_terminated: GoalFunction | None,
        goal_slice: slice | None,
        discount: float,
    ) -> None:
        self._relabel, self._compute_reward = relabel, compute_reward
        self._compute_terminated = compute_terminated
        self._goal, self._discount = goal_slice, discount
        self.env_steps = 0

    def sample(self, storage: EpisodeStorage, batch_size: int) -> tuple[Tensor, dict[Any, Tensor]]:
        """Draw indices (B,) with replacement, and what `EpisodeStorage.get` cannot know.

        That is ``desired_goal`` (B, G) and, under ``next``, ``reward`` (B,), with several steps
        ``discount`` (B,), and where goals end episodes ``terminated`` (B,) bool.
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
        achieved, hindsight = self._achieved(reader, places, times).unbind(0)
        if self._relabel.unmet_only:
            first = self._achieved(reader, places, torch.zeros_like(t))
            best = self._compute_reward(hindsight, hindsight)
            goal_time = goal_time.masked_fill(self._compute_reward(first, hindsight) >= best, -1)
        own = reader.vectors(DESIRED_GOAL, places, t)
        goal = torch.where(goal_time[:, None] < 0, own, hindsight)
        if reader.n_step > 1:
            return index, {DESIRED_GOAL: goal, **self._several_steps(reader, places, goal)}
        rewards = self._compute_reward(achieved, goal)
        drawn: dict[Any, Tensor] = {DESIRED_GOAL: goal, ("next", "reward"): rewards}
        if self._compute_terminated is not None:
            drawn["next", TERMINATED] = self._ended(reader, places, t + 1, achieved, goal)
        return index, drawn

    def _achieved(self, reader: RowReader, places: Places, times: Tensor) -> Tensor:
        """Goals (..., B, G) that the rows at ``times`` (..., B) achieved."""
        if self._goal is None:
            return reader.vectors(ACHIEVED_GOAL, places, times)
        return reader.vectors(STATE, places, times)[..., self._goal]

    def _ended(
        self, reader: RowReader, places: Places, times: Tensor, achieved: Tensor, goal: Tensor
    ) -> Tensor:
        """Whether an episode with this goal ends at ``times`` (..., B); goals are (..., B, G)."""
        assert self._compute_terminated is not None
        own = reader.vectors(DESIRED_GOAL, places, times - 1)
        ended = reader.vectors(TERMINATED, places, times - 1)[..., 0].bool()
        ended &= ~self._compute_terminated(achieved, own)
        return ended | self._compute_terminated(achieved, goal)

    def _several_steps(
        self, reader: RowReader, places: Places, goal: Tensor
    ) -> dict[tuple[str, str], Tensor]:
        """Discounted rewards (B,) on the way to the next observation, and discount^m (B,)."""
        steps = reader.steps(places)
        nth = torch.arange(reader.n_step, device=goal.device)[:, None]
        times = torch.minimum(places.t + 1 + nth, places.length)
        achieved = self._achieved(reader, places, times)
        goals = goal.expand_as(achieved)
        rewards, beyond, more = self._compute_reward(achieved, goals), nth >= steps, {}
        if self._compute_terminated is not None:
            ended = self._ended(reader, places, times, achieved, goals) & ~beyond
            beyond = beyond | (ended.cumsum(0) > ended.int())  # an earlier one ended it
            more = {("next", TERMINATED): ended.any(0)}
        weights = torch.pow(self._discount, nth).masked_fill(beyond, 0.0)
        return {
            ("next", "reward"): (weights * rewards).sum(0),
            ("next", "discount"): torch.pow(self._discount, steps),
            **more,
        }

    state_dict = load_state_dict = no_state  # the generator is the replay buffer's
    _empty = dumps = loads = not_offered
