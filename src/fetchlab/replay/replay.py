"""The replay buffer as the rest of the project sees it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tensordict import TensorDictBase
from torchrl.data import TensorDictReplayBuffer
from torchrl.data.replay_buffers import Writer

from fetchlab.entries import Relabeller
from fetchlab.random_states import restore_generator
from fetchlab.replay.files import ReplayError
from fetchlab.replay.layout import ROUNDS_AHEAD, ReplaySize, RowSpec
from fetchlab.replay.sampler import HindsightSampler
from fetchlab.replay.storage import EpisodeStorage, not_offered

if TYPE_CHECKING:
    from fetchlab.entries import GoalFunction


class EpisodeWriter(Writer):
    """Hands each step of all environments to the storage, which knows where it goes.

    There is no index to return: a transition gets its index when its episode has finished.
    """

    def extend(self, data: TensorDictBase) -> None:
        """Store one step of all environments (batch [N])."""
        self._storage.set(None, data)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the cursors are the storage's."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing to restore."""

    add = _empty = dumps = loads = not_offered


class HindsightReplay(TensorDictReplayBuffer):
    """``extend(step)``, ``sample(n)``, and what exact resume needs.

    Both go straight to storage and sampler while no transform was appended: TorchRL's way there,
    with locks, futures, priorities and shallow copies, costs 0.2 ms of a 12 ms round.

    ``sample(n)`` gives a batch [n]: ``state, desired_goal, action, [achieved_goal],
    [pixels], index``, and under ``next`` ``state, reward, terminated, [achieved_goal],
    [discount]`` (see `RowReader.transitions`, `HindsightSampler.sample`).
    ``state_dict`` includes the generator's state; see `load_state_dict`.

    Args:
        storage: rows, window and protection.
        sampler: transitions and goals.
        generator: of all random numbers that sampling uses; the replay's own.
    """

    def __init__(
        self, storage: EpisodeStorage, sampler: HindsightSampler, generator: torch.Generator
    ) -> None:
        super().__init__(
            storage=storage,
            sampler=sampler,
            writer=EpisodeWriter(),
            collate_fn=_identity,
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

    def flush(self) -> None:
        """Make all rows durable; call before a checkpoint that refers to them is committed."""
        self._storage.flush()

    def committed(self) -> None:
        """The newest `state_dict` is durable now; see `EpisodeStorage.committed`."""
        self._storage.committed()

    def replace_commit(self) -> None:
        """The next `state_dict` replaces the newest one; see `EpisodeStorage.replace_commit`."""
        self._storage.replace_commit()

    def abandon_open(self) -> None:
        """The episodes in progress end unfinished; see `EpisodeStorage.abandon_open`."""
        self._storage.abandon_open()

    def commit_needed(self, rounds_ahead: int = ROUNDS_AHEAD) -> bool:
        """Whether one of the next ``rounds_ahead`` rounds may touch a protected row."""
        return self._storage.commit_needed(rounds_ahead)

    def require_intact(self, mode: Literal["tail", "full"]) -> None:
        """Compare the rows with their checksums; call after `load_state_dict`.

        Raises:
            ReplayError: names the episodes that differ.
        """
        bad = self._storage.verify(mode)
        if len(bad.env):
            where = [f"env {env} rows {s}..{s + n}" for env, s, n, _ in zip(*bad, strict=True)]
            raise ReplayError(
                f"{self._storage.files.directory}: checksum error in {len(where)} episodes "
                f"({', '.join(where[:5])}{', ...' if len(where) > 5 else ''}); "
                "restore the files, or start the run again"
            )

    @property
    def bytes_per_transition(self) -> float:
        """Bytes of the full logical window over its transitions, margin excluded."""
        return self._storage.layout.bytes_per_transition()

    @property
    def disk_bytes(self) -> int:
        """Bytes of all files, margin included."""
        return self._storage.layout.disk_bytes()


def make_replay(
    directory: Path,
    *,
    row: RowSpec,
    size: ReplaySize,
    frame_stack: int,
    relabel: Relabeller,
    compute_reward: GoalFunction,
    compute_terminated: GoalFunction | None,
    goal_slice: slice | None,
    generator: torch.Generator,
    device: torch.device,
    n_buffers: int,
    n_step: int,
    discount: float,
) -> HindsightReplay:
    """The replay of a run, on new or existing files; see the parts for the arguments."""
    storage = EpisodeStorage(directory, row, size, frame_stack, device, n_buffers, n_step)
    sampler = HindsightSampler(relabel, compute_reward, compute_terminated, goal_slice, discount)
    return HindsightReplay(storage, sampler, generator)


def _identity(batch: TensorDictBase) -> TensorDictBase:
    return batch
