"""Loggers of a run by their names in the configuration, Lightning's own among them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from lightning.pytorch.loggers import Logger

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
    loggers: dict[str, Logger] = {}
    for name, node in nodes.items():
        takes = inspect.signature(get_class(node["_target_"])).parameters
        given = {"save_dir": str(run_dir)} if "save_dir" in takes else {}
        given |= node
        state = states.get(name, {})
        if "version" in state:
            given |= {one: state["version"] for one in ID_NAMES if one in takes}
        try:
            loggers[name] = instantiate(given)
        except Exception as error:
            if isinstance(error.__cause__, ModuleNotFoundError):
                way = f"pip install -e '.[{name}]', or leave it out of logger="
                raise ConfigError("logger", name, "a logger that is installed", way) from error
            raise
    return loggers
