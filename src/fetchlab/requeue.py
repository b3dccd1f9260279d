"""A run in a SLURM job: stopped before its limit it asks for the job again, while it gets on.

The job's command has ``resume=auto``, so the same command continues the run. SLURM requeues by
itself where a node fails or a job is preempted; what is left is a job's own time limit.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from fetchlab.checkpoint.find import env_steps_reached
from fetchlab.durable import read_json, write_json
from fetchlab.errors import RunFailedError

#: In a run's folder: the job, and the env steps at which SLURM has restarted it.
RESTARTS = "restarts.json"
#: That may find a run where the one before it has: the next one is refused.
WITHOUT_PROGRESS = 2
ANNOUNCE = ("SIGTERM", "SIGUSR1", "SIGUSR2")


def requeue(reason: str, environment: Mapping[str, str] = os.environ) -> None:
    """Have SLURM start this job again, if a signal announced its end and nobody cancelled it.

    ``reason`` is why the run stopped; see `StopFlag`.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None or reason not in ANNOUNCE:
        return
    asked = ["squeue", "--noheader", "--format=%T", f"--jobs={job}"]
    try:
        state = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        if state != "RUNNING":  # cancelled, or preempted: then SLURM does it by itself
            return
        print(f"requeued  SLURM job {job} after {reason}", flush=True)
        subprocess.run(["scontrol", "requeue", job], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning   SLURM job {job} is not requeued: {error}", file=sys.stderr)


def require_progress(run_dir: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Count this restart of a SLURM job, and end a loop of restarts that get nowhere.

    Raises:
        RunFailedError: two restarts before this one began at the same env steps.
    """
    if environment.get("SLURM_RESTART_COUNT", "0") == "0":
        return
    job, steps = environment.get("SLURM_JOB_ID"), env_steps_reached(run_dir)
    found = read_json(run_dir / RESTARTS, dict)
    before = found.get("env_steps") if found.get("job") == job else None
    before = before if isinstance(before, list) else []
    if before[-WITHOUT_PROGRESS:] == [steps] * WITHOUT_PROGRESS:
        raise RunFailedError(
            f"no progress: SLURM job {job} was restarted {WITHOUT_PROGRESS} times at {steps:,} env "
            "steps; give it more time (launcher.minutes) or memory, then submit it again"
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    write_json(run_dir / RESTARTS, {"job": job, "env_steps": [*before, steps]})
