"""Torch's threads for a part of an update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def at_least_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads in this block, or more if it does already."""
    before = torch.get_num_threads()
    if count <= before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
