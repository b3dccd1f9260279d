"""Train: `python src/train.py experiment=NAME`; continue: `python src/train.py resume=RUN_DIR`."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fetchlab.types import ConfigError, RunFailedError

COMPOSED: list[Any] = []
FAILED: list[int] = []  # exit codes of a sweep's runs
INTERRUPTED = 130
#: Exit codes of a run that a signal stopped and that can be continued; 1 for other reasons.
STOPPED = {one.name: 128 + one for one in signal.Signals}


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def train_new(cfg: DictConfig) -> None:
    """Compose one configuration (or each of a sweep) and run it."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    from fetchlab.run import start

    COMPOSED.append(plain)
    job = HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        answer(lambda: start(plain))
        return
    if plain["run_dir"] is not None:
        plain["run_dir"] = str(Path(plain["run_dir"]) / f"{job.job.num}")
    try:
        answer(lambda: start(plain))
    except SystemExit as end:
        if end.code not in (1, 2):
            raise  # a signal stops the sweep, a failed run does not
        FAILED.append(end.code)


def continue_run(args: list[str]) -> dict[str, Any]:
    """Continue a run from its own configuration, which is never composed."""
    given = dict(arg.partition("=")[::2] for arg in args)
    run_dir = Path(given.pop("resume"))
    force = given.pop("force_resume", "false")
    changes: dict[str, object] = {}
    if "total_env_steps" in given:
        text = given.pop("total_env_steps").replace("_", "")
        if not text.isdigit():
            raise ConfigError("total_env_steps", text, "a positive whole number", "e.g. 2000000")
        changes["total_env_steps"] = int(text)
    trainer = given.pop("trainer", None)
    if given:
        key, value = next(iter(given.items()))
        allowed = "only total_env_steps, trainer and force_resume beside resume"
        raise ConfigError(key, value, allowed, "start a new run to change it")
    from fetchlab.run import resume

    return resume(run_dir, changes, trainer, force == "true")


def answer(job: Callable[[], dict[str, Any]]) -> None:
    """Do the job; what a user can mend is one line on stderr and exit code 2, a failed run 1."""
    try:
        summary = job()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ConfigError, RunFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    if summary["status"] == "stopped":
        sys.exit(STOPPED.get(summary["stop_reason"], 1))


def main() -> None:
    """Run the command line."""
    # Before torch is imported. Threads that spin while they wait for each other take the cores that
    # they wait for: beside one busy process per core two of them had 0.17 to 0.42 of the speed of
    # one, and 1.1 to 1.2 when they sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if any(arg.startswith("resume=") for arg in sys.argv[1:]):
        answer(lambda: continue_run(sys.argv[1:]))
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let composition errors through, to print one line
    try:
        train_new()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if COMPOSED:
            raise  # a defect of the run keeps its traceback
        text = str(error).partition("Config search path")[0]
        print("error: " + " ".join(text.split()), file=sys.stderr)
        sys.exit(2)
    if FAILED:
        print(f"error: {len(FAILED)} of {len(COMPOSED)} runs failed", file=sys.stderr)
        sys.exit(max(FAILED))


if __name__ == "__main__":
    main()
