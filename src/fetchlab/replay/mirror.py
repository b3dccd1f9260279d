"""Arrays that the host writes and the learner's device reads.

The memory map is the durable copy. On the CPU torch reads that very memory; on another device a
copy of the array lies there, and every write is pushed to it, so that a batch is drawn and put
together where it is used, without a byte crossing the bus. No push is waited for: it goes through
page-locked memory, which torch's allocator hands out again only once the copy from it is done.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

CHUNK_ROWS = 8192  # rows uploaded at once: 170 MB of 84x84 frames


def needs_copy(device: torch.device) -> bool:
    """Whether torch on ``device`` cannot read the host's memory."""
    return device.type != "cpu"


class Mirrored:
    """One array, written through ``host`` and read through ``tensor``.

    Args:
        host: rows first; its memory is shared, not copied. `push` what is written to it.
        device: where ``tensor`` lives: on the CPU the same memory, elsewhere a copy in which rows
            that were never pushed hold anything.
    """

    def __init__(self, host: np.ndarray, device: torch.device) -> None:
        self.host = host
        self._source = self.tensor = torch.from_numpy(host)
        self.copied = needs_copy(device)
        if self.copied:
            self.tensor = torch.empty_like(self._source, device=device)

    def push_all(self) -> None:
        """Take over all of ``host``."""
        if not self.copied:
            return
        for first in range(0, len(self._source), CHUNK_ROWS):
            part = slice(first, first + CHUNK_ROWS)
            self.tensor[part].copy_(self._source[part])

    def take(self, rows: Tensor, rows_there: Tensor) -> None:
        """Copy ``rows`` (n,) int64; ``rows_there`` are the same numbers on the device."""
        staged = _page_locked((len(rows), *self._source.shape[1:]), self._source.dtype)
        torch.index_select(self._source, 0, rows, out=staged)
        there = staged.to(self.tensor.device, non_blocking=True)
        self.tensor.index_copy_(0, rows_there, there)


def push(rows: np.ndarray, *mirrors: Mirrored) -> None:
    """Take over ``rows`` (n,) int64 that were written to all of ``mirrors``."""
    copied = [mirror for mirror in mirrors if mirror.copied]
    if not copied or not len(rows):
        return
    index = _page_locked((len(rows),), torch.int64).copy_(torch.from_numpy(rows))
    there = index.to(copied[0].tensor.device, non_blocking=True)
    for mirror in copied:
        mirror.take(index, there)


def _page_locked(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, pin_memory=torch.accelerator.is_available())
