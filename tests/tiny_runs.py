"""Overrides that make a run as short as it can be and still go through everything; one played."""

from __future__ import annotations

from fetchlab.play import evaluate, request

_SMALL = (
    *("debug=default", "algo.utd_ratio=0.25"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=20"),
)
#: Fills the replay with finished episodes and beyond, updates, evaluates halfway and at its end.
TWO_EVALUATIONS = (
    *_SMALL,
    *("task.max_episode_steps=10", "total_env_steps=56", "algo.batch_size=2"),
    *("replay.capacity=50", "replay.margin_env_steps=50", "callbacks.log_every_env_steps=20"),
    *("callbacks.evaluation.every_env_steps=28", "callbacks.evaluation.episodes=2"),
    "callbacks.evaluation.n_envs=1",
)
#: Shorter episodes, one evaluation: for tests of many runs.
ONE_EVALUATION = (
    *_SMALL,
    *("task.max_episode_steps=5", "total_env_steps=36", "algo.batch_size=3"),
    *("replay.capacity=30", "replay.margin_env_steps=30"),
    *("callbacks.evaluation.every_env_steps=36", "callbacks.evaluation.episodes=2"),
)


def play_run(run_dir, episodes, changes=None, **asked):
    """What `evaluate.py run=RUN_DIR` finds with the one policy that it plays."""
    return evaluate(request(run=str(run_dir), episodes=episodes, **asked), changes or {})[0]
