"""When a run reached a success rate, in env steps and in time.

The rule, so that one lucky evaluation does not count: a level is reached at the first of two
evaluations in a row that are both at it or above. Reached at the last evaluation alone it is not
confirmed, and marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fetchlab.durations import format_duration
from fetchlab.report.differences import ABSENT
from fetchlab.report.runs import StoredRun

LEVELS = (0.5, 0.8, 0.9, 0.95)
UNCONFIRMED = "?"
RULE = (
    "A level is reached at the first of two evaluations in a row that are both at it or above, so "
    f"that one lucky evaluation does not count; {UNCONFIRMED} marks what the last evaluation alone "
    "has reached."
)


class Reached(NamedTuple):
    """When, and whether a second evaluation confirms it."""

    env_steps: int
    seconds: float  # NaN where it is not known
    confirmed: bool


def reached(run: StoredRun, level: float) -> Reached | None:
    """When a run reached a level; None: not yet."""
    above = run.success >= level
    twice = np.flatnonzero(above[:-1] & above[1:])
    if len(twice):
        index, confirmed = int(twice[0]), True
    elif len(above) and above[-1]:
        index, confirmed = len(above) - 1, False
    else:
        return None
    step = int(run.steps[index])
    return Reached(step, float(run.seconds_at(step)), confirmed)


def cell(runs: Sequence[StoredRun], level: float) -> str:
    """A table's cell: of several seeds the earliest and the latest, and how many came there."""
    found = [one for one in (reached(run, level) for run in runs) if one is not None]
    if not found:
        return ABSENT
    first, last = min(found), max(found)
    text = _one(first) if len(found) == 1 else f"{_one(first)} to {_one(last)}"
    return text if len(found) == len(runs) else f"{text} ({len(found)} of {len(runs)} seeds)"


def _one(one: Reached) -> str:
    mark = "" if one.confirmed else UNCONFIRMED
    known = not np.isnan(one.seconds)
    return f"{one.env_steps:,}{mark}" + (f" ({format_duration(one.seconds)})" if known else "")
