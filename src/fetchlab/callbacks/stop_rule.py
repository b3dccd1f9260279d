"""Stop a run that does not leave chance level; only where it is asked for.

A rule made for runs from the state would have stopped the study's pixel run just before its climb:
flat to 1.9 M env steps, 70 % at 2.7 M, where the state's had begun to climb at 1 M. So this rule
counts in that time, and with images it has several times the patience.
"""

from __future__ import annotations

from typing import Annotated, Any

import lightning.pytorch as pl

from fetchlab.callbacks import find
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.callbacks.phases import Phases
from fetchlab.errors import require
from fetchlab.fields import Above
from fetchlab.report.phases import CLIMB, CONVERGED

#: Whoever resumes a run that was stopped has decided to wait: it has the whole patience again.
_STATE = "stopped_at"


class StopRule(pl.Callback):
    """Stops at an evaluation when the curve has been flat, or collapsed, for too long.

    The run is left with a checkpoint, ``stopped`` and resumable, as by any callback that sets
    ``trainer.should_stop``. Resumed, it goes on, and is stopped again only when the same number of
    env steps has passed once more without a climb.

    Args:
        take_off_env_steps: when the same task leaves chance level from the state.
        patience: times as long it may be flat, where the agent sees no images,
        pixel_patience: and where it does.

    Attributes:
        stopping_reason_message: why it stopped this run, see `Stopping`.

    Raises:
        ConfigError: nobody knows when, or the run reads no phases.
    """

    def __init__(
        self,
        take_off_env_steps: int | None,
        patience: Annotated[float, Above(0)],
        pixel_patience: Annotated[float, Above(0)],
    ) -> None:
        key = "callbacks.extra.stop_rule.take_off_env_steps"
        expected = "env steps at which the same task leaves chance level from the state"
        known, remedy = take_off_env_steps or 0, f"this experiment has none: give {key}=N"
        require(known > 0, key, take_off_env_steps, expected, remedy)
        self._take_off, self._patience = known, (patience, pixel_patience)
        self._stopped_at = 0
        self.stopping_reason_message: str | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Know how patient to be."""
        find(trainer, Phases)
        self._times = self._patience[pl_module.agent.vision is not None]

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop after this evaluation, where it is one too many."""
        history = find(trainer, Evaluation).history
        now, phase = history[-1]["env_steps"], history[-1]["phase"]
        moved = [one["env_steps"] for one in history if one.get("phase") in (CLIMB, CONVERGED)]
        flat_for = now - max(moved[-1] if moved else 0, self._stopped_at)
        if phase not in (CLIMB, CONVERGED) and flat_for >= self._times * self._take_off:
            self._stopped_at, trainer.should_stop = now, True
            self.stopping_reason_message = (
                f"{phase} for {flat_for:,} env steps, {self._times:g} times the "
                f"{self._take_off:,} after which this task is climbed from the state"
            )

    def state_dict(self) -> dict[str, Any]:
        """Where it stopped the run last, which a resume overrules."""
        return {_STATE: self._stopped_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._stopped_at = int(state_dict[_STATE])
