"""Says at each evaluation what the learning curve shows by then, see `fetchlab.report.phases`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import lightning.pytorch as pl
import torch

from fetchlab.callbacks import find
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.callbacks.log_points import LogPoints
from fetchlab.fields import Max, Min
from fetchlab.report.phases import (
    CLIMB,
    CODES,
    COLLAPSED,
    CONVERGED,
    chance_level,
    read_phases,
)

LOSS, PHASE = "train/critic_loss", "eval/phase"
COLOURS = {CLIMB: "green", CONVERGED: "green", COLLAPSED: "red"}  # flat may yet be patience


class Phases(pl.Callback):
    """Keeps the phase in the evaluations themselves, ``phase`` and the ``critic_loss`` read for it.

    So it has no state: it is a function of the evaluations, the same in a run that was resumed. A
    phase is what could be said at that evaluation; the report reads the whole curve in hindsight.
    As a number, ``eval/phase`` of logs and of ``trainer.callback_metrics``, it is one of `CODES`.

    Args:
        env_id, max_episode_steps: of the task, whose chance level may have been measured.
        chance: success rate of a random policy; None: the measured one, else the first
            evaluation's.

    Attributes:
        said: for the progress: the word and a colour.
    """

    metric_names = (PHASE,)

    def __init__(
        self,
        env_id: str,
        max_episode_steps: int,
        chance: Annotated[float, Min(0), Max(1)] | None,
    ) -> None:
        self._chance = chance_level(env_id, max_episode_steps) if chance is None else chance
        self.said = ("", "")

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Continue with the phase of the newest evaluation, if there is one."""
        history = find(trainer, Evaluation).history
        self._tell(trainer, history[-1].get("phase") if history else None)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Read the curve up to this evaluation."""
        history = find(trainer, Evaluation).history
        loss = find(trainer, LogPoints).row.get(LOSS, math.nan)
        history[-1]["critic_loss"] = loss if math.isfinite(loss) else None
        history[-1]["phase"] = word = self._read(history)[-1]
        self._tell(trainer, word)
        for logger in trainer.loggers:
            logger.log_metrics({PHASE: CODES[word]}, step=trainer.datamodule.env_steps)

    def _read(self, history: Sequence[Mapping[str, Any]]) -> list[str]:
        losses = [entry.get("critic_loss") for entry in history]
        return read_phases(
            [entry["success_rate"] for entry in history],
            [entry["episodes"] for entry in history],
            [math.nan if loss is None else loss for loss in losses],
            self._chance,
        )

    def _tell(self, trainer: Any, word: str | None) -> None:
        code = math.nan if word is None else float(CODES[word])
        trainer.callback_metrics[PHASE] = torch.tensor(code)
        self.said = (f"phase {word}" if word else "", COLOURS.get(word or "", ""))
