"""A number, or a straight line over env steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fetchlab.errors import require

_LINE = ("from", "to", "over_env_steps")


class Schedule:
    """``value`` itself, or from one number to another over so many env steps, and then that.

    Args:
        key: of the configuration, for messages.
        value: a number >= 0; or a mapping of ``from`` and ``to``, different numbers >= 0, and
            ``over_env_steps``, a whole number > 0.

    Raises:
        ConfigError: value is neither.
    """

    def __init__(self, key: str, value: float | Mapping[str, Any]) -> None:
        if isinstance(value, Mapping):
            _check_line(key, value)
            self._first, self._last, self._steps = (value[name] for name in _LINE)
        else:
            expected = f"a number from 0, or a mapping of {', '.join(_LINE)}"
            require(_from_0(value), key, value, expected, f"for example {key}=0.2")
            self._first, self._last, self._steps = value, value, 1

    def at(self, env_steps: int) -> float:
        """The value after ``env_steps``."""
        done = min(env_steps / self._steps, 1.0)
        return self._first + (self._last - self._first) * done


def _check_line(key: str, line: Mapping[str, Any]) -> None:
    example = f"for example '{key}={{from:8,to:1,over_env_steps:500000}}'"
    expected = f"exactly the keys {', '.join(_LINE)}"
    require(set(line) == set(_LINE), key, dict(line), expected, example)
    first, last, steps = (line[name] for name in _LINE)
    for name, value in (("from", first), ("to", last)):
        require(_from_0(value), f"{key}.{name}", value, "a number from 0", example)
    remedy = "give the number alone"
    require(first != last, f"{key}.to", last, "another number than from", remedy)
    whole = isinstance(steps, int) and not isinstance(steps, bool)
    remedy = "total_env_steps is the longest line that is walked to its end"
    expected = "a positive whole number"
    require(whole and steps > 0, f"{key}.over_env_steps", steps, expected, remedy)


def _from_0(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0
