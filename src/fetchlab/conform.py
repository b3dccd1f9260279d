"""Hold a plain configuration against its dataclasses: no key wrong, none unknown, none missing."""

from __future__ import annotations

import collections.abc
import importlib
import inspect
import typing
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Annotated, Any

from fetchlab.checkpoint.safe_config import AllowedTargets
from fetchlab.errors import ConfigError, require
from fetchlab.fields import (
    GLOBAL,
    Supplied,
    Target,
    checkable,
    fits,
    is_open,
    kinds_of,
    may_be_absent,
    members,
    named_of,
    remedy,
    section_of,
    unwrap,
    words,
)

#: It takes any argument and reads none.
IDENTITY = "torch.nn.Identity"
_CLASS = "the name of a class"
NOTHING_SUPPLIED = Supplied()
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
#: For annotations whose names a module imports for type checkers alone.
NAMES = {**vars(collections.abc), **vars(typing)}


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
            self._section(value, section, kind, key)
        elif isinstance(value, Mapping) and Target in members(kind):
            self._swap_in(value, kind, key)
        elif isinstance(value, Mapping) and (held := named_of(kind)) is not None:
            notes = unwrap(kind)[1]
            one = Annotated[(held, *notes)] if notes else held
            for name, node in value.items():
                dotted = join(key, name)
                if held is Target and isinstance(node, Mapping):
                    way = (
                        f"give it one, choose {key.replace('.', '/')}=[{name}], or add '~{dotted}'"
                    )
                    require("_target_" in node, f"{dotted}._target_", None, _CLASS, way)
                self.check(node, one, dotted)
        else:
            require(fits(value, kind), key, shown(value), words(kind), remedy(kind, key))

    def _section(self, value: Mapping[str, Any], section: Any, kind: Any, key: str) -> None:
        kinds, instead = kinds_of(section), ""
        if type(None) in members(kind):
            instead = f", or {key}=null"
        if is_open(section):
            self._swap_in(value, kind, key, frozenset(kinds))
        for name, item in value.items():
            if name not in kinds and not is_open(section):
                raise unknown_key(join(key, name), item, self._root)
        for name, kind in kinds.items():
            dotted = join(key, name)
            if name in value:
                self.check(value[name], kind, dotted)
            elif not may_be_absent(kind):
                advice = f"the key is missing; {remedy(kind, dotted)}{instead}"
                raise ConfigError(dotted, None, words(kind), advice)

    def _swap_in(
        self, node: Mapping[str, Any], kind: Any, key: str, fields: frozenset[str] = frozenset()
    ) -> None:
        supplied = [note for note in unwrap(kind)[1] if isinstance(note, Supplied)]
        name, partial = node.get("_target_"), node.get("_partial_", False)
        where, needed = remedy(None, f"{key}."), bool(supplied) and not fields
        require(isinstance(name, str), f"{key}._target_", name, _CLASS, where)
        require(partial is needed, f"{key}._partial_", partial, str(needed).lower(), where)
        self._target(node, key, supplied[0] if supplied else NOTHING_SUPPLIED, fields)

    def _target(
        self,
        node: Mapping[str, Any],
        key: str,
        supplied: Supplied = NOTHING_SUPPLIED,
        fields: frozenset[str] = frozenset(),
    ) -> None:
        """Hold a node's keys against the constructor that they are arguments of.

        Args:
            node: a mapping with ``_target_``.
            key: its dotted key.
            supplied: what the project gives.
            fields: keys that have annotations of their own, whether the constructor asks or not.
        """
        name, where = str(node["_target_"]), remedy(None, f"{key}.")
        named, takes_any = arguments(self._targets.load(name, f"{key}._target_"))
        takes_any = takes_any and name != IDENTITY
        named = named[1:] if supplied.first else named
        says = f"a constructor that takes {', '.join(supplied.names)}"
        takes = takes_any or set(supplied.names) <= {one.name for one in named}
        require(takes, f"{key}._target_", name, says, where)
        ours = (*supplied.names, *supplied.asked, *fields)
        own = [one for one in named if one.name not in ours]
        kinds = {one.name: checkable(one.annotation) for one in own}
        has = f"it has {', '.join(kinds)}" if kinds else "it has none"
        says = "a key that something reads" if fields else f"an argument of {name}"
        for argument, value in node.items():
            dotted, near = f"{key}.{argument}", get_close_matches(argument, (*kinds, *fields))
            if argument in ("_target_", "_partial_", *fields):
                continue
            known = argument in kinds or (takes_any and argument not in supplied.names)
            advice = f"did you mean {key}.{near[0]}? Or" if near else f"{has}, or"
            require(known, dotted, value, says, f"{advice} add '~{dotted}'")
            kind = kinds.get(argument)
            if Target not in members(kind):
                self._nested(value, dotted)
            if kind is not None:
                self.check(value, kind, dotted)
        whole = supplied != NOTHING_SUPPLIED or not node.get("_partial_", False)
        for one in own if whole else ():
            given = one.name in node or one.default is not one.empty
            require(given, f"{key}.{one.name}", None, "a value", f"the key is missing; {where}")

    def _nested(self, value: Any, key: str) -> None:
        """Nodes that an argument holds; Hydra builds them too, wherever they are."""
        if isinstance(value, Mapping) and "_target_" in value:
            self._target(value, key)
        elif isinstance(value, Mapping | list):
            items = value.items() if isinstance(value, Mapping) else enumerate(value)
            for name, item in items:
                self._nested(item, f"{key}.{name}")


def instance(section: Any, value: Mapping[str, Any]) -> Any:
    """A section of a checked configuration as its dataclass; a `Target` stays a mapping."""
    kinds, made = kinds_of(section), {}
    for name, kind in kinds.items():
        item, inner, held = value.get(name), section_of(kind), named_of(kind)
        if isinstance(item, Mapping) and inner is not None:
            item = instance(inner, item)
        elif isinstance(item, Mapping) and is_dataclass(held):
            item = {one: instance(held, node) for one, node in item.items()}
        made[name] = item
    if is_open(section):
        module, _, name = value["_target_"].rpartition(".")
        asked = [one.name for one in arguments(getattr(importlib.import_module(module), name))[0]]
        own = {key: item for key, item in value.items() if key not in kinds or key in asked}
        made["target"] = {**own, "_partial_": True}
    return section(**made)


def unknown_key(key: str, value: Any, root: Any) -> ConfigError:
    """The error for a key that nothing reads, with the names that may have been meant."""
    section, _, name = key.rpartition(".")
    if key in ("sweep", "debug"):
        return ConfigError(key, shown(value), f"the name of a file in configs/{key}", GLOBAL)
    kinds = dict(_dotted(root))
    if key in kinds:
        advice = remedy(kinds[section], section)
        return ConfigError(key, shown(value), f"{section} to be set, it is null here", advice)
    if named_of(kinds.get(section)) is not None:
        return ConfigError(key, shown(value), "a name that is there", f"a new one: '+{key}=...'")
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


def arguments(constructor: Any) -> tuple[list[inspect.Parameter], bool]:
    """Those that have a name, with their annotations, and whether there may be others.

    A class that hands ``**kwargs`` on takes what its base's constructor takes.
    """
    classes = inspect.getmro(constructor)[:-1] if inspect.isclass(constructor) else ()
    functions = [vars(one)["__init__"] for one in classes if "__init__" in vars(one)]
    named: dict[str, inspect.Parameter] = {}
    for function in functions or [constructor]:
        try:
            takes = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):  # Python cannot tell
            return list(named.values()), True
        for one in takes[1:] if functions else takes:
            if one.kind not in VARIADIC:
                named.setdefault(one.name, one.replace(annotation=_annotation(one, function)))
        if not any(one.kind is one.VAR_KEYWORD for one in takes):
            return list(named.values()), False
    return list(named.values()), True


def _annotation(argument: inspect.Parameter, function: Any) -> Any:
    """As an object, which it is not in a module with postponed evaluation; None if unreadable."""
    kind = None if argument.annotation is argument.empty else argument.annotation
    if not isinstance(kind, str):
        return kind
    try:
        return eval(kind, {**NAMES, **getattr(inspect.unwrap(function), "__globals__", {})})
    except Exception:  # of names that only a type checker sees
        return None


def _dotted(section: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of the tree, with its annotation."""
    for name, kind in kinds_of(section).items():
        yield join(prefix, name), kind
        if (inner := section_of(kind)) is not None:
            yield from _dotted(inner, join(prefix, name))
