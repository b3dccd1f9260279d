"""What a run shows, in one sentence."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import numpy as np

from fetchlab.report.groups import Group
from fetchlab.report.levels import reached
from fetchlab.report.phases import chance_level, read_phases
from fetchlab.report.runs import LOSS, UNFINISHED, StoredRun
from fetchlab.statistics import wilson_interval

#: A run that levels off below has learned part of its task.
LEARNED = 0.8
NOTHING = "nothing to judge"
#: What a phase is called where several seeds are counted.
COUNTED = {
    "converged": "converged",
    "climb": "climbing",
    "flat": "still at chance",
    "collapsed": "collapsed",
}


def phases_of(run: StoredRun) -> list[str]:
    """One word for each of its evaluations: flat, climb, converged or collapsed."""
    task, loss = run.config.get("task") or {}, run.at_evaluations(LOSS).tolist()
    chance = chance_level(str(task.get("env_id")), int(task.get("max_episode_steps") or 0))
    return read_phases(run.success.tolist(), run.episodes.tolist(), loss, chance=chance)


def told(run: StoredRun) -> str:
    """A run's phases in a table's cell, each with the env steps at which it was first seen."""
    stretches = groupby(zip(phases_of(run), run.steps, strict=True), lambda one: one[0])
    first, *later = [next(stretch) for _, stretch in stretches] or [("-", 0)]
    return ", ".join([first[0], *(f"{phase} from {step:,}" for phase, step in later)])


def success(run: StoredRun) -> str:
    """A run's last success rate with its interval, in a table's cell."""
    return percent_with_interval(float(run.success[-1]), *ends(run)) if len(run.steps) else "-"


def ends(run: StoredRun) -> tuple[float, float]:
    """95 % interval of a run's last evaluation."""
    return wilson_interval(round(run.success[-1] * run.episodes[-1]), int(run.episodes[-1]))


def percent(rate: float) -> str:
    """A rate, with a digit where a whole number would say all or nothing of it."""
    digits = 0 if rate in (0, 1) or 0.01 <= rate < 0.995 else 1
    return f"{100 * rate:.{digits}f} %"


def percent_with_interval(rate: float, low: float, high: float) -> str:
    """A rate and the interval around it."""
    return f"{percent(rate)} ({span(low, high)})"


def span(low: float, high: float) -> str:
    """The ends of an interval."""
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def of_run(run: StoredRun) -> str:
    """The verdict on one run."""
    if not len(run.steps):
        return f"{NOTHING}: no evaluation in {run.env_steps:,} env steps{_unfinished(run)}"
    rate, phase, (low, high) = float(run.success[-1]), phases_of(run)[-1], ends(run)
    half = reached(run, 0.5)
    began = ""
    if half is not None and half.confirmed and half.env_steps < run.steps[-1]:
        began = f", above 50 % since {half.env_steps:,}"
    after = {
        "converged": f", converged{began}",
        "climb": f", not yet converged{began}",
        "flat": "",
        "collapsed": f", after {percent(float(run.success.max()))} at its best",
    }[phase]
    interval = f"95 % interval {span(low, high)}, {run.episodes[-1]} episodes"
    return (
        f"{_word(phase, rate)}: {percent(rate)} at {int(run.steps[-1]):,} env steps{after} "
        f"({interval}){_unfinished(run)}"
    )


def of_group(group: Group) -> str:
    """The verdict on one configuration, from all of its seeds."""
    if len(group.runs) == 1:
        return of_run(group.runs[0])
    runs, curve = group.evaluated, group.curve()
    if not len(curve.steps):
        return f"{NOTHING}: no evaluation that its {len(group.runs)} seeds share"
    last = Counter(phases_of(run)[-1] for run in runs)
    rate, low, high = (float(one[-1]) for one in (curve.centre, curve.low, curve.high))
    word = _word(next(iter(last)), rate) if len(last) == 1 else _of_several({*last}, rate)
    each = [f"{words} in {last[phase]}" for phase, words in COUNTED.items() if last[phase]]
    counted = ", ".join(each) if len(last) > 1 or last["converged"] else f"in {len(runs)}"
    late, unfinished = len(group.runs) - len(runs), [r.status for r in group.runs].count(UNFINISHED)
    more = [f"{late} more without an evaluation"] * bool(late)
    more += [f"{unfinished} still running or cut off"] * bool(unfinished)
    text = (
        f"{word}: {percent(rate)} at {int(curve.steps[-1]):,} env steps, {counted} of "
        f"{len(runs)} seeds ({group.centre_and_band()} {span(low, high)})"
    )
    return "; ".join([text, *more])


def _word(phase: str, rate: float) -> str:
    learned = "learned" if rate >= LEARNED else "levelled off"
    return learned if phase == "converged" else COUNTED[phase]


def _of_several(phases: set[str], rate: float) -> str:
    """Of seeds in different phases: whether all are on their way is what tells them apart."""
    if phases <= {"climb", "converged"}:
        return "learned" if rate >= LEARNED else COUNTED["climb"]
    return "seeds disagree"


def _unfinished(run: StoredRun) -> str:
    asked = run.config.get("total_env_steps")
    of = f"{run.env_steps:,} of {asked:,}" if isinstance(asked, int) else f"{run.env_steps:,}"
    reason = run.summary.get("stop_reason")
    return {
        "finished": "",
        UNFINISHED: f" (still running or cut off, {of} env steps)",
        "stopped": f" (stopped by {reason}, {of} env steps)",
    }.get(run.status, f" ({run.status}, {of} env steps)")


def speed(run: StoredRun) -> float:
    """Env steps a second over all its rows, evaluations included; NaN where none is logged."""
    return float(run.env_steps / run.seconds[-1]) if len(run.seconds) else float(np.nan)
