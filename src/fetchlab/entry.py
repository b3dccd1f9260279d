"""What the entries share: one composition from the command line, and how a command ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fetchlab.config import CONFIGS, leaves, lookup, own, register_resolvers
from fetchlab.errors import ConfigError, RunFailedError, require
from fetchlab.fields import kinds_of
from fetchlab.overrides import literal, one_line

Result = TypeVar("Result")
INTERRUPTED = 130
#: Commands that take every key of a run.
WHOLE = ("train", "doctor")


def answer(job: Callable[[], Result]) -> Result:
    """Do the job; what a user can mend is one line on stderr and exit code 2, a failed run 1."""
    try:
        return job()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except (ConfigError, RunFailedError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


def sleep_while_waiting() -> None:
    """Let torch's threads sleep while they wait for each other; before torch is imported.

    Threads that spin take the cores that they wait for: beside one busy process per core two of
    them had 0.16 to 0.42 of the speed of one, and 1.07 to 1.25 when they sleep.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def asks_for_help(args: Sequence[str]) -> bool:
    """Whether the command line asks how to use it."""
    return any(arg in ("-h", "--help") for arg in args)


def command(
    name: str, job: Callable[[dict[str, Any]], None], page: str, paths: Sequence[str] = ()
) -> None:
    """Answer a command line: print its ``page`` where that asks how to use it, else `launch`."""
    sleep_while_waiting()
    if asks_for_help(sys.argv[1:]):
        print(page, end="")
    else:
        launch(name, job, paths)


def launch(name: str, job: Callable[[dict[str, Any]], None], paths: Sequence[str] = ()) -> None:
    """Compose ``configs/<name>.yaml`` from the command line, and do the job with each result.

    What cannot be composed is one line on stderr and exit code 2. A failed job of a sweep does not
    stop it.

    Args:
        name: of the YAML.
        job: takes the resolved, plain configuration.
        paths: keys whose values are taken as they are, whatever Hydra's grammar says of them.
    """
    codes: list[Any] = []  # of each job, None while it runs and where all is well

    def refuse(error: Exception) -> NoReturn:
        known = [] if name in WHOLE else keys(name)
        print(f"error: {one_line(error, known)}", file=sys.stderr)
        sys.exit(2)

    def composed(cfg: DictConfig) -> None:
        # No error here is left to Hydra, which would print more than one line.
        try:
            plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            refuse(error)
        codes.append(None)
        try:
            answer(lambda: _refuse_emptying(plain))
            answer(lambda: job(plain))
        except SystemExit as end:
            if HydraConfig.get().mode != RunMode.MULTIRUN or end.code not in (1, 2):
                raise  # a signal stops the sweep, too
            codes[-1] = end.code

    sys.argv[1:] = literal(sys.argv[1:], paths)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let composition errors through, to print one line
    register_resolvers()
    app = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=name)(composed)
    try:
        answer(app)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        if codes:
            raise  # a defect of the job keeps its traceback
        refuse(error)
    if failed := [code for code in codes if code]:
        print(f"error: {len(failed)} of {len(codes)} runs failed", file=sys.stderr)
        sys.exit(max(failed))


def _refuse_emptying(plain: dict[str, Any]) -> None:
    """Refuse ``KEY={}`` where something stays: Hydra merges a mapping into what is there.

    Raises:
        ConfigError: with the way to take it out.
    """
    for override in HydraConfig.get().overrides.task:
        key, _, text = override.partition("=")
        if text == "{}" and (left := lookup(plain, key.lstrip("+"))):
            out = " ".join(f"'~{key.lstrip('+')}.{name}'" for name in left)
            says = "a mapping to merge; an empty one changes nothing"
            raise ConfigError(key, {}, says, f"add {out}")


def asked(plain: dict[str, Any], section: Any) -> tuple[Any, dict[str, Any]]:
    """What the command line asks of a stored run: in ``section``'s terms, and of the run's own.

    Args:
        plain: a composition of ``launch``.
        section: dataclass of the keys that are the command's.

    Returns:
        its instance, and by dotted key the values given for the run's own keys.

    Raises:
        ConfigError: for the first of the command's keys that does not fit.
    """
    given = []
    for override in HydraConfig.get().overrides.task:
        key, _, text = override.partition("=")
        says = "a key without + or ~, the run's own configuration is complete"
        require(override[0] not in "+~", key, text, says, "leave it out")
        given.append(key)
    changes = {key: lookup(plain, key) for key in given if key not in kinds_of(section)}
    return own(plain, section), changes


def keys(name: str) -> list[str]:
    """The keys of ``configs/<name>.yaml``, and the groups that can be chosen there."""
    loaded = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    defaults = [one for one in loaded.pop("defaults") if isinstance(one, dict)]
    groups = [group for one in defaults for group, choice in one.items() if choice is None]
    return [*leaves(loaded), *groups]
