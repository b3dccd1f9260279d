"""One row of metrics per logging point, for every logger, with ``env_steps`` as the x axis.

Nothing calls `LightningModule.log` every round (milliseconds a call): metrics are summed where they
arise, and read here. What Lightning offers of them is set at the same moments, so that its own
callbacks work: ``trainer.callback_metrics`` has the newest value of every metric by its name,
``trainer.global_step`` counts the optimizers' steps since the run began, and what somebody else
logs in Lightning's way has ``env_steps`` as its step, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import lightning.pytorch as pl
import torch

from fetchlab.callbacks.throughput import ENV_RATE, UPDATE_RATE, RateMeter
from fetchlab.fields import Hint, Min

#: What the collector measures.
EPISODES = ("train/success_rate", "train/return")


class LogPoints(pl.Callback):
    """Writes a row each time another ``every_env_steps`` have been stored, and at evaluations.

    Attributes:
        latest: the newest value of every metric of this process.
        row: the newest row; of a resumed run the same as of one that was never stopped.
        rows: how many it has written.
    """

    def __init__(
        self, every_env_steps: Annotated[int, Min(1), Hint("1000 is usual", "a positive number")]
    ) -> None:
        self._every, self._last = every_env_steps, 0
        self._epoch_ends = False
        self.latest: dict[str, float] = {}
        self.row: Mapping[str, float] = {}
        self.rows = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Let rates count from here, and say which columns there will be."""
        told = [name for one in trainer.callbacks for name in getattr(one, "metric_names", ())]
        for logger in trainer.loggers:
            if hasattr(logger, "expect"):
                logger.expect([*pl_module.metric_names, *EPISODES, *told, ENV_RATE, UPDATE_RATE])
        self._rates = RateMeter(trainer.datamodule.env_steps, pl_module.grad_updates)
        self._tell_lightning(trainer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Write a row when one is due."""
        if trainer.datamodule.env_steps // self._every > self._last // self._every:
            self.write(trainer, {})

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Give Lightning the step for what is logged now."""
        self._epoch_ends = False
        self._tell_lightning(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Give Lightning the step for what it logs of this epoch."""
        trainer.datamodule.settle()
        self._epoch_ends = True
        self._tell_lightning(trainer)

    def write(self, trainer: Any, extra: Mapping[str, float]) -> None:
        """Write the row of this moment, with ``extra`` metrics (an evaluation's) in it."""
        data, module = trainer.datamodule, trainer.lightning_module
        rates = self._rates.read(data.env_steps, module.grad_updates)
        row = {**module.pop_metrics(), **data.collector.means(), **rates, **extra}
        for logger in trainer.loggers:
            logger.log_metrics(row, step=data.env_steps)
        self.row = row
        self.latest.update(row)
        trainer.callback_metrics.update({name: torch.tensor(row[name]) for name in row})
        self._tell_lightning(trainer)
        self._last = data.env_steps
        self.rows += 1

    def _tell_lightning(self, trainer: Any) -> None:
        """Set its own counters, which begin anew in every process; the first counts rounds there.

        It takes one off while it logs what an epoch left.
        """
        loop = trainer.fit_loop.epoch_loop
        loop._batches_that_stepped = trainer.datamodule.env_steps + self._epoch_ends
        steps = loop.manual_optimization.optim_step_progress.total
        steps.ready = steps.completed = trainer.lightning_module.optimizer_steps

    def state_dict(self) -> dict[str, Any]:
        """Env steps of the last row."""
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._last = int(state_dict["last"])
