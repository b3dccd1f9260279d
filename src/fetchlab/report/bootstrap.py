"""Means over seeds, and how far they can be trusted.

A handful of seeds decides between methods only with intervals: Agarwal et al. 2021
(arXiv 2108.13264) propose the interquartile mean, which one lucky or dead seed does not move, and
percentile intervals of a stratified bootstrap, which draws seeds anew within each stratum. What
is here gives the numbers of their package `rliable`; the random draws are seeded, so that the
same runs give the same report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

REPETITIONS = 2_000
SEED = 0
LEVEL = 0.95
TRIMMED = 0.25  # of either end
#: From so many seeds on the interquartile mean leaves any out.
SEEDS_TO_TRIM = 4


def iqm(scores: np.ndarray, axis: int) -> np.ndarray:
    """Interquartile mean: of what is left without the lowest and the highest quarter.

    Args:
        scores: any shape, at least one along ``axis``. A quarter is rounded down: of fewer than
            four it is nothing, and this is the mean.
        axis: of the seeds.
    """
    count = scores.shape[axis]
    cut = int(TRIMMED * count)
    ordered = np.sort(scores, axis=axis)
    return np.take(ordered, range(cut, count - cut), axis=axis).mean(axis=axis)


def bootstrap_interval(
    strata: Sequence[np.ndarray], statistic: Callable[[list[np.ndarray]], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of a statistic under a stratified bootstrap.

    Args:
        strata: scores of each stratum, such as a cell of a factorial, (seeds, ...), at least one
            seed; its seeds are drawn with replacement, independently of the other strata's.
        statistic: takes the drawn strata, each (R, seeds, ...) of R draws, and gives (R, ...).

    Returns:
        (low, high), each of the statistic's shape without R.
    """
    rng = np.random.default_rng(SEED)
    drawn = [one[rng.integers(len(one), size=(REPETITIONS, len(one)))] for one in strata]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(statistic(drawn), [tail, 100 - tail], axis=0)
    return low, high
