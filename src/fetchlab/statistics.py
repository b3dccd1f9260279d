"""How much a success rate from a few evaluation episodes says, and one from a few seeds.

Of episodes: Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209), the rates p whose
own standard error would still allow the observed share, |k/n - p| <= z sqrt(p (1 - p) / n). Unlike
the textbook k/n +- z s it stays inside [0, 1] and has a width at 0 of n and n of n, where runs
start and end.

Of seeds: a handful decides between methods only with intervals. Agarwal et al. 2021
(arXiv 2108.13264) propose the interquartile mean, which one lucky or dead seed does not move, and
percentile intervals of a stratified bootstrap, which draws seeds anew within each stratum. What
is here gives the numbers of their package `rliable`; the random draws are seeded, so that the
same runs give the same report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from fetchlab.errors import require

Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
REPETITIONS = 2_000
SEED = 0
LEVEL = 0.95
TRIMMED = 0.25  # of either end
#: From so many seeds on the interquartile mean leaves any out.
SEEDS_TO_TRIM = 4


def wilson_interval(successes: int, episodes: int) -> tuple[float, float]:
    """95 % confidence interval of a success rate.

    Args:
        successes: Episodes that ended in success, in [0, episodes].
        episodes: Episodes evaluated, >= 1.

    Returns:
        (low, high), 0 <= low <= successes / episodes <= high <= 1.

    Raises:
        ConfigError: The counts do not describe an evaluation.
    """
    require(episodes >= 1, "episodes", episodes, "at least 1", "evaluate at least one episode")
    counted = 0 <= successes <= episodes
    require(counted, "successes", successes, f"between 0 and {episodes}", "count each episode once")
    return score_interval(successes / episodes, episodes)


def score_interval(rate: float, episodes: float, z: float = Z_95) -> tuple[float, float]:
    """Wilson's interval of any share in [0, 1], also of one that no whole count gives.

    Args:
        rate: Share of ``episodes``; of a known success rate, what so many episodes can show of it.
        episodes: Above 0.
        z: Standard errors to each side.
    """
    shrink = 1 + z**2 / episodes
    centre = (rate + z**2 / (2 * episodes)) / shrink
    spread = math.sqrt(rate * (1 - rate) / episodes + z**2 / (4 * episodes**2))
    half_width = z * spread / shrink
    # The ends are exact where rounding would leave 1e-17 beside them.
    low = 0.0 if rate == 0 else centre - half_width
    high = 1.0 if rate == 1 else centre + half_width
    return low, high


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
