"""Read a run's own ``config.yaml`` as plain data, trusting nothing in it.

A run folder may come from somebody else, and Hydra calls whatever ``_target_`` names. So a resumed
run may name exactly the targets that the project's shipped configs name, and what lies in modules
that the user trusts by name on the command line; nothing in its config may be resolved later: no
interpolation (environment included), no YAML tags, no aliases.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fetchlab.errors import ConfigError, require

_MAX_CONFIG_BYTES = 1 << 20
_HYDRA_KEY = re.compile(r"_[a-z]+_")
_ALLOWED_HYDRA_KEYS = ("_target_", "_partial_")
_DISTRUST = "resume only run folders written by this version of the project"
_LISTED = "a target that the shipped configs name"
_MERGE = "tag:yaml.org,2002:merge"  # of the key `<<`
_UNREADABLE = (OSError, ValueError, RecursionError, yaml.YAMLError)
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AllowedTargets:
    """What ``_target_`` may name: exactly ``names``, or anything defined in a ``trusted`` module.

    A module is given by its dotted name; its submodules are trusted with it.
    """

    names: frozenset[str]
    trusted: tuple[str, ...] = ()

    def __contains__(self, target: object) -> bool:
        return isinstance(target, str) and (target in self.names or self._trusts(target))

    def load(self, target: str, key: str) -> Any:
        """Import what an allowed target names.

        Raises:
            ConfigError: it cannot be imported or called, or a trusted module has it from elsewhere.
        """
        require(target in self, key, target, _LISTED, trust(target))
        module, _, name = target.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except Exception as error:  # whatever the user's own module raises
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            expected, remedy = "a name that can be imported", "correct it, or PYTHONPATH"
            raise ConfigError(key, target, expected, f"{remedy} ({reason})") from error
        require(callable(found), key, target, "a class or a function", "correct the name")
        home = f"{getattr(found, '__module__', None)}.{name}"
        own = target in self.names or self._trusts(home)
        require(own, key, target, "what a trusted module itself defines", trust(home))
        return found

    def _trusts(self, target: str) -> bool:
        return any(target.startswith(f"{module}.") for module in self.trusted)


def allowed_targets(configs_dir: Path, trusted: Sequence[str] = ()) -> AllowedTargets:
    """The allow-list: every ``_target_`` named in the YAML files under ``configs_dir``.

    A file that cannot be read is left out with a warning: it must not block every run.

    ``trusted`` are modules of the user's own, from the command line, never from a run folder.

    Raises:
        ConfigError: the folder holds no YAML file, or a module's name is not a dotted name.
    """
    fits = isinstance(trusted, list | tuple) and all(map(_is_dotted_name, trusted))
    require(fits, "trusted_modules", trusted, "a list of modules", "e.g. trusted_modules=[my_pkg]")
    files = sorted(configs_dir.rglob("*.yaml"))
    require(bool(files), "configs_dir", str(configs_dir), "a folder of YAML files", "check it")
    targets: set[str] = set()
    for path in files:
        try:
            targets |= _targets_in(path)
        except _UNREADABLE as error:
            reason = " ".join(str(error).split())
            _LOG.warning("warning: %s is left out, it cannot be read: %s", path, reason)
    return AllowedTargets(frozenset(targets), tuple(trusted))


def _is_dotted_name(name: object) -> bool:
    return isinstance(name, str) and all(part.isidentifier() for part in name.split("."))


def load_run_config(path: Path, allowed: Container[str]) -> dict[str, Any]:
    """Read the resolved config of a run, whose targets are among those `allowed_targets`.

    Returns:
        nested dicts and lists of str, int, float, bool and None.

    Raises:
        ConfigError: unreadable, not plain data, an interpolation, or a target that is not allowed;
            the message starts with the dotted key.
    """
    try:
        config = yaml.load(_read(path), Loader=_PlainLoader)  # a SafeLoader
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ConfigError("config", str(path), "plain YAML", f"{reason}; {_DISTRUST}") from None
    require(isinstance(config, dict), str(path), type(config).__name__, "a mapping", _DISTRUST)
    check_plain(config, allowed, _DISTRUST)
    return config


def check_plain(config: Mapping[str, Any], allowed: Container[str], remedy: str) -> None:
    """Refuse what `load_run_config` would not read back; a run that starts can be resumed.

    Raises:
        ConfigError: not plain data, an interpolation, or a target that is not allowed.
    """
    _check(dict(config), "", allowed, remedy)


def trust(target: str) -> str:
    """How a user opens the list for ``target``."""
    module = target.rpartition(".")[0] or target
    return f"if you trust that module, add trusted_modules=[{module}] to the command line"


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, whose expansion can grow without bound."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)


def _read(path: Path) -> bytes:
    with path.open("rb") as stream:
        if len(raw := stream.read(_MAX_CONFIG_BYTES + 1)) > _MAX_CONFIG_BYTES:
            raise ValueError(f"larger than {_MAX_CONFIG_BYTES} bytes")
    return raw


def _targets_in(path: Path) -> set[str]:
    """Every ``_target_`` of one of our own files, which may use aliases, as Hydra's may.

    Its nodes are read but nothing is built from them, and each is looked at once: aliases of
    aliases cost nothing.
    """
    targets: set[str] = set()
    todo, seen = [yaml.compose(_read(path), Loader=yaml.SafeLoader)], set()
    while todo:
        node = todo.pop()
        if node is None or id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag not in yaml.SafeLoader.yaml_constructors and node.tag != _MERGE:
            raise yaml.YAMLError(f"the tag {node.tag} is not allowed")
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        elif isinstance(node, yaml.MappingNode):
            todo += [part for pair in node.value for part in pair]
            named = [item.value for name, item in node.value if name.value == "_target_"]
            targets |= {name for name in named if isinstance(name, str) and "${" not in name}
    return targets


def _check(value: Any, key: str, allowed: Container[str], remedy: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            path = f"{key}.{name}" if key else str(name)
            require(isinstance(name, str), path, name, "a text key", remedy)
            require("${" not in name, path, name, "a key without interpolation", remedy)
            _check_hydra_key(path, name, item, allowed, remedy)
            _check(item, path, allowed, remedy)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{key}.{index}", allowed, remedy)
    elif isinstance(value, str):
        require("${" not in value, key, value, "a value without interpolation", remedy)
        require(value != "???", key, value, "a value that is set", remedy)
    else:
        plain = value is None or isinstance(value, bool | int | float)
        require(plain, key, value, "text, a number, true, false or null", remedy)


def _check_hydra_key(path: str, name: str, item: Any, allowed: Container[str], remedy: str) -> None:
    if name == "_target_":
        known = isinstance(item, str) and item in allowed
        require(known, path, item, _LISTED, f"{remedy}; {trust(str(item))}")
    elif name == "_partial_":
        require(isinstance(item, bool), path, item, "true or false", remedy)
    elif _HYDRA_KEY.fullmatch(name):
        require(False, path, item, f"no Hydra key but {_ALLOWED_HYDRA_KEYS}", remedy)
