"""When a checkpoint is committed, and what it holds beside weights, optimizers and data module.

A checkpoint is due before the first env step, before and after every evaluation, when something
stops the run, and whenever the replay ring would overwrite a row that one of the two newest
checkpoints needs. The one after an evaluation replaces the one before it, whose name ends in
``_0``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from fetchlab.callbacks import find
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.checkpoint.find import checkpoint_name
from fetchlab.checkpoint.torch_io import write_best
from fetchlab.random_states import global_random_states, restore_global_random_states

_LOG = logging.getLogger(__name__)


class Checkpoints(Checkpoint):
    """Commits through ``trainer.save_checkpoint``, that is through the run's `CheckpointIO`.

    Lightning calls a `Checkpoint` behind all other callbacks, so that what they make of an
    evaluation, the count of a patience for example, is committed with it.

    Attributes:
        record: what a resume compares before it continues (configuration, versions, threads).
        loggers: the run's, by their names in the configuration.
    """

    def __init__(self) -> None:
        self.record: Mapping[str, Any] = {}
        self.loggers: Mapping[str, Logger] = {}
        self._saved_at = -1
        self._best = -1.0
        self._began, self._seconds_before = time.monotonic(), 0.0

    @property
    def wall_time_s(self) -> float:
        """Seconds of training up to now, over all processes that led to this state."""
        return self._seconds_before + time.monotonic() - self._began

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Commit the state before the first step, or an evaluation that was made up for.

        And one without its replay: no later resume may look for rows that are lost.
        """
        if self._saved_at < 0 or trainer.datamodule.replay_lost:
            self._save(trainer)
        self._keep_evaluation(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Commit when the next round would overwrite a protected row."""
        if trainer.datamodule.replay.storage.commit_needed():
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Commit this epoch's evaluation with what other callbacks made of it."""
        self._keep_evaluation(trainer)

    def commit(self, trainer: Any) -> None:
        """Commit the state of the data module, whose round is settled, unless it is already."""
        if trainer.datamodule.env_steps > self._saved_at:
            self._save(trainer)

    def _keep_evaluation(self, trainer: Any) -> None:
        """Commit the weights where they are the best so far, and the state with its evaluation."""
        evaluation, data = find(trainer, Evaluation), trainer.datamodule
        if evaluation.kept:
            return
        success = evaluation.history[-1]["success_rate"]
        if success > self._best:
            self._best = success
            weights = trainer.lightning_module.state_dict()
            best = {"state_dict": weights, "success_rate": success, "env_steps": data.env_steps}
            write_best(_folder(trainer), best, data.env_steps)
        data.replay.storage.replace_commit()
        self._save(trainer)
        evaluation.kept = True

    def _save(self, trainer: Any) -> None:
        """Settle the outstanding round, make the replay durable, then commit."""
        data = trainer.datamodule
        data.settle()
        data.replay.storage.flush()
        self._saved_at = data.env_steps
        name = checkpoint_name("step", data.env_steps)
        owed = find(trainer, Evaluation).due(data)
        trainer.save_checkpoint(_folder(trainer) / (f"{name}_0" if owed else name))
        data.replay.storage.committed()

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the record, the global random states and the loggers' positions."""
        checkpoint["env_steps"] = trainer.datamodule.env_steps
        checkpoint["wall_time_s"] = self.wall_time_s
        checkpoint["record"] = dict(self.record)
        checkpoint["rng"] = global_random_states()
        checkpoint["loggers"] = {name: position(one) for name, one in self.loggers.items()}

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added; only a forced resume has another device."""
        restore_global_random_states(checkpoint["rng"])
        devices = [one["fingerprint"]["device"] for one in (checkpoint["record"], self.record)]
        if len({name.split()[0] for name in devices}) > 1:  # "cpu", or "cuda" and more words
            line = f"generators seeded anew: {devices[0]} -> {devices[1]}, whose states differ"
            _LOG.warning("warning: %s", line)
            self.record["forced"].append(line)
        for name, logger in self.loggers.items():
            # A forced resume may have a logger that the run had not.
            if name in checkpoint["loggers"] and hasattr(logger, "load_state_dict"):
                logger.load_state_dict(checkpoint["loggers"][name])
        self._seconds_before = float(checkpoint["wall_time_s"])

    def state_dict(self) -> dict[str, Any]:
        """Best success so far and the env steps of this checkpoint."""
        return {"best": self._best, "saved_at": self._saved_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._best, self._saved_at = float(state_dict["best"]), int(state_dict["saved_at"])


def position(logger: Any) -> dict[str, Any]:
    """Where a logger of a resumed run goes on: its state where it has one, else the run's id."""
    return logger.state_dict() if hasattr(logger, "state_dict") else {"version": logger.version}


def _folder(trainer: Any) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"
