"""The process of one run, which never outlives the one that started it.

Imports nothing heavy: on a Ray cluster this is what the waiting processes load.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from functools import partial

from fetchlab.checkpoint.run_lock import LEASE_S, LOCK_FILE, RunLock, RunLockedError
from fetchlab.errors import ConfigError
from fetchlab.launchers import OUTPUT, Job
from fetchlab.preflight import CORES

POLL_S = 0.2
#: How long a run that lost its node may hold its folder: the lease, and one look at it.
PATIENCE_S = LEASE_S + 30.0
_PR_SET_PDEATHSIG = 1
#: Loaded here: a forked child must not have to.
_LIBC = ctypes.CDLL(None)


def start(job: Job, told: Mapping[str, str], cores: Collection[int]) -> subprocess.Popen[bytes]:
    """Start a job's command on some cores, its words at the end of its `OUTPUT`.

    ``told`` are environment variables of its own.
    """
    environment = {**os.environ, **told}
    environment.pop("SLURM_JOB_ID", None)  # not the run's to requeue: others are in that job, too
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / OUTPUT).open("ab") as output:
        return subprocess.Popen(
            job.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=partial(_tie, os.getpid(), cores),
        )


def work(job: Job) -> int:
    """Start a job where no cores are given out, wait for it, and return its exit code.

    What interrupts the waiting (Ray's cancelling, a node that is shut down) lets the run commit.
    For the main thread.
    """
    # By which Ray cancels; what a shell started in the background ignores it, and hands that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _await_folder(job)
    process = start(job, {CORES: str(job.cores)}, os.sched_getaffinity(0))
    try:
        while process.poll() is None:
            time.sleep(POLL_S)  # Ray interrupts between two steps of Python, and no single wait
    finally:
        if process.poll() is None:
            process.terminate()
        code = process.wait()
    return code


def _await_folder(job: Job) -> None:
    """Let the process end that a dead node has left; one that stays is the run's own to refuse."""
    ends = time.monotonic() + PATIENCE_S
    while (job.folder / LOCK_FILE).exists() and time.monotonic() < ends:
        try:
            with RunLock(job.folder):
                return
        except RunLockedError:
            time.sleep(1)
        except ConfigError:  # the run says it, too
            return


def _tie(parent: int, cores: Collection[int]) -> None:
    """In the new process: die with the launcher, and keep to the cores."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        os._exit(1)
    os.sched_setaffinity(0, cores)
