"""The replay as a Lightning data source: one batch is one round.

A round is: receive and store what the workers simulated -> choose actions with the current policy
-> send them -> sample this round's U batches, a bounded number at a time -> update on them, while
the workers simulate. An epoch is the distance between two evaluations, in env steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from tensordict import TensorDictBase
from torchrl.envs import TransformedEnv

from fetchlab.collect.collector import Collector
from fetchlab.envs.batched import get_env_state, set_env_state
from fetchlab.replay.replay import HindsightReplay


class Rounds:
    """The rounds of one epoch, as the iterable that Lightning reads.

    It has a length: without one Lightning fetches a batch ahead, so that round r + 1 would be
    collected before the updates of round r. The counters decide where the epoch ends, not the
    length: after a resume in mid-epoch fewer rounds are left than it says.
    """

    def __init__(self, data: ReplayDataModule) -> None:
        self._data = data

    def __len__(self) -> int:
        return self._data.rounds_per_epoch

    def __iter__(self) -> Iterator[Round]:
        boundary = self._data.next_boundary()
        while self._data.env_steps + self._data.collector.outstanding_steps < boundary:
            yield self._data.round()


class Round:
    """The U >= 0 batches [U, B] of one round, drawn in pieces: the frames of one lie in memory.

    They are wanted on ``device``; None: where the replay draws them.
    """

    def __init__(
        self, replay: HindsightReplay, updates: int, batch_size: int, env_steps: int
    ) -> None:
        self._replay, self._env_steps = replay, env_steps
        self.updates, self.batch_size = updates, batch_size
        self.device: torch.device | None = None

    def to(self, device: torch.device) -> Round:
        """The same round, with its batches on ``device``."""
        self.device = device
        return self

    def split(self, updates: int) -> Iterator[tuple[TensorDictBase, ...]]:
        """Draw the batches, at most so many at a time; a piece is valid until the next one."""
        for first in range(0, self.updates, updates):
            n = min(updates, self.updates - first) * self.batch_size
            piece = self._replay.draw(n, self._env_steps)
            if self.device not in (None, piece.device):
                piece = piece.to(self.device)
            yield piece.split(self.batch_size)


class ReplayDataModule(pl.LightningDataModule):
    """Collects, stores and samples.

    Args:
        collector: environments and policy, storing into ``replay``.
        replay: of which batches are sampled.
        batch_size: B, transitions per update.
        utd_ratio: updates per env step; the fraction left over is carried to the next round.
        total_env_steps: where the run ends.
        epoch_env_steps: distance between two evaluations.
        verify: which episodes are held against their checksums when a run is resumed.

    Attributes:
        seed: of the run.
        make_evaluation_env: builds environments for evaluation, where training has its own.
        replay_lost: a resumed run begins with an empty replay, and with new episodes.
    """

    seed: int
    make_evaluation_env: Callable[[], TransformedEnv]

    def __init__(
        self,
        collector: Collector,
        replay: HindsightReplay,
        batch_size: int,
        utd_ratio: float,
        total_env_steps: int,
        epoch_env_steps: int,
        verify: Literal["tail", "full"],
    ) -> None:
        super().__init__()
        self.collector, self.replay = collector, replay
        self.batch_size, self.utd_ratio = batch_size, utd_ratio
        self.total_env_steps, self.epoch_env_steps = total_env_steps, epoch_env_steps
        self._verify = verify
        self._credit = 0.0
        self.replay_lost = False

    @property
    def env_steps(self) -> int:
        """Env steps whose transitions are stored."""
        return self.collector.env_steps

    @property
    def rounds_per_epoch(self) -> int:
        """Rounds between two evaluations."""
        return math.ceil(min(self.epoch_env_steps, self.total_env_steps) / self.collector.n_envs)

    @property
    def done(self) -> bool:
        """Whether the asked number of env steps has been sent."""
        return self.env_steps + self.collector.outstanding_steps >= self.total_env_steps

    def next_boundary(self) -> int:
        """Env steps at which the current epoch ends: the next evaluation, or the run's end."""
        epochs = self.env_steps // self.epoch_env_steps + 1
        return min(epochs * self.epoch_env_steps, self.total_env_steps)

    def setup(self, stage: str) -> None:
        """Reset the environments; a checkpoint, when there is one, overwrites this."""
        self.collector.start()

    def train_dataloader(self) -> Rounds:
        """The rounds of an epoch."""
        return Rounds(self)

    def transfer_batch_to_device(
        self, batch: Round, device: torch.device, dataloader_idx: int
    ) -> Round:
        """Have the batches there when they are drawn."""
        return batch if batch.device == device else batch.to(device)

    def round(self) -> Round:
        """Receive, act, send: what this round samples."""
        self.settle()
        updates = int(self._credit)
        self._credit -= updates
        self.collector.send()
        return Round(self.replay, updates, self.batch_size, self.env_steps)

    def settle(self) -> None:
        """Receive and store what is outstanding; a no-op when nothing is.

        Also called before a checkpoint. It changes only when the same data is stored, not what: the
        next thing that happens in either case is this round's choice of actions.
        """
        received = self.collector.receive()
        # No credit before the first episode has ended: nothing could be sampled for it.
        if self.collector.learning and len(self.replay):
            self._credit += self.utd_ratio * received

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next round depends on, the networks and replay data apart."""
        return {
            "credit": self._credit,
            "collector": self.collector.state_dict(),
            "env": get_env_state(self.collector.env),
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, on the same replay files."""
        if self.replay_lost:
            self.collector.load_state_dict(state_dict["collector"])
            self.collector.start()
            return
        self.replay.load_state_dict(state_dict["replay"])
        restorable = self.collector.env.base_env.env_spec.restorable
        if not restorable:
            self.replay.storage.abandon_open()
        self.replay.storage.require_intact(self._verify)
        set_env_state(self.collector.env, state_dict["env"])
        self.collector.load_state_dict(state_dict["collector"])
        if not restorable:
            self.collector.start()
        self._credit = float(state_dict["credit"])

    def teardown(self, stage: str) -> None:
        """Stop the workers."""
        self.collector.env.close()
