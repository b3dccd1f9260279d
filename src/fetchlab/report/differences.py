"""Only what differs between configurations, one row a choice: a swap-in is one, with its class."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: What the seeds of a configuration may differ in: its name, where it ran, what it is held against.
NOT_OF_A_GROUP = (
    *("seed", "run_dir", "total_env_steps", "trusted_modules", "experiment"),
    *("collect.workers", "trainer.accelerator", "trainer.threads"),
    *("callbacks.milestones", "callbacks.milestones_of"),
)
TARGET, SILENT = "_target_", ("_target_", "_partial_")
ABSENT = "-"
_MISSING = object()


@dataclass(frozen=True)
class Row:
    """A dotted key, and what each configuration has there."""

    key: str
    texts: tuple[str, ...]


def differing(configs: Sequence[Mapping[str, Any]], ignore: Container[str] = ()) -> list[Row]:
    """The rows in which some of the configurations differ, sorted as the first has its keys.

    Args:
        configs: plain.
        ignore: dotted keys to leave out.
    """
    names = dict.fromkeys(name for config in configs for name in config)
    rows = []
    for name in names:
        rows += _rows(name, [config.get(name, _MISSING) for config in configs], ignore)
    return rows


def decisive(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what its seeds may differ in, but for its name."""
    return {
        name: {one: two for one, two in value.items() if f"{name}.{one}" not in NOT_OF_A_GROUP}
        if isinstance(value, Mapping)
        else value
        for name, value in config.items()
        if name == "experiment" or name not in NOT_OF_A_GROUP
    }


def short(key: str) -> str:
    """The last part of a dotted key."""
    return key.rpartition(".")[2]


def _rows(key: str, values: list[Any], ignore: Container[str]) -> list[Row]:
    if key in ignore or all(_same(value, values[0]) for value in values):
        return []
    alike = all(isinstance(value, Mapping) for value in values)
    if not alike or len({str(value.get(TARGET)) for value in values}) > 1:
        return [Row(key, tuple(_text(value, values) for value in values))]
    names = dict.fromkeys(name for value in values for name in value)
    return [
        row
        for name in names
        for row in _rows(f"{key}.{name}", [value.get(name, _MISSING) for value in values], ignore)
    ]


def _text(value: Any, beside: Sequence[Any]) -> str:
    """A value in a cell; of a mapping its class, and what classes share and differ in.

    Args:
        value: one configuration's.
        beside: all configurations', this one's too.
    """
    if value is _MISSING:
        return ABSENT
    if not isinstance(value, Mapping):
        return plain(value)
    arguments = [name for name in value if name not in SILENT and not _agree(name, beside)]
    own = [f"{name}={_text(value[name], [])}" for name in arguments]
    return short(str(value.get(TARGET, "set"))) + (f"({', '.join(own)})" if own else "")


def _agree(name: str, beside: Sequence[Any]) -> bool:
    """Whether all mappings that have a key have the same value there."""
    found = [one[name] for one in beside if isinstance(one, Mapping) and name in one]
    return all(_same(one, found[0]) for one in found)


def plain(value: Any) -> str:
    """A value nearly as the command line has it."""
    if isinstance(value, list):
        return f"[{', '.join(plain(item) for item in value)}]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)
