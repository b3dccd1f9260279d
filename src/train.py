"""Train: `python src/train.py experiment=NAME`; continue: `python src/train.py resume=RUN_DIR`."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from fetchlab import config, entry, schema
from fetchlab.overrides import are_several, refuse_lone_sweep

#: Exit codes of a run that a signal stopped and that can be continued; 1 for other reasons.
STOPPED = {one.name: 128 + one for one in signal.Signals}
HELP = """\
Train:     python src/train.py experiment=NAME [KEY=VALUE ...]
           without experiment= the one that suits this machine
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


def suitable(args: Sequence[str]) -> tuple[str, str]:
    """The experiment of a command line that names none, and why: what this machine can train."""
    import torch

    if torch.cuda.is_available() and "trainer=cpu" not in args:
        return "pixel_push_nodrq", f"the study's main job, for {torch.cuda.get_device_name()}"
    return "pixel_push_laptop", "learned from images on two cores, since no CUDA GPU trains here"


def choose_and_train(args: Sequence[str]) -> None:
    """Train the experiment that suits this machine, and say which and why."""
    experiment, why = suitable(args)
    overrides = [index for index, arg in enumerate(args) if "=" in arg and arg[0] != "-"]
    # Beside the others: Hydra reads one stretch of the command line.
    sys.argv.insert(1 + min(overrides, default=len(args)), f"experiment={experiment}")

    def job(plain: dict[str, Any]) -> None:
        print(f"chosen    {experiment}: {why} (experiment=NAME trains another)", flush=True)
        train(plain)

    entry.launch("train", job)


def main() -> None:
    """Run the command line."""
    entry.sleep_while_waiting()
    args = sys.argv[1:]
    named = {arg.partition("=")[0] for arg in args}
    if entry.asks_for_help(args):
        print(help_page(), end="")
    elif "resume" in named:
        entry.launch("resume", continue_run, paths=["resume"])
    else:
        entry.answer(lambda: refuse_lone_sweep(args))
        if "experiment" in named or are_several(args):
            entry.launch("train", train)
        else:
            choose_and_train(args)


if __name__ == "__main__":
    main()
