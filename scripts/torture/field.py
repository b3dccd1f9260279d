"""Rows 31 to 36, met in the field: sweeps, stray files, schedulers, suspended machines."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from run_hash import run_hash

from torture import inject
from torture.bench import HALF, KINDS, TOTAL, Bench, Result, checkpoints, reached
from torture.victims import gone

#: What a scheduler sets for the last of four tasks, and what launchers set for a second process.
SCHEDULED = {
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NAME": "push",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "3",
    "SLURM_NODELIST": "node[1-2]",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "2",
}
SUSPENDED_S, TIMEOUT_S = 6.0, 3.0


def run_of_a_sweep(bench: Bench, part: int) -> Result:
    """Row 31: the second run of a sweep, resumed, is the run that had a process of its own."""
    sweep = bench.folder / "sweep"
    args = ["-m", *KINDS[bench.kind], "seed=5,0", f"total_env_steps={TOTAL // 2}"]
    done = bench.command([*args, f"run_dir={sweep}"]).wait()
    if done.rc != 0:
        return Result(False, f"the sweep ended with {done.rc}: {bench.show(done.text)}")
    run_dir = next(sweep.glob("*_s0"))
    resumed = bench.resume(run_dir, f"total_env_steps={TOTAL}").wait()
    same = resumed.rc == 0 and run_hash(run_dir)["H"] == bench.h
    seen = f"resumed with exit {resumed.rc}, {'same' if same else 'ANOTHER'} H"
    return Result(same, seen + (f"; {bench.show(resumed.error)}" if resumed.error else ""))


def stray_files(bench: Bench, part: int) -> Result:
    """Row 32: a checkpoint's path given to resume=, another folder's, and a desktop's files."""
    run_dir, foreign = bench.copy_half(), bench.folder / "foreign"
    foreign.mkdir()
    newest = sorted((run_dir / "checkpoints").glob("step_*"))[-1]
    files = sorted(path.name for path in newest.iterdir())
    slip, elsewhere = bench.resume(newest).wait(), bench.resume(foreign).wait()
    clean = sorted(path.name for path in newest.iterdir()) == files and not list(foreign.iterdir())
    refused = slip.rc == 2 and str(run_dir) in slip.error and elsewhere.rc == 2
    for place in (newest, run_dir / "checkpoints"):
        for name in (".DS_Store", ".lock", "Thumbs.db"):
            (place / name).write_bytes(b"not ours")
    seen = f"exit {slip.rc} and {elsewhere.rc}, nothing written: {bench.show(slip.error)}"
    return bench.verdict(run_dir, refused and clean, seen, always=True)


def scheduler(bench: Bench, part: int) -> Result:
    """Row 33: a scheduler's variables and signals: SIGUSR1, SIGHUP, SIGTERM in an evaluation."""
    run_dir = bench.folder / "run"
    number = (signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM)[part]
    evaluating = inject.in_evaluation(lambda env: os.kill(os.getpid(), number), call=60)
    fault = evaluating if part == 2 else None
    victim = bench.run(run_dir=run_dir, environment=SCHEDULED, fault=fault)
    if part < 2:
        victim.wait_for(reached(run_dir, HALF))
        os.killpg(victim.pid, number)  # its workers too, as `scancel` and terminals do
    done = victim.wait()
    ok = done.rc == 128 + number and f"stopped by {number.name}" in done.text
    ok = ok and "srun" not in done.text and max(checkpoints(run_dir)) >= HALF
    where = "in an evaluation" if part == 2 else "to the process group"
    return bench.verdict(run_dir, ok, f"{number.name} {where}: exit {done.rc}", always=True)


def suspended(bench: Bench, part: int) -> Result:
    """Row 34: the whole process group stopped for longer than a worker may be silent."""
    run_dir = bench.folder / "run"
    victim = bench.run(f"collect.timeout_s={TIMEOUT_S}", run_dir=run_dir)
    victim.wait_for(reached(run_dir, HALF))
    os.killpg(victim.pid, signal.SIGSTOP)
    time.sleep(SUSPENDED_S)
    os.killpg(victim.pid, signal.SIGCONT)
    done = victim.wait()
    same = done.rc == 0 and run_hash(run_dir)["H"] == bench.h
    seen = f"stopped for {SUSPENDED_S:g} s with collect.timeout_s={TIMEOUT_S:g}: exit {done.rc}"
    return Result(same, f"{seen}, {'same' if same else 'ANOTHER'} H")


def evaluation_worker(bench: Bench, part: int) -> Result:
    """Row 35: an evaluation's worker is killed at the first evaluation, or at the last."""
    run_dir = bench.folder / "run"
    fault = inject.in_evaluation(kill_worker, call=(10, 60)[part])
    done = bench.run(run_dir=run_dir, fault=fault).wait()
    at, reason = (TOTAL // 2, TOTAL)[part], "was killed by SIGKILL"
    ok = done.rc == 1 and reason in done.error and max(checkpoints(run_dir)) == at
    seen = f"exit {done.rc}, checkpoint of {max(checkpoints(run_dir))} env steps"
    return bench.verdict(run_dir, ok, f"{seen}; {bench.show(done.error)}", always=True)


def kill_worker(env: object) -> None:
    """Kill -9 the first worker of the environment ``env``, and wait until it is dead."""
    pid = env.base_env.pool.pids[0]  # type: ignore[attr-defined]
    os.kill(pid, signal.SIGKILL)
    gone([pid])


def killed_at_start(bench: Bench, part: int) -> Result:
    """Row 36: killed before the first checkpoint; the same command starts it, resume= says so."""
    run_dir = bench.folder / "run"
    fault: Callable[[], None] = (inject.no_trainer, inject.no_first_commit)[part]
    killed = bench.run(run_dir=run_dir, fault=fault).wait()
    left = ", ".join(sorted(path.name for path in run_dir.iterdir()))
    resumed = bench.resume(run_dir).wait()
    again = bench.run(run_dir=run_dir).wait()
    same = again.rc == 0 and run_hash(run_dir)["H"] == bench.h
    ok = killed.rc == -signal.SIGKILL and resumed.rc in (1, 2) and "start" in resumed.error
    seen = f"left {left}; resume exit {resumed.rc}, started again {'same' if same else 'ANOTHER'} H"
    return Result(ok and same, seen)
