"""Read a run's own ``config.yaml`` as plain data, trusting nothing in it.

A run folder may come from somebody else, and Hydra calls whatever ``_target_`` names. So a resumed
run may name exactly the targets that the project's shipped configs name, and nothing in its config
may be resolved later: no interpolation (environment included), no YAML tags, no aliases.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from fetchlab.types import ConfigError, require

_MAX_CONFIG_BYTES = 1 << 20
_HYDRA_KEY = re.compile(r"_[a-z]+_")
_ALLOWED_HYDRA_KEYS = ("_target_", "_partial_")
_DISTRUST = "resume only run folders written by this version of the project"


def allowed_targets(configs_dir: Path) -> frozenset[str]:
    """Every ``_target_`` named in the YAML files under ``configs_dir``: the allow-list.

    Raises:
        ConfigError: the folder holds no YAML file, or one that cannot be read.
    """
    files = sorted(configs_dir.rglob("*.yaml"))
    require(bool(files), "configs_dir", str(configs_dir), "a folder of YAML files", "check it")
    targets: set[str] = set()
    for path in files:
        _collect_targets(_read_yaml(path), targets)
    return frozenset(target for target in targets if "${" not in target)


def load_run_config(path: Path, allowed: frozenset[str]) -> dict[str, Any]:
    """Read the resolved config of a run.

    Args:
        path: the run's ``config.yaml``.
        allowed: exact names that ``_target_`` may have, from `allowed_targets`.

    Returns:
        nested dicts and lists of str, int, float, bool and None.

    Raises:
        ConfigError: unreadable, not plain data, an interpolation, or a target that is not allowed;
            the message starts with the dotted key.
    """
    config = _read_yaml(path)
    require(isinstance(config, dict), str(path), type(config).__name__, "a mapping", _DISTRUST)
    _check(config, "", allowed)
    return config


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, whose expansion can grow without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)


def _read_yaml(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_CONFIG_BYTES + 1)
        if len(raw) > _MAX_CONFIG_BYTES:
            raise ValueError(f"larger than {_MAX_CONFIG_BYTES} bytes")
        return yaml.load(raw, Loader=_PlainLoader)  # a SafeLoader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError("config", str(path), "plain YAML", f"{reason}; {_DISTRUST}") from None


def _check(value: Any, key: str, allowed: frozenset[str]) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            path = f"{key}.{name}" if key else str(name)
            require(isinstance(name, str), path, name, "a text key", _DISTRUST)
            require("${" not in name, path, name, "a key without interpolation", _DISTRUST)
            _check_hydra_key(path, name, item, allowed)
            _check(item, path, allowed)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{key}.{index}", allowed)
    elif isinstance(value, str):
        require("${" not in value, key, value, "a value without interpolation", _DISTRUST)
        require(value != "???", key, value, "a value that is set", _DISTRUST)
    else:
        plain = value is None or isinstance(value, bool | int | float)
        require(plain, key, value, "text, a number, true, false or null", _DISTRUST)


def _check_hydra_key(path: str, name: str, item: Any, allowed: frozenset[str]) -> None:
    if name == "_target_":
        known = isinstance(item, str) and item in allowed
        require(known, path, item, "a target that the shipped configs name", _DISTRUST)
    elif name == "_partial_":
        require(isinstance(item, bool), path, item, "true or false", _DISTRUST)
    elif _HYDRA_KEY.fullmatch(name):
        require(False, path, item, f"no Hydra key but {_ALLOWED_HYDRA_KEYS}", _DISTRUST)


def _collect_targets(value: Any, targets: set[str]) -> None:
    if isinstance(value, dict):
        target = value.get("_target_")
        if isinstance(target, str):
            targets.add(target)
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _collect_targets(item, targets)
