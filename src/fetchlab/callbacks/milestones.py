"""Is this run on its way? Success held against what recorded runs of its experiment had by then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import lightning.pytorch as pl

from fetchlab.callbacks import find
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.errors import require
from fetchlab.fields import Min

AT, SUCCESS = "at_env_steps", "success_at_least"
KEY = "callbacks.milestones.table"
PATIENCE = (
    "red asks for patience, nothing is stopped: a seed can take half as long again, and the pixels "
    "of the study took 2 to 4 times as long as its state"
)


class Milestones(pl.Callback):
    """Green or red at each evaluation, by the last milestone that it has passed.

    Args:
        table: rows of ``at_env_steps`` and ``success_at_least``, by rising env steps; may be empty.
        take_off_env_steps: when the same task had left chance level from the state; None: unknown.

    Attributes:
        said: for the progress: the verdict and a colour.

    Raises:
        ConfigError: a row without these two numbers, or rows that are out of order.
    """

    def __init__(
        self,
        table: Sequence[Mapping[str, float]],
        take_off_env_steps: Annotated[int, Min(1)] | None,
    ) -> None:
        self.table = [_row(row) for row in table]
        self.take_off_env_steps = take_off_env_steps
        steps = [at for at, _ in self.table]
        rising, remedy = sorted({*steps}) == steps, "sort the rows, each env steps once"
        require(rising, KEY, steps, "rows by rising at_env_steps", remedy)
        self.said = ("", "")

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Hold the newest evaluation, if there is one, against its milestone."""
        history = find(trainer, Evaluation).history
        passed = [row for row in self.table if history and row[0] <= history[-1]["env_steps"]]
        if passed:
            (at, wanted), success = passed[-1], history[-1]["success_rate"]
            met = success >= wanted
            verdict = f"milestone {'green' if met else 'red'}: {success:.1%}"
            verdict += f", at least {wanted:.1%} from {at:,} env steps on"
            self.said = (verdict, "green") if met else (f"{verdict} ({PATIENCE})", "red")

    on_train_start = on_validation_end


def _row(row: Mapping[str, float]) -> tuple[int, float]:
    """A row's two numbers, checked."""
    keys = isinstance(row, Mapping) and {*row} == {AT, SUCCESS}
    require(keys, KEY, row, f"rows of {AT} and {SUCCESS}", "see configs/milestones")
    at, success = row[AT], row[SUCCESS]
    known = all(isinstance(one, int | float) and not isinstance(one, bool) for one in (at, success))
    fits = known and at >= 1 and 0 <= success <= 1
    require(fits, KEY, dict(row), f"{AT} from 1 on, {SUCCESS} in [0, 1]", "see configs/milestones")
    return int(at), float(success)
