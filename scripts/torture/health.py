"""Rows 14 to 18: numbers that are not finite, a simulator that resets itself, workers that fail."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np

from torture import inject
from torture.bench import HALF, Bench, Result, checkpoints, reached
from torture.victims import Outcome, gone

TIMEOUT_S = 10.0  # collect.timeout_s of the run whose worker hangs


def nan_action(bench: Bench, part: int) -> Result:
    """Row 14."""
    run_dir = bench.folder / "run"
    done = bench.run(run_dir=run_dir, fault=inject.nan_action(150)).wait()
    finite = all(np.isfinite(array).all() for array in _rows(run_dir))
    ok = _explained(done, "action of env 1 is not finite") and finite
    seen = f"rows {'all finite' if finite else 'NOT FINITE'}; {bench.show(done.error)}"
    return bench.verdict(run_dir, ok, seen)


def _rows(run_dir: Path) -> list[np.ndarray]:
    layout = json.loads((run_dir / "replay" / "layout.json").read_text())
    arrays = [array for array in layout["arrays"].values() if array["dtype"] == "float32"]
    return [np.fromfile(run_dir / "replay" / array["file"], np.float32) for array in arrays]


def _explained(done: Outcome, cause: str) -> bool:
    """Whether the run ended with an error that names the cause and the command that resumes."""
    return done.rc == 1 and cause in done.error and "python src/train.py resume=" in done.error


def nan_loss(bench: Bench, part: int) -> Result:
    """Row 15."""
    run_dir = bench.folder / "run"
    done = bench.run(run_dir=run_dir, fault=inject.poisoned_reward(40)).wait()
    unchanged = "weights unchanged" in done.text
    ok = _explained(done, "critic loss or gradient is not finite") and unchanged
    seen = f"weights {'unchanged' if unchanged else 'CHANGED'}; {bench.show(done.error)}"
    return bench.verdict(run_dir, ok, seen)


def silent_reset(bench: Bench, part: int) -> Result:
    """Row 16."""
    run_dir = bench.folder / "run"
    done = bench.run(run_dir=run_dir, fault=inject.unstable_simulator).wait()
    named = re.search(r"env \d, step \d+ of episode \d+, seed \d+.*BADQACC", done.error)
    ok = _explained(done, "MuJoCo reset itself") and bool(named)
    return bench.verdict(run_dir, ok, bench.show(done.error))


def dead_worker(bench: Bench, part: int) -> Result:
    """Row 17."""
    return _worker(bench, signal.SIGKILL, "was killed by SIGKILL", within_s=30.0)


def hanging_worker(bench: Bench, part: int) -> Result:
    """Row 18."""
    return _worker(bench, signal.SIGSTOP, "did not answer within", within_s=30.0)


def _worker(bench: Bench, number: int, words: str, within_s: float) -> Result:
    run_dir = bench.folder / "run"
    victim = bench.run(f"collect.timeout_s={TIMEOUT_S}", run_dir=run_dir)
    victim.wait_for(reached(run_dir, HALF))
    workers, began = victim.workers(), time.monotonic()
    os.kill(workers[0], number)
    done = victim.wait()
    seconds = time.monotonic() - began
    orphans = not gone(workers)
    ok = _explained(done, words) and seconds < within_s and not orphans
    ok = ok and f"(pid {workers[0]})" in done.error and bool(checkpoints(run_dir))
    seen = f"{seconds:.1f} s, {'ORPHANS' if orphans else 'no orphans'}; {bench.show(done.error)}"
    return bench.verdict(run_dir, ok, seen)
