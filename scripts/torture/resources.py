"""Rows 10, 11, 13 and 29: disks that are small, full or read-only, and more than there is."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from torture import inject
from torture.bench import HALF, KINDS, Bench, Result, checkpoints, reached
from torture.victims import gone

MB = 1_000_000
NO_MOUNT = Result(None, "not tried: this user may not mount a small disk")


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[Path | None]:
    """A filesystem of its own; None where this user may not mount one."""
    folder.mkdir(parents=True)
    options = f"size={size_bytes}"
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True
        ).returncode
    )
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def disk_full_at_start(bench: Bench, part: int) -> Result:
    """Row 10."""
    with small_disk(bench.folder / "disk", 20 * MB) as disk:
        if disk is None:
            return NO_MOUNT
        done = bench.run(run_dir=disk / "run").wait()
        left = list(disk.iterdir())
    numbers = re.findall(r"\d+ bytes", done.error)
    ok = done.rc == 2 and len(numbers) >= 2 and "free" in done.error and not left
    return Result(ok, f"exit {done.rc}: {bench.show(done.error)}")


def disk_full_at_a_checkpoint(bench: Bench, part: int) -> Result:
    """Row 11: to the last byte between two looks at the disk; or noticed in time by such a look."""
    noticed = part == 1
    every_s = 0.05 if noticed else 3600.0
    with small_disk(bench.folder / "disk", 300 * MB) as disk:
        if disk is None:
            return NO_MOUNT
        run_dir = disk / "run"
        victim = bench.run(f"callbacks.disk_watch.every_s={every_s}", run_dir=run_dir)
        victim.wait_for(reached(run_dir, HALF))
        _fill(disk / "filler", 50 * MB if noticed else 0)
        done = victim.wait()
        kept = len(checkpoints(run_dir))
        (disk / "filler").unlink()
        if noticed:
            ok = done.rc == 1 and "stopped by short disk space" in done.text
            words = next((line for line in done.text.splitlines() if "stopped by" in line), "")
        else:
            ok, words = done.rc == 1 and "resume=" in done.error, done.error
        seen = f"exit {done.rc}: {bench.show(words)}"
        return bench.verdict(run_dir, ok and kept >= 2, seen, always=True)


def _fill(path: Path, leave_bytes: int) -> None:
    """Write until only so much is free."""
    with path.open("wb", buffering=0) as file:
        while True:
            disk = os.statvfs(path)
            free = disk.f_bavail * disk.f_frsize - leave_bytes
            if free <= 0:
                return
            try:
                file.write(bytes(min(free, 8 * MB)))
            except OSError:
                return


def unwritable_folder(bench: Bench, part: int) -> Result:
    """Row 13: nowhere to make the folder, and a folder of checkpoints that turns read-only."""
    nowhere = Path("/proc/fetchlab/run")  # no user may make a folder there
    first = bench.run(run_dir=nowhere).wait()
    run_dir = bench.folder / "run"
    second = bench.run(run_dir=run_dir, fault=inject.unwritable_commit(4)).wait()
    named = first.rc == 2 and str(nowhere) in first.error
    also = second.rc == 1 and str(run_dir / "checkpoints") in second.error
    seen = f"exit {first.rc} and {second.rc}, path named; {bench.show(second.error)}"
    return bench.verdict(run_dir, named and also, seen)


def too_large(bench: Bench, part: int) -> Result:
    """Row 29: 10M rows of pixels, or as many more as this disk makes necessary."""
    free = shutil.disk_usage(bench.folder.parent).free
    rows = max(10_000_000, 2 * free // 20_000)
    began = time.monotonic()
    args = [*KINDS["pixel"], f"run_dir={bench.folder / 'run'}"]
    args += [f"total_env_steps={rows}", f"replay.capacity={rows}"]
    victim = bench.command(args)
    done = victim.wait()
    seconds = time.monotonic() - began
    fits = re.search(r"replay\.capacity=\d+ fits", done.error)
    ok = done.rc == 2 and seconds < 60 and bool(fits) and gone([victim.pid])
    return Result(ok, f"exit {done.rc} after {seconds:.0f} s: {bench.show(done.error)}")
