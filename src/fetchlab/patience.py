"""Time-outs that count the time in which this process itself ran.

While a process is stopped, or its machine suspended, the clock goes on, and so does the limit of a
single long wait. A limit that is waited for in slices loses at most one of them to each suspension.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from typing import TypeVar

#: Of a time-out: one is 3 s of a minute.
SLICES = 20

T = TypeVar("T")


def patiently(wait: Callable[[], T]) -> T:
    """The result of ``wait``, which gives up after one slice of its time-out; up to all of them.

    Raises:
        TimeoutError, subprocess.TimeoutExpired: what the last slice raised.
    """
    for _ in range(SLICES - 1):
        with contextlib.suppress(TimeoutError, subprocess.TimeoutExpired):
            return wait()
    return wait()
