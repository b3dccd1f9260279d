"""Rows about `src/train.py` as a process: exact resume after SIGTERM, and a real run."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from gpu_learner import Asked
from gpu_runs import fitting_capacity
from table import ROOT, say

STOPPED = 143  # the exit code of a run that SIGTERM stopped
STOP_S = 15.0  # for a run to commit and end, and for its files to be copied
KEPT = ("config.yaml", "metrics.csv", "evaluation.json", "summary.json")


class Run:
    """`python src/train.py <args>`, its output on stderr."""

    def __init__(self, *args: str) -> None:
        command = [sys.executable, str(ROOT / "src" / "train.py"), *args]
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=sys.stderr, stdin=subprocess.DEVNULL
        )

    def terminate_when(self, due: Callable[[], bool]) -> int:
        """Send SIGTERM once ``due()``, unless it ends before; return its exit code."""
        while self._process.poll() is None:
            if due():
                self._process.send_signal(signal.SIGTERM)
                break
            time.sleep(0.005)
        return self.wait()

    def wait(self) -> int:
        """Its exit code."""
        return self._process.wait()


def resume_row(asked: Asked, folder: Path) -> None:
    """SIGTERM in the middle, then resume: the same H as the run that nothing disturbed."""
    sys.path.insert(0, str(ROOT / "scripts"))
    from run_hash import run_hash

    n_envs = asked.cfg()["collect"]["n_envs"]
    total = 120 * n_envs  # env steps: two episodes of each environment, and a part
    arguments = (
        *(f"experiment={asked.experiment}", *asked.overrides, "trainer.deterministic=true"),
        *(f"total_env_steps={total}", f"replay.capacity={total}", "algo.utd_ratio=0.25"),
        *(f"collect.learning_starts={50 * n_envs}", f"callbacks.log_every_env_steps={5 * n_envs}"),
        *(
            f"callbacks.evaluation.every_env_steps={total}",
            f"callbacks.evaluation.episodes={n_envs}",
        ),
    )
    calm, disturbed = folder / "calm", folder / "disturbed"
    undisturbed = Run(*arguments, f"run_dir={calm}")
    code = Run(*arguments, f"run_dir={disturbed}").terminate_when(
        lambda: logged_env_steps(disturbed) >= 70 * n_envs
    )
    stopped_at = logged_env_steps(disturbed)
    if code != STOPPED:
        raise RuntimeError(f"a run that got SIGTERM ended with {code}, not {STOPPED}")
    codes = Run(f"resume={disturbed}").wait(), undisturbed.wait()
    if any(codes):
        raise RuntimeError(f"the resumed and the undisturbed run ended with {codes}")
    ours, theirs = run_hash(disturbed), run_hash(calm)
    differ = [part for part in theirs if part != "H" and ours.get(part) != theirs[part]]
    same = ours["H"] == theirs["H"]
    details = {"stopped_at": stopped_at, "of": total, "differ": differ}
    asked.row("gpu_exact_resume", float(same), 1.0, 1.0, same, **details)


def logged_env_steps(run_dir: Path) -> int:
    """Env steps of the last complete row of metrics; 0 before the first."""
    path = run_dir / "metrics.csv"
    rows = list(csv.reader(path.read_text().splitlines()[:-1])) if path.exists() else []
    return int(rows[-1][0]) if len(rows) > 1 else 0


def run_row(asked: Asked, folder: Path) -> None:
    """The experiment itself until the deadline, stopped by SIGTERM; its files stay."""
    run_dir = folder / "run"
    capacity = fitting_capacity(folder, 1_000_000)
    args = [f"experiment={asked.experiment}", *asked.overrides, f"run_dir={run_dir}"]
    if not asked.rehearse:
        args.append(f"replay.capacity={capacity}")
    due = threading.Event()  # also where the host itself ends us
    signal.signal(signal.SIGTERM, lambda *_: due.set())
    code = Run(*args).terminate_when(lambda: due.is_set() or asked.seconds_left() < STOP_S)
    if asked.out is not None:
        keep(run_dir, asked.out)
    if code not in (0, STOPPED):
        raise RuntimeError(f"the run ended with {code}")
    summary = json.loads((run_dir / "summary.json").read_text())
    del summary["experiment"]
    asked.row("gpu_run", summary["env_steps"], summary=summary)


def keep(run_dir: Path, out: Path) -> None:
    """Copy what is small: configuration, tables, and the best weights."""
    best = sorted((run_dir / "checkpoints").glob("best_*"))[-1:]
    files = [run_dir / name for name in KEPT] + [file for one in best for file in one.iterdir()]
    for file in files:
        target = out / file.relative_to(run_dir)
        if file.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            say(f"kept {target}")
