"""The replay buffer as the rest of the project sees it."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase
from torchrl.data import TensorDictReplayBuffer
from torchrl.data.replay_buffers import Writer

from fetchlab.random_states import restore_generator
from fetchlab.replay.sampler import HindsightSampler
from fetchlab.replay.storage import EpisodeStorage, no_state, not_offered


class EpisodeWriter(Writer):
    """Hands each step of all environments to the storage, which knows where it goes.

    There is no index to return: a transition gets its index when its episode has finished.
    """

    def extend(self, data: TensorDictBase) -> None:
        """Store one step of all environments (batch [N])."""
        self._storage.set(None, data)

    state_dict = load_state_dict = no_state
    add = _empty = dumps = loads = not_offered


class HindsightReplay(TensorDictReplayBuffer):
    """``extend(step)``, ``sample(n)``, and what exact resume needs; files: ``storage``.

    Both go straight to storage and sampler while no transform was appended: TorchRL's way there,
    with locks, futures, priorities and shallow copies, costs 0.2 ms of a 12 ms round.

    ``sample(n)`` gives a batch [n]: ``state, desired_goal, action, [achieved_goal],
    [pixels], index``, and under ``next`` ``state, reward, terminated, [achieved_goal],
    [discount]`` (see `RowReader.transitions`, `HindsightSampler.sample`).

    Args:
        storage: rows, window and protection.
        sampler: transitions and goals.
        generator: of all random numbers that sampling uses; part of ``state_dict``.
    """

    def __init__(
        self, storage: EpisodeStorage, sampler: HindsightSampler, generator: torch.Generator
    ) -> None:
        super().__init__(
            storage=storage,
            sampler=sampler,
            writer=EpisodeWriter(),
            collate_fn=lambda batch: batch,
            generator=generator,
        )

    def extend(self, tensordicts: TensorDictBase, **options: Any) -> Any:
        """Store one step of all environments (batch [N]), see `EpisodeStorage.set`."""
        if len(self._transform):
            return super().extend(tensordicts, **options)
        return self._writer.extend(tensordicts)

    def sample(self, batch_size: int | None = None, *args: Any, **options: Any) -> TensorDictBase:
        """Draw a batch [n] with ``index`` (n,), as `TensorDictReplayBuffer.sample` does."""
        if batch_size is None or args or options or len(self._transform):
            return super().sample(batch_size, *args, **options)
        index, drawn = self._sampler.sample(self._storage, batch_size)
        batch = self._storage.get(index)
        for name, values in (*drawn.items(), ("index", index)):
            batch.set(name, values)
        return batch

    def draw(self, n: int, env_steps: int) -> TensorDictBase:
        """`sample` of a run that has collected ``env_steps``: what a relabelling schedule reads."""
        self._sampler.env_steps = env_steps
        return self.sample(n)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``; a generator on another device keeps its own state."""
        super().load_state_dict({**state_dict, "_rng": None})
        restore_generator(self._rng, state_dict["_rng"][0])
