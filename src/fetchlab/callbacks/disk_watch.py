"""Stop with a checkpoint while the disk still has room for one.

The replay's blocks are allocated before the first step, so what fills the disk is somebody else, or
logs and videos. A commit on a full disk fails cleanly, but what was learned since the last one is
then lost; this callback stops the run before that.
"""

from __future__ import annotations

import os
import time
from typing import Annotated, Any

import lightning.pytorch as pl

from fetchlab.callbacks import find
from fetchlab.callbacks.stopping import Stopping
from fetchlab.fields import Above, Hint, Min


class DiskWatch(pl.Callback):
    """Asks for a stop when the disk of the run's folder gets short.

    Args:
        every_s: seconds between two looks.
        min_free_bytes: stop below this; two checkpoints should fit in it.
    """

    def __init__(
        self,
        every_s: Annotated[float, Above(0)],
        min_free_bytes: Annotated[int, Min(1), Hint("100000000 holds two checkpoints")],
    ) -> None:
        self._every_s, self._min_free_bytes = every_s, min_free_bytes
        self._next_look_s = 0.0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Look at the disk when it is time to: a clock reading per round, else nothing."""
        now = time.monotonic()
        if now < self._next_look_s:
            return
        self._next_look_s = now + self._every_s
        disk = os.statvfs(trainer.default_root_dir)
        free = disk.f_bavail * disk.f_frsize
        if free < self._min_free_bytes:
            find(trainer, Stopping).flag.request(
                f"short disk space ({free:,} bytes free, "
                f"callbacks.disk_watch.min_free_bytes={self._min_free_bytes:,})"
            )
