"""A sweep's runs as Ray tasks, on a cluster that is there or on this machine alone.

A task does nothing but start the run's own command and wait for it (`fetchlab.launchers.process`):
nothing of a run passes through Ray, which gives out cores, memory and GPUs. Ray would start a lost
task again by itself, but counts restarts and not what they bring: so it is done here.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from fetchlab.checkpoint.find import env_steps_reached
from fetchlab.checkpoint.signals import StopFlag
from fetchlab.errors import ConfigError, require
from fetchlab.fields import Min
from fetchlab.launchers import OUTPUT, Job
from fetchlab.launchers.process import POLL_S, work
from fetchlab.preflight.budget import format_bytes
from fetchlab.preflight.sizes import usable_cores

#: Of a run at the same env steps: the next one is its end.
LOSSES_WITHOUT_PROGRESS = 2
#: Nothing is passed through it; Ray wants no less.
_OBJECT_STORE_BYTES = 80 * 2**20
_CONNECT_S = 10.0


class Ray:
    """Gives each run to the node that has room for it; all nodes see the runs' folders.

    A run whose node dies goes on elsewhere from its newest valid checkpoint. The waiting command is
    part of the cluster: when it ends, its runs end.

    Args:
        address: of a cluster, or ``auto``: one that runs on this machine. None: ``RAY_ADDRESS``,
            or where that is not set a cluster of this machine's cores, for this command alone.
        cores_per_run: of which learner threads and workers take what they are not told.
        runs_per_gpu: that share one.

    Raises:
        ConfigError: Ray is not installed, or no cluster answers.
    """

    def __init__(
        self,
        address: str | None,
        cores_per_run: Annotated[int, Min(1)],
        runs_per_gpu: Annotated[int, Min(1)],
    ) -> None:
        self.cores_per_run: int | None = cores_per_run
        self._gpu_share, self._ray = 1 / runs_per_gpu, _connected(address)
        self._lost = Counter[tuple[Job, int]]()

    def launch(self, jobs: Sequence[Job], flag: StopFlag) -> Iterator[tuple[Job, int | None]]:
        """See `Launcher`; where ``flag`` asks for it, running jobs commit and end."""
        ray, told = self._ray, False
        try:
            for job in jobs:
                self._require_room(job)
            running = {self._submit(job): job for job in jobs}
            while running:
                if flag.stop and not told:
                    told = True
                    for task in running:
                        ray.cancel(task)
                for task in ray.wait([*running], timeout=POLL_S)[0]:
                    job, code = running.pop(task), None
                    try:
                        code = ray.get(task)
                    except ray.exceptions.RayError as error:
                        if not flag.stop and self._goes_on(job, error):
                            running[self._submit(job)] = job
                            continue
                    yield job, code
        finally:
            ray.shutdown()

    def _submit(self, job: Job) -> Any:
        needs = self._needs(job)
        asked = {"num_cpus": needs["CPU"], "num_gpus": needs["GPU"], "memory": needs["memory"]}
        return self._ray.remote(max_retries=0, name=job.folder.name, **asked)(work).remote(job)

    def _needs(self, job: Job) -> dict[str, float]:
        """By Ray's names of what a node has."""
        gpu = self._gpu_share if job.gpu else 0
        return {"CPU": job.cores, "GPU": gpu, "memory": job.memory_bytes}

    def _require_room(self, job: Job) -> None:
        """Refuse a run that no node is large enough for: its task would wait for ever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needs = self._needs(job)
        require(
            any(all(node.get(name, 0) >= need for name, need in needs.items()) for node in nodes),
            "launcher",
            "ray",
            f"a node with {_shown(needs)} for {job.folder.name}, and there are "
            + (" and ".join(sorted({_shown(node) for node in nodes})) or "none"),
            "lower launcher.cores_per_run, trainer.threads or collect.workers, or add a node",
        )

    def _goes_on(self, job: Job, error: Any) -> bool:
        """Whether it has lost its node, and comes further each time; else its folder says why."""
        if isinstance(error, self._ray.exceptions.RayTaskError):  # the node could not start it
            _say(job, f"{type(error.cause).__name__}: {error.cause}")
            return False
        env_steps = env_steps_reached(job.folder)
        self._lost[job, env_steps] += 1
        if (times := self._lost[job, env_steps]) > LOSSES_WITHOUT_PROGRESS:
            _say(job, f"lost {times} times at {env_steps:,} env steps: {error}")
            return False
        print(f"lost      {job.folder.name} at {env_steps:,} env steps: it goes on", flush=True)
        return True


def _connected(address: str | None) -> Any:
    """Ray's own module, once a cluster has answered.

    It is imported and initialised here, where no signal is listened to: it takes SIGTERM.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        way = "pip install -e '.[ray]', or use launcher=local"
        raise ConfigError("launcher", "ray", "an installed Ray", way) from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    asked, own = address or os.environ.get("RAY_ADDRESS") or "local", dict[str, Any]()
    if asked == "local":
        # Else Ray leaves one in the home folder.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())
        own = {"num_cpus": usable_cores(), "object_store_memory": _OBJECT_STORE_BYTES}
        own |= {"include_dashboard": False}
    try:
        host, _, port = asked.removeprefix("ray://").rpartition(":")
        if port.isdecimal():  # where nobody answers Ray tries for minutes, and says so
            socket.create_connection((host, int(port)), _CONNECT_S).close()
        ray.init(address=asked, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:  # a plain one where it takes too long to start
        says = " ".join(str(error).split())
        way = f"ray start --head, or leave launcher.address and RAY_ADDRESS out ({says})"
        raise ConfigError("launcher.address", asked, "a Ray cluster that answers", way) from error
    # Where a raylet dies each of the others sends its log, which only Ray's debugger can turn off.
    ray._private.worker._worker_logs_enabled = False
    return ray


def _shown(resources: Mapping[str, float]) -> str:
    cores, memory = resources.get("CPU", 0), format_bytes(resources.get("memory", 0))
    gpus = f", {gpu:g} GPU" if (gpu := resources.get("GPU")) else ""
    return f"{cores:g} cores, {memory}{gpus}"


def _say(job: Job, cause: str) -> None:
    """Among the run's own words, where the sweep looks for what ended it."""
    job.folder.mkdir(parents=True, exist_ok=True)
    with (job.folder / OUTPUT).open("a") as output:
        output.write(f"error: {' '.join(cause.split())}\n")
