"""Evaluate a stored policy: `python src/evaluate.py run=RUN_DIR`; `--help` lists the rest."""

import sys
from typing import Any

from fetchlab.entry import (
    answer,
    asks_for_help,
    boolean,
    modules,
    path,
    positive,
    read_arguments,
    whole_number,
)
from fetchlab.errors import ConfigError

HELP = """\
Evaluate a stored policy, with the mode of its actions:

  python src/evaluate.py run=RUN_DIR [KEY=VALUE ...]

  run=RUN_DIR                a run's folder
  episodes=100               how many; each begins with a seed of its own
  seed=K                     the episodes of a training evaluation of a run with seed=K; by default
                             episodes that neither training nor its evaluations use
  checkpoint=PATH            a checkpoint's folder; by default the run's newest valid one
  video=true                 write the first episodes to RUN_DIR/videos/
  trusted_modules=[my_pkg]   modules of your own that the run's configuration may name

Examples:
  python src/evaluate.py run=logs/state_reach/RUN episodes=100 video=true
  python src/evaluate.py run=RUN_DIR checkpoint=RUN_DIR/checkpoints/best_000100000
"""
READERS = {
    "run": path,
    "checkpoint": path,
    "episodes": positive,
    "seed": whole_number,
    "video": boolean,
    "trusted_modules": modules,
}


def evaluate(args: list[str]) -> None:
    """Play the episodes and print what they gave."""
    given = {"episodes": 100, "checkpoint": None, "seed": None, "video": False}
    options: dict[str, Any] = {**given, "trusted_modules": [], **read_arguments(args, READERS)}
    if "run" not in options:
        raise ConfigError("run", "", "a run's folder", "python src/evaluate.py run=RUN_DIR")
    from fetchlab.evaluation import evaluate_run

    result = evaluate_run(options.pop("run"), **options)
    first, last = result["seeds"]
    print(f"episodes with seeds {first} to {last}: {result['seeds_are']}")
    low, high = result["success_rate_95"]
    print(
        f"{result['experiment']} at {result['env_steps']:,} env steps: success "
        f"{result['success_rate']:.1%} (95 % interval {low:.1%} to {high:.1%}, "
        f"{result['episodes']} episodes), return {result['return']:.1f}, "
        f"goal distance {result['goal_distance_m']:.3f} m"
    )
    for video in result["videos"]:
        print(f"video: {video}")


def main() -> None:
    """Run the command line."""
    if asks_for_help(sys.argv[1:]):
        print(HELP, end="")
        return
    answer(lambda: evaluate(sys.argv[1:]))


if __name__ == "__main__":
    main()
