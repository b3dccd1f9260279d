"""How much a success rate from a few evaluation episodes says.

Wilson's score interval (Wilson 1927, J. Am. Stat. Assoc. 22:209): the rates p whose own standard
error would still allow the observed share, |k/n - p| <= z sqrt(p (1 - p) / n). Unlike the textbook
k/n +- z s it stays inside [0, 1] and has a width at 0 of n and n of n, where runs start and end.
"""

from __future__ import annotations

import math

from fetchlab.errors import require

Z_95 = 1.959963984540054  # 97.5 % quantile of the standard normal distribution


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
    rate = successes / episodes
    shrink = 1 + Z_95**2 / episodes
    centre = (rate + Z_95**2 / (2 * episodes)) / shrink
    spread = math.sqrt(rate * (1 - rate) / episodes + Z_95**2 / (4 * episodes**2))
    half_width = Z_95 * spread / shrink
    # The ends are exact where rounding would leave 1e-17 beside them.
    low = 0.0 if successes == 0 else centre - half_width
    high = 1.0 if successes == episodes else centre + half_width
    return low, high
