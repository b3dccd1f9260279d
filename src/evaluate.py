"""Evaluate a stored policy: `python src/evaluate.py run=RUN_DIR`; `--help` lists the rest."""

import sys
from typing import Any

from fetchlab import entry, schema

HELP = """\
Evaluate a stored policy, with the mode of its actions:

  python src/evaluate.py run=RUN_DIR [KEY=VALUE ...]

The result is printed, and written to RUN_DIR/evaluations/. The keys of configs/evaluate.yaml:
  run=RUN_DIR                a run's folder
  episodes=100               how many; each begins with a seed of its own
  seed=K                     the episodes of a training evaluation of a run with seed=K; by default
                             episodes that neither training nor its evaluations use
  checkpoint=PATH            a checkpoint's folder; by default the run's newest valid one
  video=true                 write the first episodes to RUN_DIR/videos/
  trusted_modules=[my_pkg]   modules of your own that the run's configuration may name
  task=NAME                  another task of configs/task than the run's own
  obs.pixels.camera.KEY=...  another camera; show_goal, quality, supersample in the same way

Examples:
  python src/evaluate.py run=logs/state_reach/RUN episodes=100 video=true
  python src/evaluate.py run=RUN_DIR checkpoint=RUN_DIR/checkpoints/best_000100000
  python src/evaluate.py run=RUN_DIR obs.pixels.camera.azimuth=240 obs.pixels.show_goal=true
"""


def evaluate(plain: dict[str, Any]) -> None:
    """Play the episodes and print what they gave."""
    asked, changes = entry.asked(plain, schema.Evaluate)
    from fetchlab.play import evaluate_run

    result = evaluate_run(
        asked.run,
        asked.episodes,
        asked.video,
        asked.checkpoint,
        asked.seed,
        asked.trusted_modules,
        changes,
    )
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
    if result["videos"]:
        print(f"of these {len(result['videos'])} episodes {result['videos_succeed']} succeed")
    print(f"result: {result['file']}")


def main() -> None:
    """Run the command line."""
    entry.sleep_while_waiting()
    if entry.asks_for_help(sys.argv[1:]):
        print(HELP, end="")
    else:
        entry.launch("evaluate", evaluate, paths=["run", "checkpoint"])


if __name__ == "__main__":
    main()
