"""Train: `python src/train.py experiment=NAME`; continue: `python src/train.py resume=RUN_DIR`."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fetchlab import config, entry
from fetchlab.overrides import one_line, refuse_lone_sweep

COMPOSED: list[Any] = []
FAILED: list[int] = []  # exit codes of a sweep's runs
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


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def train_new(cfg: DictConfig) -> None:
    """Compose one configuration (or each of a sweep) and run it."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    COMPOSED.append(plain)
    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        run_new(plain)
        return
    if isinstance(plain["run_dir"], str) and plain["run_dir"].strip():
        plain["run_dir"] = str(Path(plain["run_dir"]) / f"{job.job.num}")
    try:
        run_new(plain)
    except SystemExit as end:
        if end.code not in (1, 2):
            raise  # a signal stops the sweep, a failed run does not
        FAILED.append(end.code)


def run_new(plain: dict[str, Any]) -> None:
    """Run one composed configuration."""

    def job() -> dict[str, Any]:
        from fetchlab.run import start

        return start(plain)

    exit_as(entry.answer(job))


def continue_run(args: list[str]) -> dict[str, Any]:
    """Continue a run from its own configuration, which is never composed."""
    changes = entry.read_arguments(args, resume_readers())
    run_dir, force = changes.pop("resume"), changes.pop("force_resume", False)
    trainer = changes.pop("trainer", None)
    from fetchlab.run import resume

    return resume(run_dir, changes, trainer, force)


def resume_readers() -> dict[str, entry.Reader]:
    """What can be given beside ``resume``."""
    evaluation = config.shipped("callbacks", "default")["evaluation"]
    return {
        "resume": entry.path,
        **{f"callbacks.evaluation.{key}": entry.count_or_null for key in evaluation},
        "callbacks.progress_refresh_s": entry.number,
        "trusted_modules": entry.modules,
        "total_env_steps": entry.positive,
        "trainer": entry.words,
        "force_resume": entry.boolean,
    }


def exit_as(summary: dict[str, Any]) -> None:
    """Leave with the exit code of a run that was stopped; go on after one that is finished."""
    if summary["status"] == "stopped":
        sys.exit(STOPPED.get(summary["stop_reason"], 1))


def help_page() -> str:
    """What ``--help`` prints."""
    listed = {f"{group}s": config.names(group) for group in ("experiment", "sweep")}
    listed["resume"] = [*resume_readers()][1:]
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
        return
    if any(arg.partition("=")[0] == "resume" for arg in args):
        exit_as(entry.answer(lambda: continue_run(args)))
        return
    entry.answer(lambda: refuse_lone_sweep(args))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let composition errors through, to print one line
    try:
        entry.answer(train_new)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
        if COMPOSED:
            raise  # a defect of the run keeps its traceback
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    if FAILED:
        print(f"error: {len(FAILED)} of {len(COMPOSED)} runs failed", file=sys.stderr)
        sys.exit(max(FAILED))


if __name__ == "__main__":
    main()
