"""When a run stops: at its number of env steps, or at the round after somebody asked for it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from fetchlab.checkpoint.signals import StopFlag


class Stopping(pl.Callback):
    """Ends the fit loop at a round boundary; the checkpoint callback then saves that state.

    Signals count from the start of training on: before it there is nothing to save.
    """

    def __init__(self) -> None:
        self._flag = StopFlag()

    @property
    def reason(self) -> str | None:
        """A signal's name or what `request` was given; None while nobody asked."""
        return self._flag.reason

    @property
    def asked(self) -> bool:
        """Whether somebody asked for a stop."""
        return self._flag.stop

    def request(self, reason: str) -> None:
        """Stop after this round, as a signal does."""
        self._flag.request(reason)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Listen, after Lightning's own handlers; a run that has its steps has nothing to do."""
        self._flag.__enter__()
        trainer.should_stop = trainer.datamodule.done

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Stop after this round when its number of steps is reached or a stop was asked for."""
        if trainer.datamodule.done or self._flag.stop:
            trainer.should_stop = True

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the signals back."""
        self._flag.__exit__(None, None, None)
