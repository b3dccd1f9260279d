"""One row of metrics per logging point, for every logger, with `env_steps` as the x axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl

from fetchlab.errors import require


class LogPoints(pl.Callback):
    """Writes a row each time another ``every_env_steps`` have been stored, and at evaluations.

    Args:
        every_env_steps: distance between two rows.
        sources: called at a logging point, each returns metrics by name and may reset itself.
        begin: called when training starts or goes on, with a checkpoint's counters restored.
    """

    def __init__(
        self,
        every_env_steps: int,
        sources: Sequence[Callable[[], Mapping[str, float]]],
        begin: Callable[[], None],
    ) -> None:
        require(
            every_env_steps > 0,
            "callbacks.log_every_env_steps",
            every_env_steps,
            "a positive number",
            "1000 is usual",
        )
        self._every, self._sources, self._begin = every_env_steps, tuple(sources), begin
        self._last = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Let rates count from here."""
        self._begin()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Write a row when one is due."""
        if trainer.datamodule.env_steps // self._every > self._last // self._every:
            self.write(trainer, {})

    def write(self, trainer: Any, extra: Mapping[str, float]) -> None:
        """Write the row of this moment, with ``extra`` metrics (an evaluation's) in it."""
        env_steps = trainer.datamodule.env_steps
        row: dict[str, float] = {}
        for source in self._sources:
            row.update(source())
        row.update(extra)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=env_steps)
        trainer.lightning_module.latest_metrics.update(row)
        self._last = env_steps

    def state_dict(self) -> dict[str, Any]:
        """Env steps of the last row."""
        return {"last": self._last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._last = int(state_dict["last"])
