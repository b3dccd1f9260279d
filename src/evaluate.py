"""Evaluate: `python src/evaluate.py run=RUN_DIR [episodes=100] [video=true] [checkpoint=PATH]`."""

import sys
from pathlib import Path

from fetchlab.types import ConfigError, RunFailedError

DEFAULTS = {"run": "", "episodes": "100", "video": "false", "checkpoint": "", "seed": ""}


def main() -> int:
    """Run the command line; what a user can mend is one line on stderr and exit code 2."""
    try:
        given = dict(arg.partition("=")[::2] for arg in sys.argv[1:])
        for key, value in given.items():
            if key not in DEFAULTS:
                raise ConfigError(
                    key, value, f"one of {', '.join(DEFAULTS)}", "see src/evaluate.py"
                )
        options = {**DEFAULTS, **given}
        if not options["run"]:
            raise ConfigError("run", "", "a run's folder", "python src/evaluate.py run=RUN_DIR")
        if not options["episodes"].isdigit() or options["episodes"] == "0":
            raise ConfigError("episodes", options["episodes"], "a positive whole number", "try 100")
        from fetchlab.evaluation import evaluate_run

        checkpoint = Path(options["checkpoint"]) if options["checkpoint"] else None
        result = evaluate_run(
            Path(options["run"]), int(options["episodes"]), options["video"] == "true", checkpoint
        )
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RunFailedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    low, high = result["success_rate_95"]
    print(
        f"{result['experiment']} at {result['env_steps']:,} env steps: success "
        f"{result['success_rate']:.1%} (95 % interval {low:.1%} to {high:.1%}, "
        f"{result['episodes']} episodes), return {result['return']:.1f}, "
        f"goal distance {result['goal_distance_m']:.3f} m"
    )
    for path in result["videos"]:
        print(f"video: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
