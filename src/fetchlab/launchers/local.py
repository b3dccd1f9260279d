"""Several runs at a time on this machine, as many as its cores, memory and GPUs hold."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, NamedTuple

from fetchlab.checkpoint.signals import StopFlag
from fetchlab.fields import Min
from fetchlab.launchers import Job
from fetchlab.launchers.process import POLL_S, start
from fetchlab.preflight.budget import available_memory_bytes
from fetchlab.preflight.sizes import usable_cores


class Local:
    """Each run is a process of its own, on cores of its own.

    A run that is too large for the machine is started all the same when nothing else runs: its own
    preflight says what is missing. A launcher that is killed takes its runs with it, at once: they
    lose what came after their newest checkpoints, and hold no lock when the sweep is given again.

    Args:
        cores_per_run: of which learner threads and workers take what they are not told; None: all.
        runs_at_once: at most; None: as many as fit.
        runs_per_gpu: that share one.
    """

    def __init__(
        self,
        cores_per_run: Annotated[int, Min(1)] | None,
        runs_at_once: Annotated[int, Min(1)] | None,
        runs_per_gpu: Annotated[int, Min(1)],
    ) -> None:
        self.cores_per_run, self._at_once = cores_per_run, runs_at_once
        self._runs_per_gpu = runs_per_gpu

    def launch(
        self,
        jobs: Iterable[Job],
        flag: StopFlag,
        unwanted: Callable[[Job], bool] = lambda job: False,
    ) -> Iterator[tuple[Job, int | None]]:
        """See `Launcher`; where ``flag`` asks for it, running jobs commit and end.

        The next job is asked for when a core is free for it, so that it may depend on those that
        have ended.

        Args:
            jobs: in this order.
            flag: asks all to end.
            unwanted: asked of each running job, many times: whether it shall commit and end.
        """
        waiting, running, told = iter(jobs), list[_Running](), set[Job]()
        cores = sorted(os.sched_getaffinity(0))[: usable_cores()]
        memory = available_memory_bytes()
        gpus = _gpus() * self._runs_per_gpu
        at_once = self._at_once or len(cores)

        def fits(job: Job) -> bool:
            taken = sum(one.job.memory_bytes for one in running)
            room = len(cores) >= job.cores and memory - taken >= job.memory_bytes
            return not running or (room and (bool(gpus) or not job.gpu))

        def following() -> Job | None:
            room = not running or (bool(cores) and len(running) < at_once)
            return next(waiting, None) if room and not flag.stop else None

        job = following()
        try:
            while running or (job and not flag.stop):
                while job and not flag.stop and fits(job):
                    own, cores = cores[: job.cores], cores[job.cores :]
                    gpu = gpus.pop(0) if job.gpu and gpus else None
                    card = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
                    running.append(_Running(job, start(job, card, own), own, gpu))
                    job = following()
                for one in running:
                    if one.job not in told and (flag.stop or unwanted(one.job)):
                        told.add(one.job)
                        one.process.terminate()
                for one in [one for one in running if one.process.poll() is not None]:
                    running.remove(one)
                    cores = sorted([*cores, *one.cores])
                    gpus += [] if one.gpu is None else [one.gpu]
                    yield one.job, one.process.returncode
                job = job or following()
                time.sleep(POLL_S)
        finally:
            for one in running:
                one.process.kill()
                one.process.wait()


class _Running(NamedTuple):
    job: Job
    process: subprocess.Popen[bytes]
    cores: list[int]
    gpu: str | None


def _gpus() -> list[str]:
    """Those that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(n) for n in range(torch.cuda.device_count())]
