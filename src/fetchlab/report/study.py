"""The study's 2x2, DrQ's random shift x SpatialSoftmax, and which row of its table data support.

"What the factorial reveals": four cells, and for each pattern of better (>>) and alike (~) its
conclusion. Two cells are *alike* where the whole bootstrap interval of their difference lies
within `MARGIN`, one is *better* where the whole interval lies above it; all else is open. A row is
supported where all its relations hold, and excluded where one of them is refuted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fetchlab.report.factorial import Cell, Effect, Factor, Factorial, contrast
from fetchlab.report.verdict import phases_of

#: What the study's own flat curves move by: 3 to 11 % around a mean of 6 %, at most 10 with peaks.
MARGIN = 0.10
MIN_SEEDS = 3
SHIFT, SOFTMAX = "RandomShift", "SpatialSoftmax"
#: By (random shift, SpatialSoftmax).
LETTERS = {(0, 1): "A", (0, 0): "B", (1, 0): "C", (1, 1): "D"}


@dataclass(frozen=True)
class Pattern:
    """A row of the table: cells from best to worst; those within one text are alike."""

    levels: tuple[str, ...]
    conclusion: str

    def __str__(self) -> str:
        return " >> ".join(" ~ ".join(level) for level in self.levels)


TABLE = (
    Pattern(("A", "BCD"), "SpatialSoftmax needs clean coordinates (DrQ kills it)"),
    Pattern(
        ("B", "ACD"),
        "neither DrQ nor SpatialSoftmax alone works; flat features without augmentation do",
    ),
    Pattern(("AB", "CD"), "DrQ is the poison, whatever the pooling"),
    Pattern(("C", "ABD"), "SpatialSoftmax is the poison, whatever the augmentation"),
)
ALL_FLAT = Pattern(("ABCD",), "all flat: the problem is not DrQ and SpatialSoftmax")


def lettered(design: Factorial) -> dict[str, Cell] | None:
    """The study's letters of a design's cells; None where it asks something else."""
    if len(design.factors) != 2:
        return None
    places = [[_side(factor, name) for factor in design.factors] for name in (SHIFT, SOFTMAX)]
    found = {}
    for cell in ((0, 0), (0, 1), (1, 0), (1, 1)):
        on = []
        for sides in places:
            indices = [index for index, side in enumerate(sides) if side is not None]
            if len(indices) != 1:
                return None
            on.append(int(cell[indices[0]] == sides[indices[0]]))
        found[LETTERS[on[0], on[1]]] = cell
    return dict(sorted(found.items())) if len(found) == 4 else None


def judged(
    design: Factorial, letters: Mapping[str, Cell], scores: Mapping[Cell, np.ndarray]
) -> list[str]:
    """Sentences: which row the data support, or that they do not suffice, and why.

    ``design`` lacks nothing; the scores are its seeds' success, (seeds,) a cell.
    """
    by_letter = {letter: scores[cell] for letter, cell in letters.items()}
    flat = all(
        phases_of(run)[-1] == "flat" for group in design.cells.values() for run in group.evaluated
    )
    means = {letter: float(one.mean()) for letter, one in by_letter.items()}
    rows = [*TABLE, *([ALL_FLAT] if flat else [])]
    few = min(len(one) for one in by_letter.values())
    if few < MIN_SEEDS:
        return [
            f"The data do not suffice: {few} seed{'s' * (few > 1)} in the smallest cell, and seeds "
            f"differ by more than most choices; {MIN_SEEDS} are the least that is judged here.",
            f"The means alone look like {_of_means(means, rows)}; that is no evidence.",
        ]
    differences = _differences(by_letter)
    if held := _supported(rows, differences):
        return [f"The data support {held}: {held.conclusion}."]
    open_rows = [
        row for row in rows if not any(_refuted(*one) for one in _relations(row, differences))
    ]
    if not open_rows:
        return [
            f"The data support no row of the table; the means are {_listed(means)}.",
            "Read the effects above: they say what the choices did.",
        ]
    undecided = [
        one for one in differences.values() if not any(_holds(says, one) for says in (-1, 0, 1))
    ]
    still = " or ".join(f"{row} ({row.conclusion})" for row in open_rows)
    return [
        f"The data do not suffice: still possible is {still}.",
        f"Undecided: {'; '.join(map(_shown, undecided))}.",
    ]


def _side(factor: Factor, name: str) -> int | None:
    """The value of a factor that starts with a class's name; None where none or both do."""
    sides = [index for index, value in enumerate(factor.values) if value.startswith(name)]
    return sides[0] if len(sides) == 1 else None


def _differences(by_letter: Mapping[str, np.ndarray]) -> dict[tuple[str, str], Effect]:
    """First minus second, for each pair in alphabetical order."""
    one_less = np.array([1.0, -1.0])
    return {
        (a, b): contrast(f"{a} - {b}", [by_letter[a], by_letter[b]], one_less)
        for a, b in combinations(by_letter, 2)
    }


def _relations(
    row: Pattern, differences: Mapping[tuple[str, str], Effect]
) -> list[tuple[int, Effect]]:
    """For each pair its difference, and what the row says: 1 first better, -1 second, 0 alike."""
    rank = {letter: index for index, level in enumerate(row.levels) for letter in level}
    return [(int(np.sign(rank[b] - rank[a])), one) for (a, b), one in differences.items()]


def _holds(says: int, one: Effect) -> bool:
    if says == 0:
        return one.low >= -MARGIN and one.high <= MARGIN
    return one.low > MARGIN if says > 0 else one.high < -MARGIN


def _refuted(says: int, one: Effect) -> bool:
    if says == 0:
        return one.low > MARGIN or one.high < -MARGIN
    return one.high < MARGIN if says > 0 else one.low > -MARGIN


def _supported(
    rows: Sequence[Pattern], differences: Mapping[tuple[str, str], Effect]
) -> Pattern | None:
    """The first row that holds; None where none does."""
    held = (row for row in rows if all(_holds(*one) for one in _relations(row, differences)))
    return next(held, None)


def _of_means(means: Mapping[str, float], rows: Sequence[Pattern]) -> str:
    """The row that the means alone would be: the interval of a single seed has no width."""
    alone = _differences({letter: np.array([mean]) for letter, mean in means.items()})
    return str(_supported(rows, alone) or f"no row of the table ({_listed(means)})")


def _listed(means: Mapping[str, float]) -> str:
    return ", ".join(f"{letter} {100 * mean:.0f} %" for letter, mean in means.items())


def _shown(one: Effect) -> str:
    return f"{one.name} = {points(one.estimate)} ({points(one.low)} to {points(one.high)})"


def points(difference: float) -> str:
    """A difference of success rates, in points of a hundred."""
    return f"{100 * difference:+.0f}"
