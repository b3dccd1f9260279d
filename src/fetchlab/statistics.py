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
