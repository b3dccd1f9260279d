"""How much hindsight: the k of HER (arXiv 1707.01495), fixed or a line over env steps.

The paper stores k relabelled copies of each transition. Relabelling at sampling time reaches the
same mix by giving a share k / (k + 1) of the samples a new goal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fetchlab.types import require

_LINE = ("from", "to", "over_env_steps")


class HindsightRatio:
    """Relabelled samples for each sample that keeps its goal.

    Args:
        k: a number > 0; or a mapping of ``from`` and ``to``, different numbers >= 0, and
            ``over_env_steps``, a whole number > 0: k moves from one to the other on a straight
            line over that many env steps, and stays there.

    Raises:
        ConfigError: k is neither.
    """

    def __init__(self, k: float | Mapping[str, Any]) -> None:
        if isinstance(k, Mapping):
            _check_line(k)
            self._first, self._last, self._steps = (k[key] for key in _LINE)
        else:
            _check_number(k)
            self._first, self._last, self._steps = k, k, 1

    def share(self, env_steps: int) -> float:
        """The share k / (k + 1) of samples to relabel, in [0, 1), after ``env_steps``."""
        done = min(env_steps / self._steps, 1.0)
        k = self._first + (self._last - self._first) * done
        return k / (k + 1)


def _check_number(k: Any) -> None:
    require(
        _finite(k) and k > 0,
        "relabel.k",
        k,
        f"a positive number, or a mapping of {', '.join(_LINE)}",
        "the study used 4 and 8; relabel=none switches relabelling off",
    )


def _check_line(k: Mapping[str, Any]) -> None:
    keys = set(k)
    require(
        keys == set(_LINE),
        "relabel.k",
        dict(k),
        f"exactly the keys {', '.join(_LINE)}",
        "for example algo.her_k={from:8,to:1,over_env_steps:500000}",
    )
    first, last, steps = (k[key] for key in _LINE)
    for key, value in (("from", first), ("to", last)):
        require(
            _finite(value) and value >= 0, f"relabel.k.{key}", value, "a number from 0", "try 4"
        )
    require(
        first != last, "relabel.k.to", last, "another number than from", "give the number alone"
    )
    whole = isinstance(steps, int) and not isinstance(steps, bool)
    require(
        whole and steps > 0,
        "relabel.k.over_env_steps",
        steps,
        "a positive whole number",
        "total_env_steps is the longest line that is walked to its end",
    )


def _finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)
