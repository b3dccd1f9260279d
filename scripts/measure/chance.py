"""How often uniform random actions succeed: the chance level that `fetchlab.report.phases` holds.

    python scripts/measure/chance.py [--episodes 500] [--seed 0] TASK ...

TASK is a file of configs/task. Played as an evaluation is, in the real simulator, each episode from
a seed of its own; success is that of the last step.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

import torch  # noqa: E402

from fetchlab import build, config  # noqa: E402
from fetchlab.collect.rollout import Episodes, episode_seeds, rollout  # noqa: E402
from fetchlab.statistics import wilson_interval  # noqa: E402


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("tasks", nargs="+", choices=config.names("task"), metavar="TASK")
    asked = parser.parse_args()
    for task in asked.tasks:
        played, env_id = play(task, asked.episodes, asked.seed)
        successes, episodes = int(played.success.sum()), len(played.success)
        low, high = wilson_interval(successes, episodes)
        print(f"{env_id}: {successes} of {episodes} ({low:.2%} to {high:.2%})", flush=True)


def play(task: str, episodes: int, seed: int) -> tuple[Episodes, str]:
    """Episodes of uniform actions, and the environment's name."""
    run = config.typed(config.compose("state_push", f"task={task}", "trainer=cpu"))
    generator = torch.Generator().manual_seed(seed)
    with closing(build.build_env(run, run.collect.n_envs, workers=1)) as env:
        shape = env.action_spec.shape

        def act(obs: object) -> torch.Tensor:
            return 2 * torch.rand(shape, generator=generator) - 1

        return rollout(env, act, episode_seeds(seed, episodes)), run.task.env_id


if __name__ == "__main__":
    main()
