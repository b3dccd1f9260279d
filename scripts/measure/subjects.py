"""Whose networks are measured: an experiment's before training, or a run's before and after it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fetchlab import config
from fetchlab.algos.sac import SAC
from fetchlab.build import build_module
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.config import typed
from fetchlab.entries import EnvSpec
from fetchlab.errors import ConfigError, RunFailedError, require
from fetchlab.overrides import one_line


@dataclass(frozen=True)
class Subject:
    """A configuration and, of a run, its newest weights.

    Args:
        title: what it is, for people.
        cfg: resolved, plain.
        weights: ``state_dict`` of a checkpoint; None before training.
    """

    title: str
    cfg: Mapping[str, Any]
    weights: Mapping[str, Any] | None

    def networks(self, layout: EnvSpec) -> dict[str, SAC]:
        """``untrained``, from the configuration's seed, and of a run also ``trained``."""
        modules = {"untrained": build_module(typed(self.cfg), layout)}
        if self.weights is not None:
            modules["trained"] = build_module(typed(self.cfg), layout)
            modules["trained"].load_state_dict(self.weights)
        return {name: module.eval() for name, module in modules.items()}


def command_line(doc: str, **counts: tuple[int, int, str]) -> argparse.ArgumentParser:
    """The options that both measurements have.

    Args:
        doc: the script's docstring.
        counts: name -> default, least value and help of each whole number.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    of = parser.add_mutually_exclusive_group()
    of.add_argument("--experiment", default="pixel_push", help="untrained (default: pixel_push)")
    of.add_argument("--run", type=Path, metavar="RUN_DIR", help="untrained and trained")
    for name, (default, least, text) in counts.items():
        text = f"{text}, at least {least} (default: {default})"
        parser.add_argument(f"--{name}", type=_at_least(least), default=default, help=text)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers there")
    parser.add_argument(
        "overrides", nargs="*", help="changes to the experiment, as encoder=nature_cnn or seed=1"
    )
    return parser


def subject(options: argparse.Namespace) -> Subject:
    """What `command_line`'s options name.

    Raises:
        ConfigError: for what cannot be composed, is no run, or sees no pixels.
        RunFailedError: a run without a valid checkpoint.
    """
    if options.run is None:
        of = _of_experiment(options.experiment, options.overrides)
    else:
        require(
            not options.overrides,
            "overrides",
            options.overrides,
            "none beside --run, which has its own configuration",
            "leave them out, or give --experiment",
        )
        of = _of_run(options.run)
    require(
        config.typed(of.cfg).obs.sees_pixels,
        "experiment",
        of.cfg["experiment"],
        "an agent that sees pixels",
        "there is no encoder to measure; use pixel_push or another one",
    )
    return of


def answer(job: Callable[[], None]) -> int:
    """Exit code of ``job``; what a user can mend is one line on stderr."""
    try:
        job()
    except (ConfigError, RunFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return 0


def _of_experiment(name: str, overrides: Sequence[str]) -> Subject:
    given = [f"experiment={name}", *overrides]
    try:
        plain = config.compose(name, *overrides)
    except (HydraException, OmegaConfBaseException) as error:
        asked, remedy = "what src/train.py can compose", f"correct it ({one_line(error)})"
        raise ConfigError("experiment", " ".join(given), asked, remedy) from error
    config.check(plain)
    title = f"experiment {' '.join((name, *overrides))}, seed {plain['seed']}"
    return Subject(title, plain, None)


def _of_run(run_dir: Path) -> Subject:
    if not (run_dir / "config.yaml").is_file():
        raise ConfigError("run", str(run_dir), "a run's folder with config.yaml", "check the path")
    cfg = load_run_config(run_dir / "config.yaml", allowed_targets(config.CONFIGS))
    config.check({**cfg, "trusted_modules": []})
    try:
        payload = read_payload(newest_valid(run_dir / "checkpoints"))
    except CheckpointError as error:
        raise RunFailedError(str(error)) from error
    title = f"run {run_dir.name} of {cfg['experiment']} at {payload['env_steps']:,} env steps"
    return Subject(title, cfg, payload["state_dict"])


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from {least}")
        return int(text)

    return number
