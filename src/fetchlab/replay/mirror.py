"""Arrays that the host writes and the learner's device reads.

The memory map is the durable copy. On the CPU torch reads that very memory; on another device a
copy of the array lies there, and every write is pushed to it, so that a batch is drawn and put
together where it is used, without a byte crossing the bus.
"""

from __future__ import annotations

import numpy as np
import torch

CHUNK_ROWS = 8192  # rows uploaded at once: 170 MB of 84x84 frames


def needs_copy(device: torch.device) -> bool:
    """Whether torch on ``device`` cannot read the host's memory."""
    return device.type != "cpu"


class Mirrored:
    """One array, written through ``host`` and read through ``tensor``.

    Args:
        host: the array, rows first; its memory is shared, not copied.
        device: where ``tensor`` lives.

    Attributes:
        host: the numpy array; `push` what was written to it.
        tensor: of the same shape and dtype, the same memory on the CPU. Elsewhere rows that were
            never pushed hold anything.
    """

    def __init__(self, host: np.ndarray, device: torch.device) -> None:
        self.host = host
        self._source = self.tensor = torch.from_numpy(host)
        if needs_copy(device):
            self.tensor = torch.empty_like(self._source, device=device)

    def push(self, rows: int | np.ndarray) -> None:
        """Take over rows (one number or (n,) int64 numbers) that were written to ``host``."""
        if self.tensor is self._source:
            return
        index = torch.from_numpy(np.atleast_1d(np.asarray(rows, np.int64)))
        values = self._source.index_select(0, index).to(self.tensor.device)
        self.tensor.index_copy_(0, index.to(self.tensor.device), values)

    def push_all(self) -> None:
        """Take over all of ``host``."""
        if self.tensor is self._source:
            return
        for first in range(0, len(self._source), CHUNK_ROWS):
            part = slice(first, first + CHUNK_ROWS)
            self.tensor[part].copy_(self._source[part])
