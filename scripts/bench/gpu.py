"""One CUDA GPU: updates, whole training, what graphs, determinism and other variants change.

    python scripts/bench/gpu.py [--quick] [--rehearse] [--rows NAME,...] [--envs N] [--experiment E]

`make bench` asks for ``updates,graphs,determinism,training``; `scripts/gpu_check.sh` for all:

* ``versions``: the host, its card, driver and renderer (``gpu_host``: bytes of device memory).
* ``toy``: tiny networks in float32, captured updates against eager ones, largest relative
  difference of a weight (``gpu_toy_weight_difference``).
* ``graphs``: the experiment's critic loss with against without CUDA graphs
  (``gpu_graphs_loss_difference``, largest relative difference).
* ``resume``: SIGTERM and resume with deterministic algorithms (``gpu_exact_resume``, 1 if the run
  has the H of an undisturbed one).
* ``updates``: sampling on the device included, with and without graphs, and a profile of each
  (``gpu_updates_per_s``, ``gpu_eager_updates_per_s``).
* ``variants``: updates/s of an update that is run in another way, over the one as it is.
* ``frames``: frames/s of all workers with the device idle and while it trains.
* ``training``: ``gpu_train_env_steps_per_s`` and ``gpu_utilisation``, a share of the same time.
* ``determinism``: ``gpu_deterministic_cost``, updates/s without over with it; for information.
* ``run``: the experiment until the deadline, stopped by SIGTERM; ``--out`` gets its small files.

Each row names the card. Rows that are asked for do not depend on each other: one that fails is
reported, the others follow. Without a CUDA device every row says so. ``--rehearse`` runs the same
code at toy size on whatever device there is; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from gpu_learner import Asked
from gpu_processes import resume_row, run_row
from gpu_runs import frames_rows, training_rows, versions_row
from gpu_updates import determinism_row, graphs_row, toy_row, updates_rows, variants_rows
from table import main, say

BEGAN = time.perf_counter()
ROWS: dict[str, Callable[[Asked, Path], None]] = {
    "versions": versions_row,
    "toy": toy_row,
    "graphs": graphs_row,
    "resume": resume_row,
    "updates": updates_rows,
    "variants": variants_rows,
    "frames": frames_rows,
    "training": training_rows,
    "determinism": determinism_row,
    "run": run_row,
}
BENCH = "updates,graphs,determinism,training"


def names(text: str) -> list[str]:
    """Names of rows, separated by commas."""
    given = text.split(",")
    for name in given:
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"{name!r}: expected some of {', '.join(ROWS)}")
    return given


def bench(
    quick: bool,
    rehearse: bool,
    rows: list[str],
    envs: int | None,
    experiment: str,
    seconds: float,
    out: Path | None,
) -> None:
    """Print the rows.

    Raises:
        SystemExit: names the rows that failed.
    """
    torch.set_num_threads(1)  # the device computes; a training chooses its own number
    failed, began = [], BEGAN
    for name in rows:
        asked = Asked(experiment, rehearse, quick, envs, began + seconds, out)
        if not (torch.cuda.is_available() or rehearse):
            asked.missing(f"gpu_{name}", None, "no CUDA device")
            continue
        say(f"{name}: {asked.seconds_left():.0f} s left")
        # The system's folder for temporary files, not the checkout's: a GPU host may lend that.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                ROWS[name](asked, Path(folder))
            except Exception as error:
                traceback.print_exc()
                asked.missing(f"gpu_{name}", None, f"{type(error).__name__}: {error}"[:300])
                failed.append(name)
        began = time.perf_counter()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(
        __doc__,
        bench,
        rehearse="toy size, on a CPU too; the figures mean nothing",
        rows={"type": names, "default": BENCH, "help": f"of {', '.join(ROWS)}; default {BENCH}"},
        envs={"type": int, "help": "environments; default: the experiment's"},
        experiment={"default": "pixel_push_nodrq_gpu", "help": "of all rows"},
        seconds={
            "type": float,
            "default": 120.0,
            "help": "for each row; training goes on so long",
        },
        out={"type": Path, "help": "folder for the small files of `run`"},
    )
