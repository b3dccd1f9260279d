"""The tables of a report, as text in cells: the page and the Markdown show the same ones."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fetchlab.durations import format_duration
from fetchlab.report import verdict
from fetchlab.report.differences import ABSENT, NOT_OF_A_GROUP, Row, differing
from fetchlab.report.factorial import Cell, Effect, Factorial
from fetchlab.report.groups import Group
from fetchlab.report.levels import LEVELS, RULE, cell
from fetchlab.report.runs import StoredRun
from fetchlab.report.study import points
from fetchlab.statistics import bootstrap_interval


@dataclass(frozen=True)
class Table:
    """A title, names of columns, rows of as many cells, and what to know about them."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def of_groups(groups: Sequence[Group]) -> Table:
    """One row a configuration: how well it does, and how fast it runs."""
    rows = []
    for group in groups:
        curve, text, at = group.curve(), ABSENT, ABSENT
        if len(curve.steps):
            ends = (float(one[-1]) for one in (curve.centre, curve.low, curve.high))
            text, at = verdict.percent_with_interval(*ends), f"{int(curve.steps[-1]):,}"
        hours = [float(run.seconds[-1]) for run in group.runs if len(run.seconds)]
        time = _range(sorted(hours), format_duration)
        speed = _range(sorted(map(verdict.speed, group.runs)), lambda rate: f"{rate:,.0f}")
        seeds = ", ".join(str(run.seed) for run in group.runs)
        rows.append([group.label, seeds, text, at, time, speed])
    header = ["configuration", "seeds", "success (95 % interval)", "at env steps", "time"]
    header += ["env steps/s"]
    bands = dict.fromkeys(group.centre_and_band() for group in groups)
    note = (
        f"Success at the last evaluation that all seeds share: {'; '.join(bands)}. With fewer than "
        "five seeds a bootstrap interval is little more than their range. Time and speed include "
        "evaluations."
    )
    return Table("Results", header, rows, note)


def of_levels(groups: Sequence[Group]) -> Table:
    """One row a configuration: how soon it got how far."""
    header = ("configuration", *(f"{100 * level:.0f} % success" for level in LEVELS))
    rows = [[group.label, *(cell(group.runs, level) for level in LEVELS)] for group in groups]
    note = f"Env steps and time to a success rate. {RULE} Of several seeds the first and the last."
    return Table("How soon", header, rows, note)


def of_runs(groups: Sequence[Group]) -> Table:
    """One row a run."""
    rows = [
        [
            group.label,
            str(run.seed),
            run.status,
            f"{run.env_steps:,}",
            format_duration(float(run.seconds[-1])) if len(run.seconds) else ABSENT,
            verdict.success(run),
            verdict.told(run),
            str(run.summary.get("device", ABSENT)),
            str(run.folder),
        ]
        for group in groups
        for run in group.runs
    ]
    header = ["configuration", "seed", "status", "env steps", "time", "success (95 % interval)"]
    header += ["phases", "device", "folder"]
    note = (
        "Success of the last evaluation, with Wilson's interval of its episodes. An unfinished run "
        "has no summary for its last steps: it is still running, or was cut off."
    )
    return Table("Runs", header, rows, note)


def of_differences(groups: Sequence[Group]) -> Table | None:
    """Only what differs between the configurations; None of a single one."""
    rows = differing([group.runs[0].config for group in groups], NOT_OF_A_GROUP)
    return of_keys("What differs", groups, rows)


def of_keys(title: str, groups: Sequence[Group], rows: Sequence[Row]) -> Table | None:
    """A row for each key, a column for each configuration; None without rows."""
    if not rows:
        return None
    header = ("key", *(group.label for group in groups))
    return Table(title, header, [[row.key, *row.texts] for row in rows])


def of_cells(
    design: Factorial, scores: Mapping[Cell, np.ndarray], letters: Mapping[str, Cell]
) -> Table:
    """One row a cell of a factorial: its letter or name, its values, what its seeds came to."""
    named = {cell: letter for letter, cell in letters.items()}
    rows = []
    for place in sorted(design.cells, key=lambda one: (named.get(one, ""), one)):
        seeds = scores[place]
        ends = bootstrap_interval([seeds], lambda drawn: drawn[0].mean(axis=1))
        mean = verdict.percent_with_interval(float(seeds.mean()), *map(float, ends))
        values = [factor.values[side] for factor, side in zip(design.factors, place, strict=True)]
        name = named.get(place, design.cells[place].label)
        rows.append([name, *values, str(len(seeds)), mean])
    header = ("cell", *map(str, design.factors), "seeds", "mean success at the end")
    return Table("Cells", header, rows)


def of_effects(title: str, found: Sequence[Effect], note: str) -> Table:
    """One row an effect."""
    rows = [
        [one.name, points(one.estimate), f"{points(one.low)} to {points(one.high)}", one.told]
        for one in found
    ]
    header = ("effect", "points of success", "95 % interval", "in words")
    return Table(title, header, rows, note)


def watch_command(run: StoredRun) -> str:
    """How to see a run's policy play."""
    return f"python src/evaluate.py run={shlex.quote(str(run.folder))} video=true"


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """The lowest and the highest of sorted values that are known."""
    texts = [shown(value) for value in values if np.isfinite(value)]
    return " to ".join(dict.fromkeys((texts[0], texts[-1]))) if texts else ABSENT
