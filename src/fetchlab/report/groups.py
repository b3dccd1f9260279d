"""Configurations: the seeds of each, its name, and its curve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from fetchlab.report.differences import NOT_OF_A_GROUP, differing, short
from fetchlab.report.runs import StoredRun
from fetchlab.statistics import SEEDS_TO_TRIM, bootstrap_interval, iqm, score_interval

NAMED_KEYS = 2  # in a label


@dataclass(frozen=True)
class Curve:
    """Success over env steps and wall time; all (T,)."""

    steps: np.ndarray
    seconds: np.ndarray  # the seeds' mean; NaN where it is not known
    centre: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Group:
    """The runs of one configuration, by seed, and the name that it has in this report."""

    label: str
    runs: Sequence[StoredRun]

    @property
    def evaluated(self) -> list[StoredRun]:
        """Those with an evaluation."""
        return [run for run in self.runs if len(run.steps)]

    @property
    def common_steps(self) -> np.ndarray:
        """Env steps at which all that are evaluated have an evaluation."""
        steps = [run.steps for run in self.evaluated]
        return reduce(np.intersect1d, steps) if steps else np.empty(0, int)

    def scores(self, steps: np.ndarray) -> np.ndarray:
        """Success rates at ``steps``, some of `common_steps`; (seeds, T)."""
        rows = [run.success[np.searchsorted(run.steps, steps)] for run in self.evaluated]
        return np.array(rows).reshape(len(rows), len(steps))

    def curve(self) -> Curve:
        """IQM over seeds with its bootstrap band; of one seed the band is its episodes' (Wilson).

        It ends where the shortest of its runs does: a mean that loses a seed on its way jumps.
        """
        steps, runs = self.common_steps, self.evaluated
        scores = self.scores(steps)
        seconds = [run.seconds_at(steps) for run in runs]
        if len(runs) == 1:
            (run,) = runs
            ends = [score_interval(*one) for one in zip(run.success, run.episodes, strict=True)]
            low, high = np.array(ends).T
        elif runs:
            low, high = bootstrap_interval([scores], lambda drawn: iqm(drawn[0], axis=1))
        else:
            low = high = np.empty(0)
        centre = iqm(scores, axis=0) if runs else np.empty(0)
        return Curve(steps, np.mean(seconds, axis=0) if runs else np.empty(0), centre, low, high)

    def centre_and_band(self) -> str:
        """What `curve` draws, in words."""
        seeds = len(self.evaluated)
        if seeds < 2:
            return "one seed, 95 % interval of its episodes"
        centre = "mean" if seeds < SEEDS_TO_TRIM else "interquartile mean"
        return f"{centre} of {seeds} seeds, 95 % bootstrap interval"


def one_of_each_seed(runs: Sequence[StoredRun]) -> tuple[list[StoredRun], list[str]]:
    """Of each configuration and seed the run that went furthest, and a line for each left out.

    A copy of a run is no second seed.
    """
    furthest: dict[tuple[str, int], StoredRun] = {}
    for run in runs:
        of = run.identity, run.seed
        furthest[of] = max(furthest.get(of, run), run, key=lambda one: one.env_steps)
    kept, lines = [], []
    for run in runs:
        other = furthest[run.identity, run.seed]
        if other is run:
            kept.append(run)
        else:
            says = f"has its configuration and seed, and {other.env_steps:,} env steps"
            lines.append(
                f"left out: {run.folder}, {run.env_steps:,} env steps: {other.folder} {says}"
            )
    return kept, lines


def group_runs(runs: Sequence[StoredRun]) -> list[Group]:
    """One group for each configuration, in the order of their experiments' names."""
    by_identity: dict[str, list[StoredRun]] = {}
    for run in sorted(runs, key=lambda run: (run.experiment, run.identity, run.seed)):
        by_identity.setdefault(run.identity, []).append(run)
    labels = _labels([one[0] for one in by_identity.values()])
    return [Group(*one) for one in zip(labels, by_identity.values(), strict=True)]


def each_alone(runs: Sequence[StoredRun]) -> list[Group]:
    """A group for each run, in their order, whatever they share."""
    names = [f"{run.experiment} seed {run.seed}" for run in runs]
    if len({*names}) < len(names):
        names = [f"{name}, {run.folder.name}" for name, run in zip(names, runs, strict=True)]
    if len({*names}) < len(names):
        names = [f"{chr(ord('A') + index)}: {name}" for index, name in enumerate(names)]
    return [Group(name, [run]) for name, run in zip(names, runs, strict=True)]


def _labels(firsts: Sequence[StoredRun]) -> list[str]:
    """The experiment's name, and where several share it what tells them apart."""
    counted, labels = Counter(run.experiment for run in firsts), []
    for run in firsts:
        label = run.experiment
        alike = [one for one in firsts if one.experiment == label]
        if counted[label] > 1:
            rows = differing([one.config for one in alike], NOT_OF_A_GROUP)
            told = [f"{short(row.key)}={row.texts[alike.index(run)]}" for row in rows[:NAMED_KEYS]]
            label = " ".join([label, *told])
        labels.append(label)
    again = Counter(labels)
    return [
        f"{label} ({run.identity})" if again[label] > 1 else label
        for label, run in zip(labels, firsts, strict=True)
    ]
