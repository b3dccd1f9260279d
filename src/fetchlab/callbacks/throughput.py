"""How fast this run is, and early on: when it will be done.

Rates are wall-clock rates between two logging points, evaluations included: what a user waits for.
The estimate is made once, after gradient updates have begun to run, because the steps before
``learning_starts`` are several times faster than the rest and would promise too much.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console

from fetchlab.durations import format_duration
from fetchlab.fields import Above, Min

ENV_RATE = "time/env_steps_per_s"
UPDATE_RATE = "time/grad_updates_per_s"


class RateMeter:
    """Rates of environment steps and gradient updates since the previous reading.

    Args:
        env_steps, grad_updates: where training starts or resumes: it measures from here.
        clock: Monotonic seconds.
    """

    def __init__(
        self, env_steps: int, grad_updates: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._before = (clock(), env_steps, grad_updates)

    def read(self, env_steps: int, grad_updates: int) -> dict[str, float]:
        """Return both rates (1/s) since the previous `read`, and measure from here."""
        then, steps_then, updates_then = self._before
        self._before = (self._clock(), env_steps, grad_updates)
        seconds = max(self._before[0] - then, 1e-9)
        return {
            ENV_RATE: (env_steps - steps_then) / seconds,
            UPDATE_RATE: (grad_updates - updates_then) / seconds,
        }


class TimeEstimate(Callback):
    """Says once how long the rest of this run takes on this machine.

    Time between epochs, where evaluations run, is left out of the measured rate: a single
    evaluation within a few seconds of measurement would distort it.

    Args:
        after_updates: Speak after this many gradient updates, or
        after_s: this many seconds (evaluations left out) since the first update, if sooner.
        long_run_h: Hours from which on `instead` is offered.
        instead: What to run instead, for example an experiment and its command; may be empty.
        console: Where to write; the standard output if None.
        clock: Monotonic seconds.

    Attributes:
        rate: Env steps/s from the first update on; None until measured, from `on_train_start` on.
    """

    def __init__(
        self,
        after_updates: Annotated[int, Min(1)],
        after_s: Annotated[float, Above(0)],
        long_run_h: Annotated[float, Above(0)],
        instead: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._after_updates = after_updates
        self._after_s = after_s
        self._long_run_h = long_run_h
        self._instead = instead
        self._console = console or Console()
        self._clock = clock

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure anew, also after a resume: the machine may be another."""
        self._done = False
        self._first: tuple[float, int, int] | None = None  # (s, updates, env steps) then
        self._between_epochs_s = 0.0
        self.rate: float | None = None
        self._updates_at_start = pl_module.grad_updates

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Speak when enough has been measured; afterwards cost nothing."""
        if self._done:
            return
        now = self._clock()
        updates, env_steps = pl_module.grad_updates, trainer.datamodule.env_steps
        if self._first is None:
            # Measured from after the first updates: they also pay for compilation and warm-up.
            if updates > self._updates_at_start:
                self._first = (now, updates, env_steps)
        else:
            first_s, first_updates, first_env_steps = self._first
            seconds = now - first_s - self._between_epochs_s
            enough = updates - first_updates >= self._after_updates or seconds >= self._after_s
            if env_steps > first_env_steps and seconds > 0:
                self.rate = (env_steps - first_env_steps) / seconds
                if enough:
                    self._done = True
                    left = max(trainer.datamodule.total_env_steps - env_steps, 0)
                    self._speak(left, self.rate)
        self._batch_end_s = now

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Leave the time since the last epoch's last round out of the measurement."""
        if self._first is not None and not self._done:
            self._between_epochs_s += self._clock() - self._batch_end_s

    def _speak(self, remaining: int, rate: float) -> None:
        seconds = remaining / rate
        text = (
            f"This machine runs {format_rate(rate)} env steps/s: the remaining {remaining:,} take "
            f"about {format_duration(seconds)}, plus evaluations."
        )
        if seconds > self._long_run_h * 3600 and self._instead:
            text += f" For a shorter run: {self._instead}"
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def format_rate(rate: float) -> str:
    """Return a rate in whole numbers, or with two digits where that would be coarse."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
