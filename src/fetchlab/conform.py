"""Hold a plain configuration against its dataclasses: no key wrong, none unknown, none missing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_type_hints

from fetchlab.checkpoint.safe_config import AllowedTargets
from fetchlab.errors import ConfigError, require
from fetchlab.fields import (
    GLOBAL,
    Supplied,
    Target,
    Was,
    fits,
    may_be_absent,
    members,
    remedy,
    section_of,
    unwrap,
    words,
)

#: Annotations of a swap-in's constructor that are checked; in others the constructor is in charge.
SIMPLE: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "list": list[Any],
    "list[int]": list[int],
    "list[float]": list[float],
    "Sequence[int]": list[int],
    "Sequence[float]": list[float],
}
#: It takes any argument and reads none.
IDENTITY = "torch.nn.Identity"
NOTHING_SUPPLIED = Supplied()
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Conform:
    """Checks one configuration.

    Args:
        root: the dataclass of the whole.
        targets: what ``_target_`` may name; only that is imported.
    """

    def __init__(self, root: Any, targets: AllowedTargets) -> None:
        self._root, self._targets = root, targets

    def check(self, value: Any, kind: Any, key: str) -> None:
        """Hold one plain value against its annotation; the whole has the key "".

        Raises:
            ConfigError: for the first value that does not fit.
        """
        section = section_of(kind)
        if isinstance(value, Mapping) and section is not None:
            self._section(value, section, key)
        elif isinstance(value, Mapping) and Target in members(kind):
            self._swap_in(value, kind, key)
        else:
            require(fits(value, kind), key, shown(value), words(kind), remedy(kind, key))

    def _section(self, value: Mapping[str, Any], section: Any, key: str) -> None:
        kinds = get_type_hints(section, include_extras=True)
        for name, item in value.items():
            if name not in kinds:
                raise unknown_key(join(key, name), item, self._root)
        for name, kind in kinds.items():
            dotted = join(key, name)
            if name in value:
                self.check(value[name], kind, dotted)
            elif not may_be_absent(kind):
                advice = f"the key is missing; {remedy(kind, dotted)}"
                raise ConfigError(dotted, None, words(kind), advice)

    def _swap_in(self, node: Mapping[str, Any], kind: Any, key: str) -> None:
        supplied = [note for note in unwrap(kind)[1] if isinstance(note, Supplied)]
        name, partial = node.get("_target_"), node.get("_partial_", False)
        where, needed = remedy(None, f"{key}."), bool(supplied)
        require(isinstance(name, str), f"{key}._target_", name, "the name of a class", where)
        require(partial is needed, f"{key}._partial_", partial, str(needed).lower(), where)
        self._target(node, key, *supplied)

    def _target(
        self, node: Mapping[str, Any], key: str, supplied: Supplied = NOTHING_SUPPLIED
    ) -> None:
        """Hold a node's keys against the constructor that they are arguments of."""
        name, where = str(node["_target_"]), remedy(None, f"{key}.")
        named, takes_any = _arguments(self._targets.load(name, f"{key}._target_"))
        takes_any = takes_any and name != IDENTITY
        named = named[1:] if supplied.first else named
        says = f"a constructor that takes {', '.join(supplied.names)}"
        takes = takes_any or set(supplied.names) <= {one.name for one in named}
        require(takes, f"{key}._target_", name, says, where)
        kinds = {one.name: _simple(one) for one in named if one.name not in supplied.names}
        has = f"it has {', '.join(kinds)}" if kinds else "it has none"
        for argument, value in node.items():
            dotted, says = f"{key}.{argument}", f"an argument of {name}"
            if argument in ("_target_", "_partial_"):
                continue
            own = argument in kinds or (takes_any and argument not in supplied.names)
            require(own, dotted, value, says, has)
            self._nested(value, dotted)
            if (kind := kinds.get(argument)) is not None:
                self.check(value, kind, dotted)
        whole = supplied != NOTHING_SUPPLIED or not node.get("_partial_", False)
        for one in named if whole else ():
            given = one.name in (*node, *supplied.names) or one.default is not one.empty
            require(given, f"{key}.{one.name}", None, "a value", f"the key is missing; {where}")

    def _nested(self, value: Any, key: str) -> None:
        """Nodes that an argument holds; Hydra builds them too, wherever they are."""
        if isinstance(value, Mapping) and "_target_" in value:
            self._target(value, key)
        elif isinstance(value, Mapping | list):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            for name, item in items:
                self._nested(item, f"{key}.{name}")


def complete(stored: Mapping[str, Any], section: Any, key: str = "") -> dict[str, Any]:
    """``stored`` with every key that it predates, in its old meaning.

    Raises:
        ConfigError: for a key that there always was.
    """
    full = dict(stored)
    for name, kind in get_type_hints(section, include_extras=True).items():
        was = [note for note in unwrap(kind)[1] if isinstance(note, Was)]
        value, inner = stored.get(name, {}), section_of(kind)
        if name not in stored and was and not was[0].target:
            full[name] = was[0].value
        elif inner is not None and isinstance(value, Mapping):
            full[name] = complete(value, inner, join(key, name))
        elif name not in stored and not may_be_absent(kind):
            advice = "the run's config.yaml lacks it, and nothing says what it was; restore it"
            raise ConfigError(join(key, name), None, words(kind), advice)
        for old in was:
            if old.target and isinstance(value, Mapping) and value.get("_target_") == old.target:
                full[name] = {old.argument: old.value, **full[name]}
    return full


def unknown_key(key: str, value: Any, root: Any) -> ConfigError:
    """The error for a key that nothing reads, with the names that may have been meant."""
    section, _, name = key.rpartition(".")
    if key in ("sweep", "debug"):
        return ConfigError(key, shown(value), f"the name of a file in configs/{key}", GLOBAL)
    kinds = dict(_dotted(root))
    if key in kinds:
        advice = remedy(kinds[section], section)
        return ConfigError(key, shown(value), f"{section} to be set, it is null here", advice)
    leaves = {one: one.rpartition(".")[2] for one in kinds}
    siblings = [leaf for one, leaf in leaves.items() if one.rpartition(".")[0] == section]
    near = [one for one, leaf in leaves.items() if leaf == name]
    near = near or [join(section, one) for one in get_close_matches(name, siblings)]
    advice = f"{section or 'a run'} has {', '.join(siblings)}" if siblings else remedy(None, key)
    if near:
        advice = f"did you mean {' or '.join(near)}?"
    return ConfigError(key, shown(value), "a key that something reads", advice)


def shown(value: Any) -> Any:
    """For a message: of a mapping its keys."""
    return list(value) if isinstance(value, Mapping) else value


def join(section: str, name: object) -> str:
    """A dotted key."""
    return f"{section}.{name}" if section else str(name)


def _arguments(constructor: Any) -> tuple[list[inspect.Parameter], bool]:
    """Those that have a name, and whether there may be others."""
    try:
        takes = list(inspect.signature(constructor).parameters.values())
    except (TypeError, ValueError):  # Python cannot tell
        return [], True
    takes_any = any(one.kind is one.VAR_KEYWORD for one in takes)
    return [one for one in takes if one.kind not in VARIADIC], takes_any


def _simple(argument: inspect.Parameter) -> Any:
    """The annotation, where it is one of a few simple ones; else None."""
    text = argument.annotation
    text = text if isinstance(text, str) else inspect.formatannotation(text)
    kind = SIMPLE.get(text.removesuffix(" | None"))
    return kind | None if kind is not None and text.endswith(" | None") else kind


def _dotted(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the tree, with its annotation."""
    for name, kind in get_type_hints(section, include_extras=True).items():
        yield join(prefix, name), kind
        if (inner := section_of(kind)) is not None:
            yield from _dotted(inner, join(prefix, name))
