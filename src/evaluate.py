"""Evaluate a stored policy: `python src/evaluate.py run=RUN_DIR`; `--help` lists the rest."""

from typing import Any

from fetchlab import entry, schema

HELP = """\
Evaluate a stored policy, with the mode of its actions:

  python src/evaluate.py run=RUN_DIR [KEY=VALUE ...]
  python src/evaluate.py policy=DIR [KEY=VALUE ...]      what src/export.py wrote; no run is needed

The result is printed, and written to evaluations/ there: JSON, with a table of the episodes as CSV
beside it. The keys of configs/evaluate.yaml:
  run=RUN_DIR                a run's folder
  episodes=100               how many; each begins with a seed of its own
  seed=K                     the episodes of a training evaluation of a run with seed=K; by default
                             episodes that neither training nor its evaluations use
  checkpoint=PATH            a checkpoint's folder; by default the run's newest valid one
  checkpoint=all             each of them, a curve; checkpoint=[A,B] those
  stochastic=true            act as in training, with exploration
  table=true                 print a row for each episode
  video=true                 write the best, the median and the worst episode to videos/: what a
                             person sees, the goal drawn, and what the agent sees; the frame is
                             green while the episode succeeds, red at the end of one that does not
  out=DIR                    evaluations/ and videos/ go there
  trusted_modules=[my_pkg]   modules of your own that the run's configuration may name
  task=NAME                  another task of configs/task than the run's own
  obs.pixels.camera.KEY=...  another camera; show_goal, quality, supersample in the same way

Examples:
  python src/evaluate.py run=logs/state_reach/RUN episodes=100 video=true
  python src/evaluate.py run=RUN_DIR checkpoint=RUN_DIR/checkpoints/best_000100000
  python src/evaluate.py run=RUN_DIR obs.pixels.camera.azimuth=240 obs.pixels.show_goal=true
"""
SHOWN = 20  # rows of a printed table


def evaluate(plain: dict[str, Any]) -> None:
    """Play the episodes and print what they gave."""
    asked, changes = entry.asked(plain, schema.Evaluate)
    from fetchlab import play

    results = play.evaluate(asked, changes)
    first, last = results[0]["seeds"]
    print(f"episodes with seeds {first} to {last}: {results[0]['seeds_are']}")
    for result in results:
        say(result, asked.table)
    if len(results) > 1:
        print(f"curve: {results[0]['curve']}")


def say(result: dict[str, Any], with_table: bool) -> None:
    """Print what one policy's episodes gave."""
    low, high = result["success_rate_95"]
    print(
        f"{result['experiment']} at {result['env_steps']:,} env steps: success "
        f"{result['success_rate']:.1%} (95 % interval {low:.1%} to {high:.1%}, "
        f"{result['episodes']} episodes), return {result['return']:.1f}, "
        f"goal distance {result['goal_distance_m']:.3f} m"
    )
    if with_table:
        print(f"{'seed':>14} success  first at  return  distance, m")
        for row in result["table"][:SHOWN]:
            print(
                f"{row['seed']:>14} {'yes' if row['success'] else 'no':>7} "
                f"{row['first_success_step'] or '-':>9} {row['return']:>7.1f} "
                f"{row['goal_distance_m']:>12.3f}"
            )
        if len(result["table"]) > SHOWN:
            print(f"... and {len(result['table']) - SHOWN} more in the .csv beside the result")
    for video in result["videos"]:
        print(f"video: {video}")
    if result["videos"]:
        print(f"of these {len(result['videos'])} episodes {result['videos_succeed']} succeed")
    print(f"result: {result['file']}")


def main() -> None:
    """Run the command line."""
    entry.command("evaluate", evaluate, HELP, paths=["run", "checkpoint", "policy", "out"])


if __name__ == "__main__":
    main()
