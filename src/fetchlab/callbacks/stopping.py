"""When a run stops: at its number of env steps, or at the round after somebody asked for it.

Any callback may ask, by ``trainer.should_stop`` as Lightning's do: the state that it left is
committed then, and the run can be continued.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from fetchlab.checkpoint.signals import StopFlag

#: Begins the reason of a stop that the configuration itself asked for.
BY_CALLBACK = "callback "


class Stopping(pl.Callback):
    """Ends the fit loop at a round boundary; that state is then committed.

    Signals count from the start of training on: before it there is nothing to save.

    Attributes:
        flag: whether a stop was asked for, and why.
    """

    def __init__(self) -> None:
        self.flag = StopFlag()

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Listen, after Lightning's own handlers; a run that has its steps has nothing to do."""
        self.flag.__enter__()
        trainer.should_stop = trainer.datamodule.done

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Stop after this round when its number of steps is reached or a stop was asked for."""
        if trainer.datamodule.done or self.flag.stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Name the callback that stopped the run, where it was neither a signal nor its end."""
        if trainer.datamodule.done or self.flag.stop:
            return
        said = [(one, getattr(one, "stopping_reason_message", None)) for one in trainer.callbacks]
        names = [f"{type(one).__name__}: {reason}" for one, reason in said if reason]
        self.flag.request(BY_CALLBACK + (names[0] if names else "that set trainer.should_stop"))

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the signals back."""
        self.flag.__exit__(None, None, None)
