"""The pixel replay: how fast it samples, warm and cold, and what it takes of disk and memory.

    python scripts/bench/replay.py [--quick]

Batches of 256, 84x84 RGB, 4 frames, hindsight included. Rows:

* ``replay_p50_growth``: milliseconds at 500k transitions (``--quick``: 100k) over those at 10k, all
  rows in the page cache; ``replay_p50_growth_cold`` the same with none of them there.
* ``replay_vs_memmap``: batches per second against TorchRL's `LazyMemmapStorage` holding stacked obs
  and next_obs, 10k transitions each, warm; ``replay_vs_memmap_cold``: with a cold page cache.
* ``replay_bytes_per_transition``: reference is Stable-Baselines3 (two stacks of 4 frames).
* ``replay_resident_bytes``: what a training of 1M transitions holds, all its processes, page cache
  aside; a real one on 23 GB of disk, stopped after its first updates. The index of the transitions
  grows by 30 MB until the replay is full; nothing else in memory depends on how much is stored.

Every row of the files is written before it is read, and cold means that the kernel confirms it.
"""

from __future__ import annotations

import csv
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from linux_memory import cached_share, drop, own_bytes
from replay_sides import EXPERIMENT, OurReplay, TorchRLReplay
from table import ROOT, SCRATCH, alternate, main, missing_row, print_row, ratio_row, say

GROWTH_TARGET, MEMMAP_TARGET, BYTES_TARGET, RESIDENT_TARGET = 1.3, 6.0, 22_000, 4e9
SB3_BYTES = 2 * 4 * 3 * 84 * 84
SMALL, MILLION = 10_000, 1_000_000
SPARE_BYTES = 4_000_000_000  # disk to leave free beside the files, the other storage included
COLD_LIMIT, WARM_LIMIT = 0.01, 0.99  # shares of pages cached
POLL_S, PATIENCE_S = 0.05, 300.0

Side = OurReplay | TorchRLReplay


def warm_p50(side: Side, draws: int) -> float:
    """Median milliseconds of a batch."""
    return statistics.median(side.sample() for _ in range(draws))


def cold_ms(side: Side, cached: list[float]) -> float:
    """Milliseconds of one batch of which nothing is in memory; adds what was there nevertheless."""
    drop(side.folder, side.mappings)
    cached.append(cached_share(side.mappings))
    return side.sample()


def sampling_rows(large_transitions: int, draws: int, warm: int, cold: int) -> None:
    """The four rows of sampling.

    Args:
        large_transitions: of the larger replay.
        draws: batches per block of the warm ones.
        warm: blocks.
        cold: cold batches.
    """
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        folder = Path(name)
        small, memmap = OurReplay(folder / "small", SMALL), TorchRLReplay(folder / "memmap", SMALL)
        bytes_row(small.replay)
        sides: dict[str, Side] = {"10k": small, "TorchRL 10k": memmap}
        label = f"{large_transitions // 1000}k"
        if fits(large_transitions):
            sides[label] = OurReplay(folder / "large", large_transitions)
        shares = {each: cached_share(side.mappings) for each, side in sides.items()}
        say("in the page cache: " + ", ".join(f"{k} {v:.1%}" for k, v in shares.items()))
        measures = {each: partial(warm_p50, side, draws) for each, side in sides.items()}
        measured = alternate(measures, warm, "ms, p50")
        is_warm = min(shares.values()) >= WARM_LIMIT
        _sampling_pair(measured, label, "", is_warm, (GROWTH_TARGET, MEMMAP_TARGET))

        cached: list[float] = []
        one = {each: partial(cold_ms, side, cached) for each, side in sides.items()}
        measured = alternate(one, cold, "ms, cold")
        say(f"in the page cache before a cold batch: at most {max(cached):.2%}")
        _sampling_pair(measured, label, "_cold", max(cached) <= COLD_LIMIT, (None, None))


def _sampling_pair(
    measured: dict[str, list[float]],
    label: str,
    suffix: str,
    as_claimed: bool,
    targets: tuple[float | None, float | None],
) -> None:
    growth, memmap = f"replay_p50_growth{suffix}", f"replay_vs_memmap{suffix}"
    if not as_claimed:
        for name, target in zip((growth, memmap), targets, strict=True):
            missing_row(name, target, "the page cache was not in the state that the row claims")
        return
    if label in measured:
        ratio_row(growth, measured[label], measured["10k"], at_most=targets[0])
    else:
        missing_row(growth, targets[0], f"{label} transitions do not fit on the disk")
    ours, theirs = ([1000 / ms for ms in measured[name]] for name in ("10k", "TorchRL 10k"))
    ratio_row(memmap, ours, theirs, at_least=targets[1])


def fits(transitions: int) -> bool:
    """Whether a replay of this size fits on the disk; says so if not."""
    needed, free = transitions * BYTES_TARGET + SPARE_BYTES, shutil.disk_usage(SCRATCH).free
    if needed > free:
        say(f"{transitions:,} transitions need {needed:,} bytes of disk, {free:,} are free")
    return needed <= free


def bytes_row(replay: Any) -> None:
    """Disk per transition of a full window, margin excluded."""
    value = replay.storage.layout.bytes_per_transition()
    name = "replay_bytes_per_transition"
    print_row(name, value, SB3_BYTES, value / SB3_BYTES, BYTES_TARGET, value <= BYTES_TARGET)


def resident_row(updates: int) -> None:
    """Memory of a training with a replay of 1M transitions, up to its first updates."""
    name = "replay_resident_bytes"
    if not fits(MILLION):
        missing_row(name, RESIDENT_TARGET, "its replay does not fit on the disk")
        return
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        run_dir = Path(folder) / "run"
        command = [
            *(sys.executable, str(ROOT / "src" / "train.py"), f"experiment={EXPERIMENT}"),
            *(f"replay.capacity={MILLION}", f"total_env_steps={MILLION}", f"run_dir={run_dir}"),
            *("collect.learning_starts=200", "callbacks.log_every_env_steps=4", "trainer=cpu"),
            "trainer.threads=null",
        ]
        process = subprocess.Popen(command, stdout=sys.stderr)
        try:
            value = peak_bytes(process, lambda: updates_logged(run_dir) >= updates)
        finally:
            process.kill()
            process.wait()
    if value is None:
        missing_row(name, RESIDENT_TARGET, "the training did not reach its first updates")
        return
    limit = RESIDENT_TARGET
    print_row(name, value, limit, value / limit, limit, value <= limit)


def peak_bytes(process: subprocess.Popen[bytes], done: Callable[[], bool]) -> int | None:
    """Most memory that the process and its descendants held until ``done``.

    Returns:
        None if it ended first, or was not done in `PATIENCE_S` seconds.
    """
    peak, deadline = 0, time.monotonic() + PATIENCE_S
    while not done():
        if process.poll() is not None or time.monotonic() > deadline:
            return None
        peak = max(peak, own_bytes(process.pid))
        time.sleep(POLL_S)
    return peak


def updates_logged(run_dir: Path) -> int:
    """Rows of the run's metrics that have a loss."""
    path = run_dir / "metrics.csv"
    if not path.exists():
        return 0
    with path.open(newline="") as file:
        return sum(bool(row.get("train/critic_loss")) for row in csv.DictReader(file))


def bench(quick: bool) -> None:
    """Print the rows."""
    from fetchlab.preflight.renderer import choose_renderer

    choose_renderer()  # the runs that are built here have cameras
    if quick:
        sampling_rows(100_000, draws=15, warm=2, cold=2)
        resident_row(updates=1)
    else:
        sampling_rows(500_000, draws=100, warm=9, cold=9)
        resident_row(updates=5)


if __name__ == "__main__":
    main(__doc__, bench)
