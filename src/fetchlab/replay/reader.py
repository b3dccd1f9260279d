"""Transitions rebuilt from single rows: next observations and frame stacks.

The frames of a transition at time ``t`` are one block of ``S + 1``: times ``t - S + 1 .. t + 1``,
of which the first ``S`` are the observation's stack and the last ``S`` the next one's. A transition
of several steps has both stacks whole, ``2 S`` frames. Times before the episode's first repeat its
first frame, so no stack crosses an episode's start.
"""

from __future__ import annotations

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from fetchlab.entries import ACHIEVED_GOAL, PIXELS, STATE
from fetchlab.errors import require
from fetchlab.replay.layout import ACTION, OBSERVATION_ARRAYS, TERMINATED, TRANSITION_ARRAYS
from fetchlab.replay.mirror import Mirrored, push
from fetchlab.replay.window import Places


class RowReader:
    """Gathers rows from the mapped files, or from their copy on the learner's device.

    The block of frames, 27 MB for 256 transitions, is reused: it is valid until the next batch is
    read. All else is newly allocated.

    Args:
        frame_stack: frames per stack, S.
        max_episode_steps: bound of both.
        device: where rows are read and batches are put together.
        n_step: steps from an observation to its next one, fewer where the episode ends before.
    """

    def __init__(
        self, frame_stack: int, max_episode_steps: int, device: torch.device, n_step: int
    ) -> None:
        for key, value, remedy in (
            ("obs.frame_stack", frame_stack, "the study stacked 4"),
            ("algo.n_step", n_step, "1 is the usual target"),
        ):
            expected = f"between 1 and task.max_episode_steps = {max_episode_steps}"
            require(1 <= value <= max_episode_steps, key, value, expected, remedy)
        self.n_step = n_step
        self._offsets = torch.arange(1 - frame_stack, 2 if n_step == 1 else 1, device=device)
        # As a tensor names it, "cuda:0" and not "cuda": a batch is rebuilt for another name.
        self._device = self._offsets.device
        self._block = torch.empty(0, dtype=torch.uint8, device=device)

    def attach(self, arrays: dict[str, np.ndarray], rows: int) -> None:
        """Read from these arrays; elsewhere than on the CPU a row once it was pushed."""
        self._rows = rows
        self._mirrors = {name: Mirrored(array, self._device) for name, array in arrays.items()}
        views = {name: mirror.tensor for name, mirror in self._mirrors.items()}
        self._frame_shape: tuple[int, ...] = ()
        if PIXELS in views:
            self._frame_shape = tuple(views[PIXELS].shape[1:])
            views[PIXELS] = views[PIXELS].flatten(1)  # one memcpy per frame in index_select
        self._views = views

    def push(self, observations: np.ndarray, transitions: np.ndarray) -> None:
        """These rows (n,) int64 of the observation and of the transition arrays were written."""
        for names, rows in ((OBSERVATION_ARRAYS, observations), (TRANSITION_ARRAYS, transitions)):
            push(rows, *(self._mirrors[name] for name in names if name in self._mirrors))

    def push_all(self) -> None:
        """All rows were written: a replay was resumed."""
        for mirror in self._mirrors.values():
            mirror.push_all()

    def steps(self, places: Places) -> Tensor:
        """Steps (B,) int64 from each observation to its next one, in [1, n_step]."""
        return (places.length - places.t).clamp_max_(self.n_step)

    def vectors(self, name: str, places: Places, time: Tensor) -> Tensor:
        """Rows (..., B, D) of an array at ``time`` (..., B) int64 of each place's episode."""
        rows = self._physical(places, time)
        return self._views[name].index_select(0, rows.flatten()).view(*rows.shape, -1)

    def transitions(self, places: Places) -> TensorDict:
        """The transitions at ``places``; their goals and rewards are left to the sampler.

        Returns:
            [B]: ``state`` (B, D), ``action`` (B, A), ``pixels`` (B, S + 1, C, H, W) uint8 (2 S
            frames where n_step > 1), of which ``[:, :S]`` is the observation's stack and
            ``[:, -S:]`` the next one's; under ``next`` ``state`` and ``terminated`` (B,) bool; in
            both ``achieved_goal`` (B, G) where it is stored.
        """
        last = places.t if self.n_step == 1 else places.t + self.steps(places) - 1
        now = self._physical(places, places.t)
        after = self._physical(places, last + 1)
        ended = now if self.n_step == 1 else self._physical(places, last)
        views = self._views
        observed = [name for name in (STATE, ACHIEVED_GOAL) if name in views]
        root = {name: views[name].index_select(0, now) for name in (*observed, ACTION)}
        if self._frame_shape:
            root[PIXELS] = self._frames(places, last + 1)
        following = {name: views[name].index_select(0, after) for name in observed}
        following[TERMINATED] = views[TERMINATED].index_select(0, ended).bool()
        # Gathered by indices of one shape: there is nothing for TensorDict to check.
        size, device = now.shape, self._device
        following_batch = TensorDict._new_unsafe(following, size, device)
        return TensorDict._new_unsafe({**root, "next": following_batch}, size, device)

    def _physical(self, places: Places, time: Tensor) -> Tensor:
        return places.start.add(time).remainder_(self._rows).add_(places.ring)

    def _frames(self, places: Places, next_time: Tensor) -> Tensor:
        """The block (B, S + 1 or 2 S, C, H, W) uint8, in the reused memory."""
        time = places.t[:, None].add(self._offsets)
        if self.n_step > 1:
            time = torch.cat((time, next_time[:, None].add(self._offsets)), dim=1)
        time.clamp_min_(0)
        rows = time.add_(places.start[:, None]).remainder_(self._rows).add_(places.ring[:, None])
        frames = self._views[PIXELS]
        if len(self._block) < rows.numel():
            size = (rows.numel(), frames.shape[1])
            self._block = torch.empty(size, dtype=torch.uint8, device=self._device)
        block = self._block[: rows.numel()]
        torch.index_select(frames, 0, rows.flatten(), out=block)
        return block.view(*rows.shape, *self._frame_shape)
