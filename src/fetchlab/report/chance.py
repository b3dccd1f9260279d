"""What a random policy achieves: measured numbers, which a learning curve is read against."""

from __future__ import annotations

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


def chance_level(env_id: str, max_episode_steps: int) -> float | None:
    """The success rate of uniform random actions; None where nobody measured it.

    A dense reward changes neither what happens nor what counts as a success.
    """
    measured = MEASURED.get(env_id.replace("Dense-", "-"))
    if measured is None or max_episode_steps != _EPISODE_STEPS:
        return None
    successes, episodes = measured
    return successes / episodes
