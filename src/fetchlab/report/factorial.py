"""Which of several choices mattered? Found from the configurations, whatever they are named.

Two or three choices with two values each, tried together, are a factorial design: a cell for each
combination, seeds in each cell. An effect is a difference of success rates, averaged over what the
other choices are; an interaction is how much one choice's effect depends on another. Cells are the
strata of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, product

import numpy as np

from fetchlab.report.differences import NOT_OF_A_GROUP, differing
from fetchlab.report.groups import Group
from fetchlab.statistics import bootstrap_interval

FACTORS = (2, 3)
LAST = 3  # evaluations that "at the end" averages

Cell = tuple[int, ...]  # for each factor: 0 or 1


@dataclass(frozen=True)
class Factor:
    """A choice of two.

    Args:
        keys: what it sets, dotted; several that always change together are one choice.
        values: of the first of them, with 0 and with 1.
    """

    keys: tuple[str, ...]
    values: tuple[str, str]

    def __str__(self) -> str:
        return self.keys[0]


@dataclass(frozen=True)
class Factorial:
    """A design and what is there of it.

    Args:
        factors: two or three.
        cells: of those 2 ** factors that have a run.
    """

    factors: Sequence[Factor]
    cells: Mapping[Cell, Group]

    @property
    def common_steps(self) -> np.ndarray:
        """Env steps at which every seed of every cell was evaluated."""
        return reduce(np.intersect1d, [group.common_steps for group in self.cells.values()])

    def lacks(self) -> str | None:
        """What is missing for its effects, in words; None where nothing is."""
        every = product((0, 1), repeat=len(self.factors))
        empty = [c for c in every if c not in self.cells or not self.cells[c].evaluated]
        if empty:
            return f"no evaluation of {'; '.join(map(self.name, empty))}"
        return None if len(self.common_steps) else "no evaluation that all seeds share"

    def name(self, cell: Cell) -> str:
        """A cell's values."""
        pairs = zip(self.factors, cell, strict=True)
        return ", ".join(f"{factor}={factor.values[value]}" for factor, value in pairs)


@dataclass(frozen=True)
class Effect:
    """A difference of success rates in [-2, 2], and its 95 % bootstrap interval."""

    name: str
    estimate: float
    low: float
    high: float
    of_several: bool = False

    @property
    def told(self) -> str:
        """In words, what the interval says."""
        if self.low <= 0 <= self.high:
            return "cannot be told from none"
        good, bad = "helps", "harms"
        if self.of_several:
            good, bad = "each helps the other", "they get in each other's way"
        return good if self.low > 0 else bad


def find_factorial(groups: Sequence[Group]) -> Factorial | None:
    """The design behind some configurations; None where there is none.

    At most one cell may have no run yet: with fewer, any few configurations would look like one.
    """
    if len(groups) < 3:
        return None
    rows = differing([group.runs[0].config for group in groups], NOT_OF_A_GROUP)
    split: dict[Cell, list[str]] = {}
    values: dict[Cell, tuple[str, str]] = {}
    for row in rows:
        kinds = sorted(dict.fromkeys(row.texts), key=_off_first)
        if len(kinds) != 2:
            return None
        sides = tuple(kinds.index(text) for text in row.texts)
        mirrored = tuple(1 - side for side in sides)
        sides = mirrored if mirrored in split else sides
        split.setdefault(sides, []).append(row.key)
        values.setdefault(sides, (kinds[0], kinds[1]))
    factors = [Factor(tuple(keys), values[sides]) for sides, keys in split.items()]
    if len(factors) not in FACTORS or len(groups) < 2 ** len(factors) - 1:
        return None
    cells = zip(*split, strict=True)
    return Factorial(factors, dict(zip(cells, groups, strict=True)))


def at_the_end(design: Factorial, last: int = LAST) -> dict[Cell, np.ndarray]:
    """Each seed's success, the mean of its last evaluations that all have; (seeds,) a cell."""
    steps = design.common_steps[-last:]
    return {cell: group.scores(steps).mean(axis=1) for cell, group in design.cells.items()}


def effects(design: Factorial, scores: Mapping[Cell, np.ndarray]) -> list[Effect]:
    """Main effects first, then interactions, of a design that lacks nothing."""
    cells = list(scores)
    found = []
    for size in range(1, len(design.factors) + 1):
        for chosen in combinations(range(len(design.factors)), size):
            signs = np.array([np.prod([2 * cell[i] - 1 for i in chosen]) for cell in cells])
            # A difference of the means of two halves; an interaction: of such differences.
            weights = signs / 2 ** (len(design.factors) - size)
            name = " x ".join(_choice(design.factors[i]) for i in chosen)
            one = contrast(name, [scores[cell] for cell in cells], weights)
            found.append(replace(one, of_several=size > 1))
    return found


def contrast(name: str, strata: Sequence[np.ndarray], weights: np.ndarray) -> Effect:
    """A weighted sum of the cells' means."""

    def weighted(drawn: list[np.ndarray]) -> np.ndarray:
        total: np.ndarray = sum(w * one.mean(axis=1) for w, one in zip(weights, drawn, strict=True))
        return total

    low, high = bootstrap_interval(strata, weighted)
    estimate = sum(w * one.mean() for w, one in zip(weights, strata, strict=True))
    return Effect(name, float(estimate), float(low), float(high))


def _choice(factor: Factor) -> str:
    return f"{factor} {factor.values[0]} -> {factor.values[1]}"


def _off_first(text: str) -> tuple[bool, str]:
    """``none``, ``null``, ``false`` and the like before what is switched on."""
    off = text.lower().startswith(("no", "null", "false", "identity", "-", "{}", "[]"))
    return not off, text
