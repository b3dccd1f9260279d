"""Reads a learning curve: flat, climbing, converged or collapsed, evaluation by evaluation.

A curve is read against what a random policy does. In FetchPush about 7 % of resets lie solved, so
"flat at 6 %" is no learning, and 12 % once in a while is none either. A loss says nothing by
itself: the critics' falls while all fails alike, which is easy to predict, and rises in a climb,
when values begin to differ. So success decides, and the loss is heard only beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from fetchlab.statistics import Z_95, score_interval

FLAT, CLIMB, CONVERGED, COLLAPSED = "flat", "climb", "converged", "collapsed"
#: As a scalar, for loggers and for callbacks that monitor it: better is more.
CODES = {COLLAPSED: -1, FLAT: 0, CLIMB: 1, CONVERGED: 2}

#: Of each environment, episodes that succeed at their last step, and how many were played with
#: uniform random actions: ``python scripts/measure/chance.py fetch_push fetch_reach fetch_slide
#: fetch_pick_and_place``. Not in ``configs/task``: it is no setting, and no run depends on it.
MEASURED = {
    "FetchPush-v4": (29, 500),
    "FetchReach-v4": (1, 500),
    "FetchSlide-v4": (1, 500),
    "FetchPickAndPlace-v4": (15, 500),
}
_EPISODE_STEPS = 50
_Z_ALONE = 4.0  # one normal deviate in 30,000 lies above: for one evaluation of hundreds
_Z_PACE = 3.0  # one in 700: asked at each evaluation of a climb
_RISES = 3  # in turn: one in 4! = 24 sequences of noise does that


def chance_level(env_id: str, max_episode_steps: int) -> float | None:
    """The success rate of uniform random actions; None where nobody measured it.

    A dense reward changes neither what happens nor what counts as a success.
    """
    measured = MEASURED.get(env_id.replace("Dense-", "-"))
    if measured is None or max_episode_steps != _EPISODE_STEPS:
        return None
    successes, episodes = measured
    return successes / episodes


def read_phases(
    success: Sequence[float],
    episodes: Sequence[int],
    critic_loss: Sequence[float],
    chance: float | None,
) -> list[str]:
    """One word for each evaluation, in hindsight: the last word is what can be said by now.

    - ``flat``: nothing better than chance has been confirmed. The chance interval is Wilson's
      around ``chance``, for as many episodes.
    - ``climb``: better than chance has been confirmed, and success rises, or did so of late.
    - ``converged``: it holds, and rises no more or surely slower than on its way.
    - ``collapsed``: surely nearer to chance than to what had surely been reached.

    The thresholds follow from binomial noise, asked for again at each of a hundred or more
    evaluations. At chance level one of 100 episodes lies above its 95 % interval once in a hundred
    times, so one alone confirms nothing unless it is four standard errors above. A climb is
    confirmed by two above it in turn (1e-4 a pair), or by one above it behind one that is likelier
    at the interval's upper end than at chance level, while the critics' loss has risen three times
    in turn (1e-2 x 0.14 / 4!). Of 154 such evaluations at chance level one run in a hundred is then
    called a climb. The climb began, in hindsight, with the unbroken series of likelier ones. Sums
    over many evaluations are not taken: a run's own evaluations play the same episodes each time,
    and a sum would confirm sooner or later how lucky those are.

    With m evaluations since that beginning, the newest quarter of them is held against the quarter
    before. A climb at an even pace from chance to the newest rate would have gained a quarter of
    the way meanwhile; ``converged`` needs the interval of the gain (Newcombe 1998, Stat. Med.
    17:873, method 10, at three standard errors) to lie below that: from few episodes, or in a slow
    climb, it is not said yet. It needs an interval above 0 to be a ``climb`` again. A newest
    quarter below the interval of the one before is a dip and leaves the word as it was.

    Args:
        success: rates in [0, 1], in the order of the evaluations.
        episodes: of which they are shares.
        critic_loss: at each, NaN where unknown.
        chance: success rate of a random policy, see `chance_level`; None where nobody
            measured it: then the first evaluation stands for it, with its own uncertainty, unless
            it succeeds more often than not: that is skill.

    Returns:
        ``flat``, ``climb``, ``converged`` or ``collapsed``, as many as there are evaluations.
    """
    if not len(success) == len(episodes) == len(critic_loss):
        raise ValueError("each evaluation needs its success rate, number of episodes and loss")
    if not success:
        return []
    floor = _Floor(success[0], episodes[0], chance)
    start = _confirmed(success, episodes, critic_loss, floor)
    if start is None:
        return [FLAT] * len(success)
    words, reached, pace = [FLAT] * start, 0.0, CLIMB
    for i in range(start, len(success)):
        low, high = score_interval(success[i], episodes[i])
        reached = max(reached, low)
        pace = _pace(success[start : i + 1], episodes[start : i + 1], floor.rate, pace)
        words.append(COLLAPSED if high < (floor.rate + reached) / 2 else pace)
    return words


class _Floor:
    """Chance level, and what an evaluation may show of it."""

    def __init__(self, first: float, first_episodes: int, chance: float | None) -> None:
        self.rate = (first if first <= 0.5 else 0.0) if chance is None else chance
        # Of two estimates both vary; a measured chance level is taken as known.
        self._estimated_from = first_episodes if chance is None else math.inf

    def upper(self, episodes: int, z: float = Z_95) -> float:
        """Upper end of the chance interval of so many episodes."""
        both = 1 / (1 / episodes + 1 / self._estimated_from)
        return score_interval(self.rate, both, z)[1]

    def likelier_above(self, rate: float, episodes: int) -> bool:
        """Whether ``rate`` is likelier where the interval ends than at chance level."""
        if self.rate in (0, 1):
            return rate > self.rate
        above = self.upper(episodes)
        gained = rate * math.log(above / self.rate)
        return gained > (1 - rate) * math.log((1 - self.rate) / (1 - above))


def _confirmed(
    success: Sequence[float], episodes: Sequence[int], losses: Sequence[float], floor: _Floor
) -> int | None:
    """Where the first climb began that is confirmed; None where none is."""
    outside = [rate > floor.upper(n) for rate, n in zip(success, episodes, strict=True)]
    start = 0
    for i, rate in enumerate(success):
        if not floor.likelier_above(rate, episodes[i]):
            start = i + 1
            continue
        alone = rate > floor.upper(episodes[i], _Z_ALONE)
        in_turn = start < i and (outside[i - 1] or _rose(losses[: i + 1]))
        if alone or (outside[i] and in_turn):
            return start
    return None


def _rose(losses: Sequence[float]) -> bool:
    """Whether the newest ones rose without a break; unknown ones did not."""
    newest = losses[-_RISES - 1 :]
    return len(newest) > _RISES and all(old < new for old, new in pairwise(newest))


def _pace(success: Sequence[float], episodes: Sequence[int], chance: float, before: str) -> str:
    """What the newest quarter of a climb says, held against the quarter before; see `read_phases`.

    Args:
        success: of the evaluations since it began.
        episodes: likewise.
        chance: where it began.
        before: what was said at the last one, which stays where nothing is sure.
    """
    quarter = max(1, len(success) // 4)
    if len(success) < 2 * quarter:
        return before
    new, n_new = _pooled(success[-quarter:], episodes[-quarter:])
    old, n_old = _pooled(success[-2 * quarter : -quarter], episodes[-2 * quarter : -quarter])
    worst_new, best_new = score_interval(new, n_new, _Z_PACE)
    worst_old, best_old = score_interval(old, n_old, _Z_PACE)
    most = new - old + math.hypot(best_new - new, old - worst_old)
    least = new - old - math.hypot(new - worst_new, best_old - old)
    if new >= worst_old and most < (new - chance) * quarter / len(success):
        return CONVERGED
    return CLIMB if least > 0 else before


def _pooled(rates: Sequence[float], episodes: Sequence[int]) -> tuple[float, int]:
    """All their episodes as one evaluation."""
    together = sum(episodes)
    return sum(rate * n for rate, n in zip(rates, episodes, strict=True)) / together, together
