"""Will the run fit? Sums of disk and memory, held against what is free, before anything starts.

A full disk under a memory-mapped file is a SIGBUS and too little memory is a SIGKILL: neither
leaves a message, so both are refused here.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from fetchlab.errors import ConfigError


def fitting_capacity(needed: int, free: int, capacity: int, bytes_per_transition: float) -> int:
    """The ``replay.capacity`` for which ``needed`` shrinks or grows to ``free``; 0 if none does."""
    return max(0, capacity - math.ceil((needed - free) / bytes_per_transition))


def check_budget(
    path: Path, disk_bytes: int, memory_bytes: int, capacity: int, bytes_per_transition: float
) -> None:
    """Refuse a run that does not fit on the disk or in memory.

    Args:
        path: the run folder; it need not exist yet.
        disk_bytes: what the run will still write there: replay with margin, checkpoints, logs.
        memory_bytes: what all its processes will hold; the replay is page cache.
        capacity: ``replay.capacity`` in transitions, which the error says how far to lower.
        bytes_per_transition: how many bytes on the disk one transition less saves.

    Raises:
        ConfigError: one line with the bytes needed, the bytes free, and, of a replay that is still
            to be written, the largest ``replay.capacity`` that fits.
    """
    disk, memory = free_disk_bytes(path), available_memory_bytes()
    if disk_bytes > disk:
        needed, free, where = disk_bytes, disk, f"on the disk at {nearest_existing(path)}"
        remedy = "free the disk or set run_dir to a larger one"
        fits = fitting_capacity(needed, free, capacity, bytes_per_transition)
        if fits and disk_bytes >= capacity * bytes_per_transition:  # a resumed run has its replay
            remedy = f"replay.capacity={fits} fits; lower it, or {remedy}"
    elif memory_bytes > memory:
        needed, free, where = memory_bytes, memory, "in memory"
        remedy = "lower collect.n_envs, collect.workers or algo.batch_size"
    else:
        return
    expected = f"a run within the {_exact(free)} free {where}, but it needs {_exact(needed)}"
    raise ConfigError("replay.capacity", capacity, expected, remedy)


def free_disk_bytes(path: Path) -> int:
    """Bytes an ordinary user may still write below ``path``, which need not exist yet."""
    return shutil.disk_usage(nearest_existing(path)).free


def available_memory_bytes(
    proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
) -> int:
    """Bytes that can be allocated without swapping: the least of the machine's and the cgroups'."""
    fields = _numbers(proc / "meminfo")
    return max(0, min([fields["MemAvailable:"] * 1024, *_cgroup_rooms(proc, cgroups)]))


def nearest_existing(path: Path) -> Path:
    """``path``, or its nearest parent that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())


def format_bytes(n: float) -> str:
    """Bytes for people, in powers of 1000: ``format_bytes(21_700_000_000) == "21.7 GB"``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(n) < 999.95 or (unit == "bytes" and abs(n) < 1000):
            return f"{n:.0f} {unit}" if unit == "bytes" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _cgroup_rooms(proc: Path, cgroups: Path) -> Iterator[int]:
    """Bytes left under the limit of each memory cgroup that holds this process, v2 and v1.

    A limit further up binds too, so all parents count. Inside a container the path that the kernel
    reports may not exist below the mount; its parents, the mount itself at last, still do.
    """
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = cgroups / "memory"
        else:
            continue
        relative = Path(path.lstrip("/"))
        for group in {root / relative, *(root / parent for parent in relative.parents)}:
            limit, used = (next(_lines(group / name), "max") for name in names[:2])
            if limit != "max" and used != "max":
                # file pages are counted as used, but the kernel drops them when memory is short
                yield int(limit) - int(used) + _numbers(group / "memory.stat").get(names[2], 0)


def _lines(path: Path) -> Iterator[str]:
    """Lines of a kernel file; none where this kernel or container does not show it."""
    try:
        yield from path.read_text().splitlines()
    except OSError:
        return


def _numbers(path: Path) -> dict[str, int]:
    """First number of each ``name number ...`` line, by name."""
    return {name: int(rest[0]) for name, *rest in map(str.split, _lines(path)) if rest}


def _exact(n: int) -> str:
    return f"{n} bytes ({format_bytes(n)})"
