"""Train: `python src/train.py experiment=NAME`; continue: `python src/train.py resume=RUN_DIR`."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from fetchlab import config, entry, schema
from fetchlab.overrides import refuse_lone_sweep

#: Exit codes of a run that a signal stopped and that can be continued; 1 for other reasons.
STOPPED = {one.name: 128 + one for one in signal.Signals}
HELP = """\
Train:     python src/train.py experiment=NAME [KEY=VALUE ...]
Continue:  python src/train.py resume=RUN_DIR [total_env_steps=M] [KEY=VALUE ...]
Sweep:     python src/train.py -m sweep=NAME, or -m experiment=NAME seed=0,1,2

experiment is one of
  {experiments}
sweep is one of
  {sweeps}

Every key of configs/ can be given; `--cfg job` prints them all, resolved. Some examples:
  python src/train.py experiment=state_reach
  python src/train.py experiment=state_push debug=default          # any experiment in under 30 s
  python src/train.py experiment=pixel_push pooling=flatten_linear seed=3 run_dir=logs/mine
  python src/train.py experiment=NAME ckpt_path=CHECKPOINT         # from another run's weights

A run is continued with its own configuration. Beside resume these can be given:
  {resume}
  python src/train.py resume=RUN_DIR total_env_steps=4_000_000
  python src/train.py resume=RUN_DIR trainer=cpu force_resume=true # not bit-exact, and recorded

Evaluate:  python src/evaluate.py --help        Hydra's own flags:  --hydra-help
"""


def train(plain: dict[str, Any]) -> None:
    """Run one composed configuration, alone or in a sweep."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN and isinstance(plain["run_dir"], str):
        plain["run_dir"] = plain["run_dir"] and str(Path(plain["run_dir"]) / f"{job.job.num}")
    from fetchlab.run import start

    exit_as(start(plain))


def continue_run(plain: dict[str, Any]) -> None:
    """Continue a run from its own configuration, which is never composed."""
    asked, changes = entry.asked(plain, schema.Resume)
    from fetchlab.run import resume

    changes["trusted_modules"] = asked.trusted_modules
    exit_as(resume(asked.resume, changes, asked.force_resume))


def exit_as(summary: dict[str, Any]) -> None:
    """Leave with the exit code of a run that was stopped; go on after one that is finished.

    A callback that the configuration named to stop a run has ended it as it should.
    """
    if summary["status"] == "stopped" and not str(summary["stop_reason"]).startswith("callback "):
        sys.exit(STOPPED.get(summary["stop_reason"], 1))


def help_page() -> str:
    """What ``--help`` prints."""
    listed = {f"{group}s": config.names(group) for group in ("experiment", "sweep")}
    listed["resume"] = entry.keys("resume")[1:]
    return HELP.format(**{key: "\n  ".join(names) for key, names in listed.items()})


def main() -> None:
    """Run the command line."""
    # Before torch is imported. Threads that spin while they wait for each other take the cores that
    # they wait for: beside one busy process per core two of them had 0.16 to 0.42 of the speed of
    # one, and 1.07 to 1.25 when they sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    args = sys.argv[1:]
    if entry.asks_for_help(args):
        print(help_page(), end="")
    elif any(arg.partition("=")[0] == "resume" for arg in args):
        entry.launch("resume", continue_run, paths=["resume"])
    else:
        entry.answer(lambda: refuse_lone_sweep(args))
        entry.launch("train", train)


if __name__ == "__main__":
    main()
