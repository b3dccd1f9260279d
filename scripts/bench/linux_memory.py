"""What Linux says about memory: which pages of mapped files are cached, what a process holds."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_OWN_MEMORY = ("RssAnon", "RssShmem")  # RssFile, the third part of VmRSS, is page cache


class Mapped(NamedTuple):
    """A shared mapping of a file: its address and its size in bytes."""

    address: int
    size: int


def drop(folder: Path, mappings: Iterable[Mapped]) -> None:
    """Write the folder's files to disk and take their pages out of the page cache.

    The kernel keeps pages that are dirty or mapped, so both are undone first.

    Raises:
        OSError: the kernel refuses.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        _with_descriptor(path, os.fsync)
    for address, size in mappings:
        # Of a shared file mapping this loses nothing: the next access maps the page again.
        _call("madvise", ctypes.c_void_p(address), ctypes.c_size_t(size), mmap.MADV_DONTNEED)
    for path in files:
        _with_descriptor(path, lambda file: os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED))


def cached_share(mappings: Sequence[Mapped]) -> float:
    """Share of the mapped pages that are in the page cache, in [0, 1] (`mincore`)."""
    cached = total = 0
    for address, size in mappings:
        pages = np.zeros(-(-size // mmap.PAGESIZE), np.uint8)
        out = ctypes.c_void_p(pages.ctypes.data)
        _call("mincore", ctypes.c_void_p(address), ctypes.c_size_t(size), out)
        cached += int((pages & 1).sum())
        total += len(pages)
    return cached / total


def own_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants in bytes, page cache aside."""
    total = 0
    for process in _family(pid):
        # Any of them may end while it is looked at.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in _OWN_MEMORY:
                    total += int(value.split()[0]) * 1024
    return total


def _family(pid: int) -> Iterator[int]:
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text().split():
                yield from _family(int(child))


def _with_descriptor(path: Path, action: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        action(descriptor)
    finally:
        os.close(descriptor)


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
