"""Transitions rebuilt from single rows: next observations and frame stacks.

The frames of a transition at time ``t`` are one block of ``S + 1``: times ``t - S + 1 .. t + 1``,
of which the first ``S`` are the observation's stack and the last ``S`` the next one's. Times before
the episode's first repeat its first frame, so no stack crosses an episode's start.
"""

from __future__ import annotations

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from fetchlab.replay.layout import ACTION, TERMINATED
from fetchlab.replay.window import Places
from fetchlab.types import PIXELS, STATE, require


class RowReader:
    """Gathers rows from the mapped files.

    The frame blocks, 27 MB for 256 transitions, are written into ``n_buffers`` buffers in turn: a
    block is valid until the ``n_buffers``-th batch after it is read. All else is newly allocated.

    Args:
        frame_stack: frames per stack, S.
        max_episode_steps: the longest episode, in transitions.
        device: where batches are delivered.
        n_buffers: blocks that stay valid at the same time, >= 1.

    Raises:
        ConfigError: a stack that is empty or longer than an episode, or no buffer.
    """

    def __init__(
        self, frame_stack: int, max_episode_steps: int, device: torch.device, n_buffers: int
    ) -> None:
        require(
            1 <= frame_stack <= max_episode_steps,
            "obs.frame_stack",
            frame_stack,
            f"between 1 and task.max_episode_steps = {max_episode_steps}",
            "the study stacked 4",
        )
        require(n_buffers >= 1, "replay.n_buffers", n_buffers, "at least 1", "1 is enough")
        self._device = torch.device(device)
        self._offsets = torch.arange(1 - frame_stack, 2)
        self._blocks = [torch.empty(0, dtype=torch.uint8)] * n_buffers
        self._turn = 0

    def attach(self, arrays: dict[str, np.ndarray], rows: int) -> None:
        """Read from these arrays: name -> (N * rows, *shape)."""
        self._rows = rows
        views = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self._frame_shape: tuple[int, ...] = ()
        if PIXELS in views:
            self._frame_shape = tuple(views[PIXELS].shape[1:])
            views[PIXELS] = views[PIXELS].flatten(1)  # one memcpy per frame in index_select
        self._views = views

    def vectors(self, name: str, places: Places, time: Tensor) -> Tensor:
        """Rows (..., B, D) of a vector entry at ``time`` (..., B) int64 of each place's episode."""
        rows = self._physical(places, time)
        return self._views[name].index_select(0, rows.flatten()).view(*rows.shape, -1)

    def transitions(self, places: Places) -> TensorDict:
        """The transitions at ``places``; their goals and rewards are left to the sampler.

        Returns:
            [B]: ``state`` (B, D), ``action`` (B, A), ``pixels`` (B, S + 1, 3, H, W) uint8, of which
            ``[:, :S]`` is the observation's stack and ``[:, 1:]`` the next one's; under ``next``
            ``state`` and ``terminated`` (B,) bool.
        """
        now = self._physical(places, places.t)
        after = self._physical(places, places.t + 1)
        views, deliver = self._views, self._deliver
        root = {
            STATE: deliver(views[STATE].index_select(0, now)),
            ACTION: deliver(views[ACTION].index_select(0, now)),
        }
        if self._frame_shape:
            root[PIXELS] = deliver(self._frames(places))
        following = {
            STATE: deliver(views[STATE].index_select(0, after)),
            TERMINATED: deliver(views[TERMINATED].index_select(0, now).bool()),
        }
        size = now.shape
        return TensorDict(
            {**root, "next": TensorDict(following, size, device=self._device)},
            size,
            device=self._device,
        )

    def _physical(self, places: Places, time: Tensor) -> Tensor:
        return places.start.add(time).remainder_(self._rows).add_(places.ring)

    def _frames(self, places: Places) -> Tensor:
        """One block (B, S + 1, 3, H, W) uint8 in the next reused buffer."""
        time = places.t[:, None].add(self._offsets).clamp_min_(0)
        rows = time.add_(places.start[:, None]).remainder_(self._rows).add_(places.ring[:, None])
        frames = self._views[PIXELS]
        block = self._block(rows.numel(), frames.shape[1])
        torch.index_select(frames, 0, rows.flatten(), out=block)
        return block.view(*rows.shape, *self._frame_shape)

    def _block(self, n_frames: int, frame_bytes: int) -> Tensor:
        self._turn = (self._turn + 1) % len(self._blocks)
        if len(self._blocks[self._turn]) < n_frames:
            self._blocks[self._turn] = torch.empty(
                (n_frames, frame_bytes),
                dtype=torch.uint8,
                pin_memory=self._device.type == "cuda",
            )
        return self._blocks[self._turn][:n_frames]

    def _deliver(self, values: Tensor) -> Tensor:
        # Blocking: the pinned block is reused, so a copy must not outlive this call.
        return values if self._device.type == "cpu" else values.to(self._device)
