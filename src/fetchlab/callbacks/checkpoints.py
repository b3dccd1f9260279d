"""When a checkpoint is committed, and what it holds beside weights, optimizers and data module.

A checkpoint is due before the first env step, before and after every evaluation, when a signal
stops the run, and whenever the replay ring would overwrite a row that one of the two newest
checkpoints needs. The one after an evaluation replaces the one before it, whose name ends in
``_0``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from fetchlab.checkpoint.find import checkpoint_name
from fetchlab.checkpoint.torch_io import write_best
from fetchlab.random_states import global_random_states, restore_global_random_states

_LOG = logging.getLogger(__name__)


class Checkpoints(pl.Callback):
    """Commits through ``trainer.save_checkpoint``, that is through the run's `CheckpointIO`.

    Args:
        folder: ``checkpoints/`` of the run.
        unevaluated: ``(data module)``, whether the evaluation of its state is still missing.
        record: what a resume compares before it continues (configuration, versions, threads).
    """

    def __init__(
        self, folder: Path, unevaluated: Callable[[Any], bool], record: Mapping[str, Any]
    ) -> None:
        self._folder, self._unevaluated, self._record = folder, unevaluated, record
        self._saved_at = -1
        self._best = -1.0
        self._logger_states: list[Any] = []
        self._began, self._seconds_before = time.monotonic(), 0.0

    @property
    def wall_time_s(self) -> float:
        """Seconds of training up to now, over all processes that led to this state."""
        return self._seconds_before + time.monotonic() - self._began

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Give the loggers their positions back, or commit the state before the first step."""
        if self._logger_states:
            for logger, state in zip(trainer.loggers, self._logger_states, strict=True):
                logger.load_state_dict(state)
        else:
            self.save(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Commit when the next round would overwrite a protected row."""
        if trainer.datamodule.replay.commit_needed():
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Commit before every evaluation and wherever the run stops."""
        data = trainer.datamodule
        data.settle()
        if data.env_steps > self._saved_at:
            self.save(trainer)

    def evaluated(self, trainer: Any, success: float) -> None:
        """Commit the weights where they are the best so far, and the state with its evaluation."""
        env_steps = trainer.datamodule.env_steps
        if success > self._best:
            self._best = success
            weights = trainer.lightning_module.state_dict()
            best = {"state_dict": weights, "success_rate": success, "env_steps": env_steps}
            write_best(self._folder, best, env_steps)
        trainer.datamodule.replay.replace_commit()
        self.save(trainer)

    def save(self, trainer: Any) -> None:
        """Settle the outstanding round, make the replay durable, then commit."""
        data = trainer.datamodule
        data.settle()
        data.replay.flush()
        self._saved_at = data.env_steps
        name = checkpoint_name("step", data.env_steps)
        trainer.save_checkpoint(self._folder / (f"{name}_0" if self._unevaluated(data) else name))
        data.replay.committed()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the record, the global random states and the loggers' positions."""
        checkpoint["env_steps"] = trainer.datamodule.env_steps
        checkpoint["wall_time_s"] = self.wall_time_s
        checkpoint["record"] = dict(self._record)
        checkpoint["rng"] = global_random_states()
        checkpoint["loggers"] = [logger.state_dict() for logger in trainer.loggers]

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added; only a forced resume has another device."""
        restore_global_random_states(checkpoint["rng"])
        devices = [one["fingerprint"]["device"] for one in (checkpoint["record"], self._record)]
        if len({name.split()[0] for name in devices}) > 1:  # "cpu", or "cuda" and more words
            line = f"generators seeded anew: {devices[0]} -> {devices[1]}, whose states differ"
            _LOG.warning("warning: %s", line)
            self._record["forced"].append(line)
        self._logger_states = list(checkpoint["loggers"])
        self._seconds_before = float(checkpoint["wall_time_s"])

    def state_dict(self) -> dict[str, Any]:
        """Best success so far and the env steps of this checkpoint."""
        return {"best": self._best, "saved_at": self._saved_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._best, self._saved_at = float(state_dict["best"]), int(state_dict["saved_at"])
