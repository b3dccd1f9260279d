"""A sweep's runs as SLURM jobs, through SLURM's own commands.

No library in between: a job is the run's own command, so SLURM's signals reach the run, which
commits and requeues itself (`fetchlab.requeue`). Hydra's submitit launcher (1.2.0) ends a sweep at
its first failure; submitit (1.5.4) asks ``sacct`` what became of a job, and waits for ever for one
that was killed where a cluster keeps no accounts.
"""

from __future__ import annotations

import math
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from fetchlab.checkpoint.signals import StopFlag
from fetchlab.durable import write_text
from fetchlab.errors import ConfigError, RunFailedError, require
from fetchlab.fields import Above, Min
from fetchlab.launchers import OUTPUT, Job

#: In a run's folder: the number of its newest job.
JOB_FILE = "slurm_job"


class Slurm:
    """Submits each run as a job of its own, and waits; the jobs do not need the waiting command.

    The same command, given again, waits for jobs that are still queued instead of submitting them
    twice.

    Args:
        cores_per_run: of which learner threads and workers take what they are not told.
        gpus_per_run: for runs that train on one; ``trainer=gpu``, since this machine may have none.
        minutes: before a job ends; its run goes on in the next one. None: the partition's limit.
        notice_s: before that a run is told to commit and to requeue its job: longer than a round
            and an evaluation take.
        partition: None: the cluster's default.
        options: more of sbatch's own.
        poll_s: between two looks at the queue.
    """

    def __init__(
        self,
        cores_per_run: Annotated[int, Min(1)],
        gpus_per_run: Annotated[int, Min(1)],
        minutes: Annotated[int, Min(1)] | None,
        notice_s: Annotated[int, Min(1)],
        partition: str | None,
        options: list[str],
        poll_s: Annotated[float, Above(0)],
    ) -> None:
        found = shutil.which("sbatch") and shutil.which("squeue")
        way = "run it on the cluster's login node, or use launcher=local"
        require(bool(found), "launcher", "slurm", "a machine with SLURM's sbatch and squeue", way)
        self.cores_per_run: int | None = cores_per_run
        self._gpus, self._poll_s = gpus_per_run, poll_s
        self._options = [f"--signal=B:USR1@{notice_s}", *options]
        self._options += [f"--time={minutes}"] if minutes else []
        self._options += [f"--partition={partition}"] if partition else []

    def launch(self, jobs: Sequence[Job], flag: StopFlag) -> Iterator[tuple[Job, int | None]]:
        """See `Launcher`; where ``flag`` asks for it, the jobs go on alone."""
        queued = _queued()
        numbers = {job: _still(job.folder, queued) or self._submit(job) for job in jobs}
        while numbers and not flag.stop:
            time.sleep(self._poll_s)
            queued = _queued()
            for job in [job for job, number in numbers.items() if number not in queued]:
                del numbers[job]
                yield job, None

    def _submit(self, job: Job) -> str:
        job.folder.mkdir(parents=True, exist_ok=True)
        asked = [
            *("sbatch", "--parsable", "--requeue", "--open-mode=append"),
            *(f"--job-name={job.folder.name}", f"--output={job.folder / OUTPUT}"),
            *("--nodes=1", "--ntasks=1", f"--cpus-per-task={job.cores}"),
            f"--mem={math.ceil(job.memory_bytes / 2**20)}M",
            *([f"--gpus={self._gpus}"] if job.gpu else []),
            *self._options,
        ]
        # `exec`: the signal is for the batch shell alone, which would not hand it on.
        script = f"#!/bin/sh\nexec {shlex.join(job.command)}\n"
        done = subprocess.run(asked, input=script, capture_output=True, text=True, check=False)
        if done.returncode:
            says = " ".join(done.stderr.split())
            raise ConfigError("launcher", "slurm", "a job that sbatch accepts", f"it says: {says}")
        number = done.stdout.strip().partition(";")[0]
        write_text(job.folder / JOB_FILE, f"{number}\n")
        return number


def _still(folder: Path, queued: set[str]) -> str | None:
    """The job of an earlier command that runs or waits for this folder."""
    try:
        number = (folder / JOB_FILE).read_text().strip()
    except OSError:
        return None
    return number if number in queued else None


def _queued() -> set[str]:
    """Numbers of this user's jobs that wait, run, or are being requeued."""
    asked = ["squeue", "--me", "--noheader", "--format=%A"]
    for pause_s in (1, 10, 60, 0):  # a controller may be away for a moment
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return set(done.stdout.split())
        time.sleep(pause_s)
    says = " ".join(done.stderr.split())
    raise RunFailedError(f"squeue does not answer ({says}); the jobs go on: give the command again")
