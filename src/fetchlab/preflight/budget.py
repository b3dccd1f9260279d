"""Will the run fit? Sums of disk and memory, held against what is free, before anything starts.

A full disk under a memory-mapped file is a SIGBUS and too little memory is a SIGKILL: neither
leaves a message, so both are refused here. The sums are pure functions over numbers; the readers
ask the operating system.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path

from fetchlab.errors import ConfigError

# Resident memory, rounded up. A worker with 1, 2, ... 5 FetchPush environments, MB: 118, 140, 154,
# 163, 172 without a camera; 210, 249, 291, 318, 343 with Mesa's software EGL and quality=fast, at
# 32x32 as at 84x84; 274, 379, 486, 578, 668 with quality=reference, whose shadow map is 4096x4096.
# A process with torch, lightning and torchrl imported: 386 MB.
MAIN_PROCESS_BYTES = 600_000_000
WORKER_BYTES = 120_000_000
ENV_BYTES = 25_000_000
RENDERING_WORKER_BYTES = 75_000_000
RENDERER_BYTES = {"fast": 20_000_000, "reference": 90_000_000}
# An offscreen buffer with its four samples, depth and copies: 65 bytes at 512x512 and 1024x1024.
RENDERED_PIXEL_BYTES = 70
# Parameter, gradient, two Adam moments, target network.
COPIES_OF_PARAMETERS = 5


def run_memory_bytes(
    *,
    workers: int,
    n_envs: int,
    quality: str | None,
    rendered_side: int,
    parameter_bytes: int,
    working_bytes: int,
) -> int:
    """Bytes of memory of a whole run: this process, its workers, networks and batches.

    Args:
        workers: worker processes.
        n_envs: environments in all workers together.
        quality: of the environments' pictures, ``obs.pixels.quality``; None: they render nothing.
        rendered_side: of those square pictures, pixels.
        parameter_bytes: all trained parameters, once.
        working_bytes: a round's batches and activations, and the replay where memory holds it;
            a memory-mapped one is page cache and counts as nothing.
    """
    per_worker, per_env = WORKER_BYTES, ENV_BYTES
    if quality is not None:
        per_worker += RENDERING_WORKER_BYTES
        per_env += RENDERER_BYTES[quality] + RENDERED_PIXEL_BYTES * rendered_side**2
    processes = MAIN_PROCESS_BYTES + workers * per_worker + n_envs * per_env
    return processes + COPIES_OF_PARAMETERS * parameter_bytes + working_bytes


def largest_capacity(needed: int, free: int, capacity: int, bytes_per_transition: float) -> int:
    """The largest ``replay.capacity`` for which ``needed`` shrinks to ``free``; 0 if none does."""
    return min(capacity, fitting_capacity(needed, free, capacity, bytes_per_transition))


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
        memory_bytes: what all its processes will hold, as from `run_memory_bytes`.
        capacity: ``replay.capacity`` in transitions, which the error says how far to lower.
        bytes_per_transition: how many bytes one transition less saves, on the disk or, where
            ``disk_bytes`` is too small to hold the replay, in memory.

    Raises:
        ConfigError: one line with the bytes needed, the bytes free, and the largest
            ``replay.capacity`` that fits.
    """
    replay_on_disk = disk_bytes >= capacity * bytes_per_transition
    disk, memory = free_disk_bytes(path), available_memory_bytes()
    on_disk = disk_bytes > disk
    if on_disk:
        needed, free, where = disk_bytes, disk, f"on the disk at {nearest_existing(path)}"
        remedy = "free the disk or set run_dir to a larger one"
    elif memory_bytes > memory:
        needed, free, where = memory_bytes, memory, "in memory"
        remedy = "lower collect.n_envs, collect.workers or algo.batch_size"
    else:
        return
    if on_disk == replay_on_disk:
        fits = largest_capacity(needed, free, capacity, bytes_per_transition)
        remedy = f"replay.capacity={fits} fits; lower it, or {remedy}" if fits else remedy
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
