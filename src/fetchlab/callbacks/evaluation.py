"""Deterministic evaluation every so many env steps, on seeds of its own.

An evaluation is played from a state that is committed (`fetchlab.callbacks.checkpoints`), and
changes nothing of it. One that was killed, or abandoned for a stop, is therefore made up for by the
process that resumes, before its first step, with the same outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torchrl.envs import TransformedEnv

from fetchlab.collect.rollout import Episodes, StoppedError, episode_seeds, rollout
from fetchlab.durable import write_json
from fetchlab.errors import require
from fetchlab.statistics import wilson_interval


class Evaluation(pl.Callback):
    """Plays ``episodes`` episodes with the policy's mode and hands the result to the logs.

    Args:
        make_env: builds the evaluation environments; called at the first evaluation, kept after.
        every_env_steps: distance between two evaluations; the run's end is always one.
        episodes: per evaluation.
        seed: of the run; training and evaluation seeds never meet.
        path: ``evaluation.json``, the list of all evaluations.
        stop: whether somebody asked the run to stop; looked at before every step.
        record: ``(trainer, metrics)`` writes the row of a logging point.
        commit: ``(trainer, success rate)`` keeps the state with this evaluation in it.
    """

    def __init__(
        self,
        make_env: Callable[[], TransformedEnv],
        every_env_steps: int,
        episodes: int,
        seed: int,
        path: Path,
        stop: Callable[[], bool],
        record: Callable[[Any, Mapping[str, float]], None],
        commit: Callable[[Any, float], None],
    ) -> None:
        require(
            episodes > 0,
            "callbacks.evaluation.episodes",
            episodes,
            "a positive number",
            "20 is quick, 100 is precise",
        )
        self._make_env, self._every = make_env, every_env_steps
        self._seeds, self._path = episode_seeds(seed, episodes), path
        self._stop, self._record, self._commit = stop, record, commit
        self._env: TransformedEnv | None = None
        self.history: list[dict[str, Any]] = []

    @property
    def best(self) -> float:
        """Highest success rate so far; -1 before the first evaluation."""
        return max((entry["success_rate"] for entry in self.history), default=-1.0)

    def due(self, data: Any) -> bool:
        """Whether the evaluation of this state is missing; where a signal cut an epoch short: no.

        Args:
            data: the data module, with no step outstanding.
        """
        last = self.history[-1]["env_steps"] if self.history else 0
        ended = data.env_steps >= data.total_env_steps and data.env_steps > last
        return ended or data.env_steps // self._every > last // self._every

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make up for the evaluation that an earlier process owes this state."""
        self._evaluate_if_due(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluate when due."""
        trainer.datamodule.settle()
        self._evaluate_if_due(trainer, pl_module)

    def _evaluate_if_due(self, trainer: Any, pl_module: Any) -> None:
        if self.due(trainer.datamodule):
            try:
                self._evaluate(trainer, pl_module)
            except StoppedError:
                trainer.should_stop = True  # before another round, whose state owed nothing

    def _evaluate(self, trainer: Any, pl_module: Any) -> None:
        if self._stop():
            raise StoppedError
        if self._env is None:
            self._env = self._make_env()
        pl_module.eval()
        try:
            played = rollout(self._env, pl_module.act, self._seeds, stop=self._stop)
        finally:
            pl_module.train()
        self.history.append(describe(played, trainer.datamodule.env_steps))
        write_json(self._path, self.history)
        entry = self.history[-1]
        metrics = ("success_rate", "return", "goal_distance_m")
        self._record(trainer, {f"eval/{name}": entry[name] for name in metrics})
        self._commit(trainer, entry["success_rate"])

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
