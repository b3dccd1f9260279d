"""What one field of the configuration may hold, and how a message says so.

The annotation says it: ``Annotated[int, Min(1)]``, ``Literal[...]``, ``list[...]``,
``... | None``, another dataclass, or `Target`. Notes beside it are bounds, a `Hint`, and what a
`Target` is given (`Supplied`). A swap-in's constructor may annotate its arguments in the same way.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from functools import partial, reduce
from types import GenericAlias, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

#: What an experiment, sweep or debug file lacks that landed under its group's name.
GLOBAL = "begin its YAML with the line '# @package _global_'"


@dataclass(frozen=True)
class Bound:
    """A range: ``holds(value, bound)``."""

    words: str
    holds: Callable[[Any, Any], bool]
    bound: float


Min = partial(Bound, "at least", operator.ge)
Max = partial(Bound, "at most", operator.le)
Above = partial(Bound, "above", operator.gt)
Below = partial(Bound, "below", operator.lt)
Length = partial(Bound, "as many as", lambda value, length: len(value) == length)


@dataclass(frozen=True)
class Hint:
    """What a message advises, and what it says instead of the type and the bounds."""

    remedy: str
    expected: str = ""


class Target(Mapping[str, Any]):
    """A node with ``_target_``; its other keys are arguments of what that names."""


@dataclass(frozen=True, kw_only=True)
class OpenSection:
    """A section that has fields and names a constructor, too, which takes all its other keys.

    Args:
        target: the constructor's own node: ``_target_``, its keys, and the fields that it asks for.
    """

    target: Mapping[str, Any]


@dataclass(frozen=True)
class Supplied:
    """Arguments that the project itself gives to a `Target`, which is therefore ``_partial_``.

    Of an `OpenSection`, whose node becomes partial by itself, it is not asked.

    Args:
        names: by keyword.
        first: one more, by position.
        asked: by keyword, to a constructor that asks for it.
    """

    names: tuple[str, ...] = ()
    first: bool = False
    asked: tuple[str, ...] = ()


def unwrap(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """An annotation's type, and the notes beside it."""
    base, *notes = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    return base, tuple(notes)


def members(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union; a type that is none is its own."""
    base, _ = unwrap(kind)
    return get_args(base) if get_origin(base) in (Union, UnionType) else (base,)


def section_of(kind: Any) -> Any:
    """The dataclass among the alternatives, or None."""
    return next((one for one in members(kind) if is_dataclass(one)), None)


def is_open(section: Any) -> bool:
    """Whether it names a constructor, too."""
    return issubclass(section, OpenSection)


def kinds_of(section: Any) -> dict[str, Any]:
    """The annotations of a section's fields."""
    kinds = get_type_hints(section, include_extras=True)
    return {name: kind for name, kind in kinds.items() if name != "target" or not is_open(section)}


def named_of(kind: Any) -> Any:
    """What a mapping by names holds; None of all else."""
    base, _ = unwrap(kind)
    return get_args(base)[1] if get_origin(base) is dict else None


def checkable(kind: Any) -> Any:
    """A constructor's annotation in terms of plain values; None for what only it can check."""
    base, notes = unwrap(kind)
    origin, inner = get_origin(base), get_args(base)
    plain: Any = None
    if base in (int, float, bool, str, NoneType) or origin is Literal:
        plain = base
    elif base in (list, tuple) or origin in (list, tuple, Sequence):
        # Of a tuple the first: YAML has lists alone, and those here have items of one type.
        item: Any = checkable(inner[0]) if inner else Any
        plain = None if item is None else GenericAlias(list, (item,))
    elif origin is dict:
        item = checkable(inner[1])
        plain = None if item is None else GenericAlias(dict, (str, item))
    elif origin is partial:
        plain, notes = Target, (*notes, Supplied(first=True))  # an optimizer, of parameters
    elif origin in (Union, UnionType):
        parts = [checkable(one) for one in inner]
        plain = None if None in parts else reduce(operator.or_, parts)
    return plain if plain is None or not notes else Annotated[(plain, *notes)]


def may_be_absent(kind: Any) -> bool:
    """A swap-in that may be null may be left out: ``override /encoder: null`` leaves no key."""
    return {Target, NoneType} <= set(members(kind))


def fits(value: Any, kind: Any) -> bool:
    """Whether a plain value is of the type and within the bounds; for what is no section."""
    base, notes = unwrap(kind)
    bounds = [note for note in notes if isinstance(note, Bound)]
    return _is(value, base) and all(note.holds(value, note.bound) for note in bounds)


def words(kind: Any) -> str:
    """What a message expects."""
    base, notes = unwrap(kind)
    said = [note.expected for note in notes if isinstance(note, Hint) and note.expected]
    bounds = [f"{note.words} {note.bound}" for note in notes if isinstance(note, Bound)]
    if said:
        return said[0]
    if base is int and bounds == ["at least 1"]:
        return "a positive whole number"
    if base is float and bounds == ["above 0"]:
        return "a positive number"
    return f"{' and '.join(bounds)}, {_word(base)}" if bounds else _word(base)


def remedy(kind: Any, key: str) -> str:
    """The annotation's `Hint`, or where the defaults are."""
    hints = [note.remedy for note in unwrap(kind)[1] if isinstance(note, Hint)]
    section = key.partition(".")[0] if "." in key else "train.yaml"
    return hints[0] if hints else f"see configs/{section}"


def _is(value: Any, base: Any) -> bool:
    origin, inner = get_origin(base), get_args(base)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(one, inner[1]) for one in value.values())
    if base in (int, float):
        return isinstance(value, (int, base)) and not isinstance(value, bool) and _finite(value)
    if base is str:
        return isinstance(value, str) and bool(value.strip())
    return base is Any or (isinstance(base, type) and isinstance(value, base))


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _word(base: Any) -> str:
    origin, inner = get_origin(base), get_args(base)
    if origin in (Union, UnionType):
        null_first = sorted(inner, key=lambda one: one is not NoneType)
        return " or ".join(words(one) for one in null_first)
    if origin is Literal:
        return f"one of {', '.join(inner)}"
    if origin is list:
        return f"a list, each {words(inner[0])}"
    if is_dataclass(base):
        return f"the keys {', '.join(kinds_of(base))}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return {**plain, NoneType: "null", Target: "a mapping with a _target_"}.get(base, "a mapping")
