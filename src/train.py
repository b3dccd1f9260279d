"""Train: `python src/train.py experiment=NAME`; continue: `python src/train.py resume=RUN_DIR`."""

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fetchlab import config, entry, schema
from fetchlab.overrides import are_several, refuse_lone_sweep

#: Of the run's folder, whatever it holds; another value is the folder of a run to continue.
AUTO = "resume=auto"
#: Exit codes of a run that a signal stopped and that can be continued; 1 for other reasons.
STOPPED = {one.name: 128 + one for one in signal.Signals}
HELP = """\
Train:     python src/train.py experiment=NAME [KEY=VALUE ...]
           without experiment= the one that suits this machine
Continue:  python src/train.py resume=RUN_DIR [total_env_steps=M] [KEY=VALUE ...]
Either:    python src/train.py experiment=NAME run_dir=DIR resume=auto [KEY=VALUE ...]
           starts, continues, or returns where it is finished: the same command each time
Sweep:     python src/train.py -m sweep=NAME, or -m experiment=NAME seed=0,1,2
           the same command again skips what is finished and continues the rest;
           launcher=slurm or ray puts the runs on a cluster
Search:    python src/train.py -m sweep=search/NAME

experiment is one of
  {experiments}
sweep is one of
  {sweeps}

Every key of configs/ can be given; `--cfg job --resolve` prints them all. Some examples:
  python src/train.py experiment=state_reach
  python src/train.py experiment=state_push debug=default          # any experiment in under 30 s
  python src/train.py experiment=pixel_push_laptop obs.pixels.image_size=64 seed=3 run_dir=logs/mine
  python src/train.py experiment=NAME ckpt_path=CHECKPOINT         # from another run's weights

A run is continued with its own configuration. Beside resume these can be given:
  {resume}
  python src/train.py resume=RUN_DIR total_env_steps=4_000_000
  python src/train.py resume=RUN_DIR trainer=cpu force_resume=true # not bit-exact, and recorded

Evaluate:  python src/evaluate.py --help        Hydra's own flags:  --hydra-help
"""


def train(plain: dict[str, Any]) -> None:
    """Run one composed configuration."""
    command, cfg = config.split(plain)
    from fetchlab.requeue import requeue
    from fetchlab.run import start, start_or_resume

    if command.resume is None:
        exit_as(start(cfg, command.paths.scratch))
    else:
        exit_as(start_or_resume(cfg, command.force_resume, command.paths.scratch), requeue)


def sweep() -> None:
    """Train several configurations: plan all of them, then have the launcher run the list."""
    runs: list[Any] = []

    def add(plain: dict[str, Any]) -> None:
        from fetchlab.sweep import planned

        runs.append(planned(plain))

    entry.launch("train", add)
    if runs:
        from fetchlab.search import run_search
        from fetchlab.sweep import run_sweep

        run_list = run_sweep if runs[0].asked.search is None else run_search
        sys.exit(entry.answer(lambda: run_list(runs)))


def continue_run(plain: dict[str, Any]) -> None:
    """Continue a run from its own configuration, which is never composed."""
    asked, changes = entry.asked(plain, schema.Resume)
    from fetchlab.run import resume

    changes["trusted_modules"] = asked.trusted_modules
    if isinstance(trainer := changes.get("trainer"), dict):  # another device, and nothing else
        del changes["trainer"]
        changes["trainer.accelerator"] = trainer["accelerator"]
    exit_as(resume(asked.resume, changes, asked.force_resume))


def exit_as(summary: dict[str, Any], stopped: Callable[[str], None] | None = None) -> None:
    """Leave with the exit code of a run that was stopped; go on after one that is finished.

    A callback that the configuration named to stop a run has ended it as it should. Before that,
    ``stopped`` is told the reason.
    """
    if summary["status"] == "stopped" and not str(summary["stop_reason"]).startswith("callback "):
        if stopped is not None:
            stopped(str(summary["stop_reason"]))
        sys.exit(STOPPED.get(summary["stop_reason"], 1))


def help_page() -> str:
    """What ``--help`` prints."""
    listed = {f"{group}s": config.described(group) for group in ("experiment", "sweep")}
    listed["resume"] = entry.keys("resume")[1:]
    return HELP.format(**{key: "\n  ".join(names) for key, names in listed.items()})


def suitable(args: Sequence[str]) -> tuple[str, str]:
    """The experiment of a command line that names none, and why: what this machine can train."""
    import torch

    if torch.cuda.is_available() and "trainer=cpu" not in args:
        name = torch.cuda.get_device_name()
        return "pixel_push_strict_gpu", f"learned from images in minutes, on {name}"
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
    elif "resume" in named and AUTO not in args:
        entry.launch("resume", continue_run, paths=["resume"])
    else:
        entry.answer(lambda: refuse_lone_sweep(args))
        if are_several(args):
            sweep()
        elif "experiment" in named:
            entry.launch("train", train)
        else:
            choose_and_train(args)


if __name__ == "__main__":
    main()
