"""Loggers of a run by their names in the configuration, Lightning's own among them."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from lightning.pytorch.loggers import Logger, WandbLogger

from fetchlab.errors import ConfigError

#: How a constructor calls the id under which a run is continued; `Logger.version` gives it.
ID_NAMES = ("run_id", "version")


def build_loggers(
    nodes: Mapping[str, Mapping[str, Any]], run_dir: Path, states: Mapping[str, Mapping[str, Any]]
) -> dict[str, Logger]:
    """What ``logger`` names, each in the run's folder unless its own ``save_dir`` says otherwise.

    Args:
        nodes: each with a ``_target_``.
        run_dir: the run's folder.
        states: from the checkpoint of a resumed run: one that keeps an id goes on under it.

    Raises:
        ConfigError: a package is not installed.
    """
    return {
        name: _logger(name, node, run_dir, states.get(name, {})) for name, node in nodes.items()
    }


def _logger(name: str, node: Mapping[str, Any], run_dir: Path, state: Mapping[str, Any]) -> Logger:
    takes = inspect.signature(get_class(node["_target_"])).parameters
    given = {"save_dir": str(run_dir)} if "save_dir" in takes else {}
    given |= node
    if "version" in state:
        given |= {one: state["version"] for one in ID_NAMES if one in takes}
    try:
        logger: Logger = instantiate(given)
    except Exception as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            way = f"pip install -e '.[{name}]', or leave it out of logger="
            raise ConfigError("logger", name, "a logger that is installed", way) from error
        raise
    return logger


def finish(loggers: Iterable[Logger]) -> None:
    """End what would reach into this process' next run: Weights & Biases has one at a time."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger.experiment.finish()
