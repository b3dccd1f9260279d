"""Stand-in until the phase reader is merged."""

from __future__ import annotations

from collections.abc import Sequence


def read_phases(
    env_steps: Sequence[int],
    success: Sequence[float],
    episodes: Sequence[int],
    critic_loss: Sequence[float],
    chance: float | None,
) -> list[str]:
    """One word for each evaluation."""
    base = chance if chance is not None else (success[0] if len(success) else 0.0)
    words, best = [], 0.0
    for index, rate in enumerate(success):
        best = max(best, rate)
        near = success[max(0, index - 1) : index + 1]
        if best > base + 0.3 and rate < best / 2:
            words.append("collapsed")
        elif rate <= base + 0.07 and base < 0.5:
            words.append("flat")
        elif len(near) == 2 and min(near) >= 0.9:
            words.append("converged")
        else:
            words.append("climb")
    return words
