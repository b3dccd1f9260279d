"""What both entries share: ``key=value`` arguments that have types, and how a command ends.

A new run's arguments are Hydra's. These are the few of ``resume=`` and of an evaluation, whose
configuration is the run's own.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fetchlab.errors import ConfigError, RunFailedError, require

Result = TypeVar("Result")
#: ``(key, text) -> value``, or a ConfigError.
Reader = Callable[[str, str], Any]
INTERRUPTED = 130


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


def asks_for_help(args: Sequence[str]) -> bool:
    """Whether the command line asks how to use it."""
    return any(arg in ("-h", "--help") for arg in args)


def read_arguments(args: Sequence[str], readers: Mapping[str, Reader]) -> dict[str, Any]:
    """The values given on a command line.

    Args:
        args: each ``key=value``.
        readers: of every key there is, the one that is always given first.

    Raises:
        ConfigError: no ``=``, an unknown key, a key given twice, or a value of another type.
    """
    given: dict[str, Any] = {}
    first, *more = readers
    known = f"only {', '.join(more[:-1])} and {more[-1]} beside {first}"
    for arg in args:
        key, equals, text = arg.partition("=")
        require(bool(equals), "argument", arg, "KEY=VALUE", "--help has examples")
        require(key in readers, key, text, known, "correct it; --help has examples")
        require(key not in given, key, text, "each key once", "leave one of them out")
        given[key] = readers[key](key, text)
    return given


def boolean(key: str, text: str) -> bool:
    """``true`` or ``false`` in any capitals."""
    value = {"true": True, "false": False}.get(text.lower())
    if value is None:
        raise ConfigError(key, text, "true or false", f"e.g. {key}=true")
    return value


def whole_number(key: str, text: str) -> int:
    """A whole number from 0, ``1_000_000`` too."""
    value = _digits(text)
    if value is None:
        raise ConfigError(key, text, "a whole number from 0", f"e.g. {key}=1")
    return value


def positive(key: str, text: str) -> int:
    """A whole number from 1."""
    value = _digits(text)
    if not value:
        raise ConfigError(key, text, "a positive whole number", f"e.g. {key}=1_000")
    return value


def count_or_null(key: str, text: str) -> int | None:
    """A whole number from 1, or ``null``."""
    return None if text.lower() == "null" else positive(key, text)


def number(key: str, text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    require(0 < value < math.inf, key, text, "a number above 0", f"e.g. {key}=0.5")
    return value


def words(key: str, text: str) -> str:
    """Any text but none."""
    require(bool(text.strip()), key, text, "a value", f"write it behind {key}=, or leave {key} out")
    return text


def path(key: str, text: str) -> Path:
    """A path, which an empty text is not: it would mean the working folder."""
    return Path(words(key, text))


def modules(key: str, text: str) -> list[str]:
    """Names of modules: ``[a,b.c]``, ``a,b.c`` or ``[]``."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    names = [name.strip() for name in inside.split(",")] if inside.strip() else []
    fits = all(all(part.isidentifier() for part in name.split(".")) for name in names)
    require(fits, key, text, "names of Python modules", f"e.g. {key}=[my_package]")
    return names


def _digits(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9](_?[0-9]){0,11}", text) else None
