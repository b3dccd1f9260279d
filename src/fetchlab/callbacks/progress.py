"""A progress bar that counts environment steps, or one plain line per logging point.

Lightning's bars count batches and read logged metrics every batch. A round here can be a few
milliseconds, so this one only compares two things per round (a clock and a count of rows) and
draws at most every ``refresh_s``. Without a terminal (CI, a log file) a bar is noise: then each
logging point becomes one line.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from lightning.pytorch.callbacks import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from fetchlab.callbacks import find
from fetchlab.callbacks.log_points import LogPoints
from fetchlab.callbacks.throughput import ENV_RATE, format_duration, format_rate
from fetchlab.fields import Above

# (metric, words before it, how to write it): what a reader looks at while a run goes on.
SHOWN = (
    ("train/success_rate", "success train", "{:.1%}"),
    ("eval/success_rate", "eval", "{:.1%}"),
    ("train/critic_loss", "critic loss", "{:.4g}"),
    ("train/actor_loss", "actor loss", "{:.4g}"),
)


class EnvStepProgress(Callback):
    """Shows env steps done, success rates, losses, phase, milestone, env steps/s, time left.

    A logging point is noticed by `LogPoints`' count of rows, so this callback belongs after it, and
    `Trainer` wants ``enable_progress_bar=False``.

    Args:
        refresh_s: Least time between two drawings on a terminal, in seconds.
        console: Where to draw; the standard output if None.
    """

    def __init__(
        self, refresh_s: Annotated[float, Above(0)], console: Console | None = None
    ) -> None:
        self._refresh_s = refresh_s
        self._console = console or Console()
        self._bar: _Bar | None = None
        self._next_draw_s = float("inf")
        self._rows_shown = 0
        self._line_at = -1

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the bar at the steps already done (more than zero after a resume)."""
        self._points = find(trainer, LogPoints)
        self._rows_shown = self._points.rows
        if self._console.is_interactive:
            data = trainer.datamodule
            self._bar = _Bar(self._console, data.total_env_steps, data.env_steps)
            self._next_draw_s = time.monotonic() + self._refresh_s

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Draw if it is time to, or if metrics have been logged."""
        if self._points.rows != self._rows_shown or time.monotonic() >= self._next_draw_s:
            self._show(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Show the evaluation that ends an epoch."""
        self._show(trainer)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Show the last state and give the terminal back."""
        self._show(trainer)
        self.teardown()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Give the terminal back (cursor, redirected output), before an error is printed."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._next_draw_s = float("inf")

    on_exception = teardown

    def _show(self, trainer: Any) -> None:
        data, metrics = trainer.datamodule, self._points.latest
        logged = self._points.rows != self._rows_shown
        self._rows_shown = self._points.rows
        if self._bar is not None:
            self._bar.draw(data.env_steps, coloured(metrics_text(metrics), said(trainer)))
            self._next_draw_s = time.monotonic() + self._refresh_s
        elif logged and data.env_steps > self._line_at and not self._console.is_interactive:
            self._line_at = data.env_steps
            line = plain_line(data.env_steps, data.total_env_steps, metrics)
            if "eval/success_rate" in self._points.row:  # an evaluation wrote it
                line = " | ".join([line, *(text for text, _ in said(trainer))])
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)


def said(trainer: Any) -> list[tuple[str, str]]:
    """What callbacks say of the newest evaluation, with a colour each: phase and milestone."""
    each = [getattr(one, "said", ("", "")) for one in trainer.callbacks]
    return [(text, colour) for text, colour in each if text]


def coloured(text: str, said: Sequence[tuple[str, str]]) -> Text:
    """One line of both."""
    return Text(" | ").join([Text(text), *(Text(words, style) for words, style in said)])


def metrics_text(metrics: Mapping[str, float]) -> str:
    """Return the metrics a reader watches, those that exist, in one line."""
    parts = [f"{words} {form.format(metrics[k])}" for k, words, form in SHOWN if k in metrics]
    return " | ".join(parts)


def plain_line(env_steps: int, total: int, metrics: Mapping[str, float]) -> str:
    """Return one log line: steps, share done, metrics, env steps/s, time left at that rate."""
    parts = [f"env_steps {env_steps:,} of {total:,} ({env_steps / total:.1%})"]
    if text := metrics_text(metrics):
        parts.append(text)
    rate = metrics.get(ENV_RATE, 0.0)
    if rate > 0:
        left = format_duration(max(total - env_steps, 0) / rate)
        parts.append(f"{format_rate(rate)} env steps/s | {left} left")
    return " | ".join(parts)


class _Bar:
    """The drawing on a terminal: a bar and, below it, a line of metrics; drawn by hand only."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self._progress = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("env steps, {task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            auto_refresh=False,
            speed_estimate_period=60.0,
            expand=True,
        )
        self._task = self._progress.add_task("", total=total, completed=done, rate="0/s")
        # No refresh thread: it would take the interpreter from the round ten times a second.
        self._live = Live(self._progress, console=console, auto_refresh=False)
        self._live.start()

    def draw(self, env_steps: int, text: Text) -> None:
        self._progress.update(self._task, completed=env_steps)
        speed = self._progress.tasks[0].speed
        if speed is not None:
            self._progress.update(self._task, rate=f"{format_rate(speed)}/s")
        self._live.update(Group(self._progress, text), refresh=True)

    def close(self) -> None:
        self._live.stop()
