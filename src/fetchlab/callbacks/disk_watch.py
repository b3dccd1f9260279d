"""Stop with a checkpoint while the disk still has room for one.

The replay's blocks are allocated before the first step, so what fills the disk is somebody else, or
logs and videos. A commit on a full disk fails cleanly, but what was learned since the last one is
then lost; this callback stops the run before that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from fetchlab.errors import require


class DiskWatch(pl.Callback):
    """Asks for a stop when the run's disk gets short.

    Args:
        folder: on the disk to watch.
        every_s: seconds between two looks, above 0.
        min_free_bytes: stop below this; two checkpoints should fit in it.
        stop: called with the reason.

    Raises:
        ConfigError: a value that is not positive.
    """

    def __init__(
        self, folder: Path, every_s: float, min_free_bytes: int, stop: Callable[[str], None]
    ) -> None:
        key = "callbacks.disk_watch"
        require(every_s > 0, f"{key}.every_s", every_s, "seconds above 0", "10 is usual")
        remedy = "100000000 holds two checkpoints"
        require(
            min_free_bytes > 0, f"{key}.min_free_bytes", min_free_bytes, "bytes above 0", remedy
        )
        self._folder, self._every_s, self._stop = folder, every_s, stop
        self._min_free_bytes = min_free_bytes
        self._next_look_s = 0.0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Look at the disk when it is time to: a clock reading per round, else nothing."""
        now = time.monotonic()
        if now < self._next_look_s:
            return
        self._next_look_s = now + self._every_s
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        if free < self._min_free_bytes:
            self._stop(
                f"short disk space ({free:,} bytes free, "
                f"callbacks.disk_watch.min_free_bytes={self._min_free_bytes:,})"
            )
