"""Run folders with the files that a run writes, and curves chosen by the test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fetchlab.run_report import write_config
from fetchlab.statistics import wilson_interval

EVERY, EPISODES, RATE = 10_000, 100, 50.0  # env steps, episodes, env steps/s
METRICS = ("train/critic_loss", "train/actor_loss", "eval/success_rate", "time/env_steps_per_s")


def store(run_dir: Path, cfg: dict, success: list[float], status: str | None = "finished") -> Path:
    """A run with an evaluation every 10,000 env steps, and a row of metrics every 5,000.

    ``status`` None leaves the summary out: the run is still running.
    """
    run_dir.mkdir(parents=True)
    write_config(run_dir, {**cfg, "total_env_steps": EVERY * len(success)})
    history = [
        {
            "env_steps": EVERY * (index + 1),
            "episodes": EPISODES,
            "success_rate": rate,
            "success_rate_95": list(wilson_interval(round(rate * EPISODES), EPISODES)),
            "return": -50 + 40 * rate,
            "goal_distance_m": 0.2 - 0.15 * rate,
        }
        for index, rate in enumerate(success)
    ]
    (run_dir / "evaluation.json").write_text(json.dumps(history))
    lines = [",".join(["env_steps", *METRICS])]
    for step in range(EVERY // 2, EVERY * len(success) + 1, EVERY // 2):
        rate = success[step // EVERY - 1] if step % EVERY == 0 else ""
        loss = 0.05 + (0.3 * rate if rate != "" else 0.1)
        lines.append(",".join(map(str, [step, loss, -loss, rate, RATE])))
    (run_dir / "metrics.csv").write_text("\n".join(lines) + "\n")
    if status is not None:
        steps = EVERY * len(success)
        told = {
            "experiment": cfg["experiment"],
            "seed": cfg["seed"],
            "env_steps": steps,
            "success_rate": success[-1] if success else None,
            "best_success_rate": max(success, default=None),
            "wall_time_s": steps / RATE,
            "env_steps_per_s": RATE,
            "device": "cpu",
            "status": status,
            "stop_reason": "SIGTERM" if status == "stopped" else None,
        }
        (run_dir / "summary.json").write_text(json.dumps(told))
    return run_dir


def climb(start: int, end: float, length: int = 16) -> list[float]:
    """Chance (6 %) until evaluation ``start``, then up to ``end`` within four."""
    rise = np.clip((np.arange(length) - start) / 4, 0, 1)
    return [round(float(0.06 + (end - 0.06) * one), 2) for one in rise]
