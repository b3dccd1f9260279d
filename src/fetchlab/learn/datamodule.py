"""The replay as a Lightning data source: one batch is one round.

A round is: receive and store what the workers simulated -> choose actions with the current policy
-> send them -> sample this round's U batches. Lightning then calls `training_step` on them while
the workers simulate. An epoch is the distance between two evaluations, in env steps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from tensordict import TensorDict, TensorDictBase, lazy_stack

from fetchlab.collect.collector import Collector
from fetchlab.envs.batched import get_env_state, set_env_state
from fetchlab.replay.replay import HindsightReplay
from fetchlab.types import require


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

    def __iter__(self) -> Iterator[TensorDictBase]:
        boundary = self._data.next_boundary()
        while self._data.env_steps + self._data.collector.outstanding_steps < boundary:
            yield self._data.round()


class ReplayDataModule(pl.LightningDataModule):
    """Collects, stores and samples.

    Args:
        collector: environments, policy and replay writer.
        replay: of which batches are sampled.
        batch_size: B, transitions per update.
        utd_ratio: updates per env step; the fraction left over is carried to the next round.
        total_env_steps: where the run ends.
        epoch_env_steps: distance between two evaluations.
        verify: which episodes are held against their checksums when a run is resumed.

    Raises:
        ConfigError: for sizes that are not positive.
    """

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
        _require_positive("algo.batch_size", batch_size, "the study used 256")
        _require_positive("algo.utd_ratio", utd_ratio, "0.25 is one update per 4 env steps")
        _require_positive("total_env_steps", total_env_steps, "2000000 is a full state run")
        _require_positive("callbacks.evaluation.every_env_steps", epoch_env_steps, "10000 is usual")
        self.collector, self.replay = collector, replay
        self.batch_size, self.utd_ratio = batch_size, utd_ratio
        self.total_env_steps, self.epoch_env_steps = total_env_steps, epoch_env_steps
        known = verify in ("tail", "full")
        require(known, "replay.verify", verify, "tail or full", "tail reads the newest rows only")
        self._verify = verify
        self._credit = 0.0
        self._empty = TensorDict({}, batch_size=[0, batch_size])

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
        self, batch: TensorDictBase, device: torch.device, dataloader_idx: int
    ) -> TensorDictBase:
        """Move a batch only where it is not there already."""
        return batch if batch.device == device else batch.to(device)

    def round(self) -> TensorDictBase:
        """Receive, act, send, sample: the batch [U, B] of this round."""
        self.settle()
        updates = self._updates_due()
        self.collector.send()
        if updates == 0:
            return self._empty
        batch = self.replay.draw(updates * self.batch_size, self.env_steps)
        # A lazy stack of views: stacked and taken apart again without touching an entry.
        return lazy_stack([batch] if updates == 1 else list(batch.split(self.batch_size)))

    def settle(self) -> None:
        """Receive and store what is outstanding; a no-op when nothing is.

        Also called before a checkpoint. It changes only when the same data is stored, not what: the
        next thing that happens in either case is this round's choice of actions.
        """
        received = self.collector.receive()
        if self.collector.learning:
            self._credit += self.utd_ratio * received

    def _updates_due(self) -> int:
        if len(self.replay) == 0:
            return 0
        updates = int(self._credit)
        self._credit -= updates
        return updates

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next round depends on, the networks and replay data apart."""
        return {
            "credit": self._credit,
            "collector": self.collector.state_dict(),
            "env": get_env_state(self.collector.env),
            "replay": self.replay.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`, on the same replay files.

        Raises:
            ReplayError: the files are not those of this state, or rows differ from their checksums.
        """
        self._credit = float(state_dict["credit"])
        self.replay.load_state_dict(state_dict["replay"])
        self.replay.require_intact(self._verify)
        set_env_state(self.collector.env, state_dict["env"])
        self.collector.load_state_dict(state_dict["collector"])

    def teardown(self, stage: str) -> None:
        """Stop the workers."""
        self.collector.env.close()


def _require_positive(key: str, value: float, remedy: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    require(number and value > 0, key, value, "a positive number", remedy)
