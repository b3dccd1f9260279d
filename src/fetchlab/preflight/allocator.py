"""Let the C library keep memory that tensors gave back, so that the next ones find it ready.

glibc asks the kernel for every block above 32 MB and returns it when it is freed. A pixel update
with a batch of 256 allocates dozens of such tensors, and each arrives as pages that the kernel
clears one by one when they are first touched: 830,000 page faults and half of the update's time.
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_LARGEST = 2**31 - 1


def reuse_memory() -> bool:
    """Keep freed memory in this process, up to 2 GB of it; False where malloc is not glibc's."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))
