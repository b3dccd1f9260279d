"""Deterministic evaluation every so many env steps, on seeds of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torchrl.envs import TransformedEnv

from fetchlab.collect.rollout import Episodes, episode_seeds, rollout
from fetchlab.collect.statistics import wilson_interval
from fetchlab.types import require


class Evaluation(pl.Callback):
    """Plays ``episodes`` episodes with the policy's mode and hands the result to the logs.

    Args:
        make_env: builds the evaluation environments; called at the first evaluation, kept after.
        every_env_steps: distance between two evaluations; the run's end is always one.
        episodes: per evaluation.
        seed: of the run; training and evaluation seeds never meet.
        path: ``evaluation.json``, the list of all evaluations.
        record: ``(trainer, metrics)`` writes the row of a logging point.
    """

    def __init__(
        self,
        make_env: Callable[[], TransformedEnv],
        every_env_steps: int,
        episodes: int,
        seed: int,
        path: Path,
        record: Callable[[Any, Mapping[str, float]], None],
    ) -> None:
        require(
            episodes > 0,
            "callbacks.evaluation.episodes",
            episodes,
            "a positive number",
            "20 is quick, 100 is precise",
        )
        self._make_env, self._every = make_env, every_env_steps
        self._seeds, self._path, self._record = episode_seeds(seed, episodes), path, record
        self._env: TransformedEnv | None = None
        self.history: list[dict[str, Any]] = []

    @property
    def best(self) -> float:
        """Highest success rate so far; -1 before the first evaluation."""
        return max((entry["success_rate"] for entry in self.history), default=-1.0)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Evaluate when due; an epoch that a signal cut short is not."""
        data = trainer.datamodule
        last = self.history[-1]["env_steps"] if self.history else 0
        data.settle()
        steps = data.env_steps
        ended = steps >= data.total_env_steps and steps > last
        if steps // self._every > last // self._every or ended:
            self._evaluate(trainer, pl_module, steps)

    def _evaluate(self, trainer: Any, pl_module: Any, steps: int) -> None:
        if self._env is None:
            self._env = self._make_env()
        pl_module.eval()
        played = rollout(self._env, pl_module.act, self._seeds)
        pl_module.train()
        self.history.append(describe(played, steps))
        write_json(self._path, self.history)
        entry = self.history[-1]
        metrics = ("success_rate", "return", "goal_distance_m")
        self._record(trainer, {f"eval/{name}": entry[name] for name in metrics})

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


def write_json(path: Path, value: object) -> None:
    """Replace a small JSON file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=2) + "\n")
    temporary.replace(path)
