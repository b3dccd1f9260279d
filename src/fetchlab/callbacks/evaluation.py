"""Deterministic evaluation every so many env steps, on seeds of its own.

An evaluation is played from a state that is committed (`fetchlab.callbacks.checkpoints`), and
changes nothing of it. One that was killed, or abandoned for a stop, is therefore made up for by the
process that resumes, before its first step, with the same outcome.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
import torch
from torchrl.envs import TransformedEnv

from fetchlab.callbacks import find
from fetchlab.callbacks.log_points import LogPoints
from fetchlab.callbacks.stopping import Stopping
from fetchlab.collect.rollout import Episodes, StoppedError, episode_seeds, rollout
from fetchlab.durable import write_json
from fetchlab.fields import Hint, Min
from fetchlab.statistics import wilson_interval

FILE_NAME = "evaluation.json"


class Evaluation(pl.Callback):
    """Plays ``episodes`` episodes with the policy's mode and hands the result to the logs.

    To Lightning it is the validation: callbacks that monitor a metric look at it when
    `on_validation_end` says that there is a new one. Environments and seeds are the data module's.

    Args:
        every_env_steps: distance between two evaluations; the run's end is always one.
        episodes: per evaluation.

    Attributes:
        history: all evaluations, see `describe`; ``evaluation.json`` lists them.
        kept: whether the newest one is part of a checkpoint.
    """

    metric_names = ("eval/success_rate", "eval/return", "eval/goal_distance_m")

    def __init__(
        self,
        every_env_steps: Annotated[int, Min(1)],
        episodes: Annotated[int, Min(1), Hint("20 is quick, 100 is precise", "a positive number")],
    ) -> None:
        self._every, self._episodes = every_env_steps, episodes
        self._env: TransformedEnv | None = None
        self.history: list[dict[str, Any]] = []
        self.kept = True

    @property
    def best(self) -> float:
        """Highest success rate so far; -1 before the first evaluation."""
        return max((entry["success_rate"] for entry in self.history), default=-1.0)

    def due(self, data: Any) -> bool:
        """Whether the evaluation of this state is missing; where a signal cut an epoch short: no.

        ``data`` is the data module, with no step outstanding.
        """
        last = self.history[-1]["env_steps"] if self.history else 0
        ended = data.env_steps >= data.total_env_steps and data.env_steps > last
        return ended or data.env_steps // self._every > last // self._every

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Know where the list is written."""
        self._path = Path(trainer.default_root_dir) / FILE_NAME

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make up for the evaluation that an earlier process owes this state."""
        # A name that a callback monitors has to exist where a signal ends the first epoch.
        known = self._metrics() if self.history else dict.fromkeys(self.metric_names, math.nan)
        trainer.callback_metrics.update({name: torch.tensor(known[name]) for name in known})
        self._evaluate_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Commit this state, before other callbacks make something of its epoch; then evaluate."""
        trainer.datamodule.settle()
        trainer.checkpoint_callbacks[-1].commit(trainer)  # the run's own is the last one
        self._evaluate_if_due(trainer, pl_module)

    def _evaluate_if_due(self, trainer: Any, pl_module: Any) -> None:
        if self.due(trainer.datamodule):
            try:
                self._evaluate(trainer, pl_module)
            except StoppedError:
                trainer.should_stop = True  # before another round, whose state owed nothing

    def _evaluate(self, trainer: Any, pl_module: Any) -> None:
        data, flag = trainer.datamodule, find(trainer, Stopping).flag
        if flag.stop:
            raise StoppedError
        if self._env is None:
            self._env = data.make_evaluation_env()
        seeds = episode_seeds(data.seed, self._episodes)
        pl_module.eval()
        try:
            played = rollout(self._env, pl_module.act, seeds, stop=lambda: flag.stop)
        finally:
            pl_module.train()
        self.history.append(describe(played, data.env_steps))
        self.kept = False
        find(trainer, LogPoints).write(trainer, self._metrics())
        for callback in trainer.callbacks:
            callback.on_validation_end(trainer, pl_module)
        write_json(self._path, self.history)  # with what they added

    def _metrics(self) -> dict[str, float]:
        newest = self.history[-1]
        return {name: newest[name.removeprefix("eval/")] for name in self.metric_names}

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Stop the evaluation workers."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def state_dict(self) -> dict[str, Any]:
        """All evaluations so far."""
        return {"history": [dict(entry) for entry in self.history]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`; evaluations after that checkpoint leave the file too."""
        self.history = [dict(entry) for entry in state_dict["history"]]
        write_json(self._path, self.history)


def describe(played: Episodes, env_steps: int) -> dict[str, Any]:
    """An evaluation as plain data, with the 95 % Wilson interval of its success rate."""
    successes, episodes = int(played.success.sum()), len(played.success)
    low, high = wilson_interval(successes, episodes)
    return {
        "env_steps": env_steps,
        "episodes": episodes,
        "success_rate": successes / episodes,
        "success_rate_95": [low, high],
        "return": float(played.returns.double().mean()),
        "goal_distance_m": float(played.goal_distance_m.double().mean()),
    }
