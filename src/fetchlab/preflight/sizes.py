"""How many processes and threads a run takes, what it stores and holds, and whether that fits."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch

from fetchlab.errors import require
from fetchlab.preflight import CORES
from fetchlab.preflight.budget import check_budget, fitting_capacity
from fetchlab.schema import Run

CHECKPOINT_BYTES = 200_000_000  # two checkpoints, the best weights and the logs, generously
DEVICE_MEMORY_SHARE = 0.9  # of what is free there; the rest is for libraries and the allocator
#: What a forward pass keeps for its backward pass, per pixel of the image: IMPALA's encoder, the
#: largest one here; ManipulationCNN keeps 250.
ACTIVATION_BYTES_PER_PIXEL = 450
# Resident memory, rounded up. A worker with 1, 2, ... 5 FetchPush environments, MB: 118, 140, 154,
# 163, 172 without a camera; 210, 249, 291, 318, 343 with Mesa's software EGL and quality=fast, at
# 32x32 as at 84x84; 274, 379, 486, 578, 668 with quality=reference, whose shadow map is 4096x4096.
# A process with torch, lightning and torchrl imported: 386 MB.
MAIN_PROCESS_BYTES = 600_000_000
WORKER_BYTES = 120_000_000
ENV_BYTES = 25_000_000
RENDERING_WORKER_BYTES = 75_000_000
RENDERER_BYTES = {"fast": 20_000_000, "reference": 90_000_000}
# An offscreen buffer with its four samples, depth and copies: 65 bytes at 512x512 and 1024x1024.
RENDERED_PIXEL_BYTES = 70
# Parameter, gradient, two Adam moments, target network.
COPIES_OF_PARAMETERS = 5


def threads_and_workers(run: Run, cores: int | None = None) -> tuple[int, int]:
    """The learner's torch threads and the worker processes beside it: together at most the cores.

    Of this process, unless ``cores`` says how many another one will have.

    What was asked is taken as it is, and what is null takes the cores that the other one leaves, at
    least one, workers at most one per environment. Where both are null: one thread beside a GPU;
    else a quarter of the cores simulates and the learner has the rest, because a rendered step
    takes a worker 2 to 4 ms and its share of an update takes the learner ten to a hundred times as
    long. More of both than cores would be slow: a thread that shares its core with a worker makes
    all other threads wait for it, in every operation.
    """
    cores, n_envs = cores or usable_cores(), run.collect.n_envs
    threads, workers = run.trainer.threads, run.collect.workers
    if threads is None and trains_on_cuda(run):
        threads = 1
    if threads is None:
        workers = workers or min(n_envs, max(1, cores // 4))
        threads = max(1, cores - workers)
    return threads, workers or min(n_envs, max(1, cores - threads))


def learner_threads(run: Run) -> int:
    """Torch threads of the learner."""
    return threads_and_workers(run)[0]


def collecting_workers(run: Run) -> int:
    """Worker processes beside the learner."""
    return threads_and_workers(run)[1]


def worker_count(asked: int | None, n_envs: int) -> int:
    """Worker processes while the learner waits: what was asked, or one per core, at most N."""
    return asked or min(n_envs, usable_cores())


def evaluation_workers(run: Run) -> int:
    """Worker processes of the evaluation: what was asked, or as in ``collect``, where that fits."""
    n_envs, asked = run.callbacks.evaluation.n_envs, run.callbacks.evaluation.workers
    return asked or min(n_envs, worker_count(run.collect.workers, n_envs))


def usable_cores() -> int:
    """Cores that this process may use; Ray binds none, SLURM those it grants only where told to."""
    granted = [os.environ.get(name, "") for name in (CORES, "SLURM_CPUS_PER_TASK")]
    told = [int(text) for text in granted if text.isdecimal() and int(text)]
    return min([len(os.sched_getaffinity(0)), *told])


def trains_on_cuda(run: Run) -> bool:
    """Whether the learner is on a CUDA device."""
    return run.trainer.accelerator != "cpu" and torch.cuda.is_available()


def replay_device(run: Run) -> torch.device:
    """Where batches are drawn: ``cpu``, or ``cuda`` with all rows in the device's memory too.

    Raises:
        ConfigError: no CUDA device.
    """
    asked, cuda = run.replay.device, trains_on_cuda(run)
    require(
        asked != "cuda" or cuda,
        "replay.device",
        asked,
        "cpu where no CUDA device trains",
        "use replay.device=cpu or auto",
    )
    return torch.device("cuda" if cuda and asked != "cpu" else "cpu")


def check_fits(
    run: Run, run_dir: Path, disk_bytes: int, bytes_per_transition: float, memory: Memory
) -> None:
    """Refuse a run that does not fit on the disk or in memory, before anything is allocated.

    ``disk_bytes`` are the whole replay's, with its margin, ``bytes_per_transition`` without it.

    Raises:
        ConfigError: with the sum, what is free, and the largest replay that fits.
    """
    if trains_on_cuda(run):
        memory.check_device(disk_bytes, bytes_per_transition)
    check_budget(
        (run_dir / "replay").resolve(),  # which may be a link to another disk
        disk_needed(run_dir, disk_bytes),
        memory.total_bytes(),
        min(run.replay.capacity, run.total_env_steps),
        bytes_per_transition,
    )


def disk_needed(run_dir: Path, disk_bytes: int) -> int:
    """What a run whose replay has so many bytes will still write into its folder."""
    present = sum(file.stat().st_size for file in (run_dir / "replay").glob("*.bin"))
    return max(disk_bytes - present, 0) + CHECKPOINT_BYTES


class Memory:
    """What a run holds beside its replay on the disk.

    Args:
        run: what to run.
        module: the learner, an `OffPolicy`.
        at_once: of how many updates batches are in memory together, at most.
    """

    def __init__(self, run: Run, module: Any, at_once: int) -> None:
        self._run, self._parameters = run, sum(p.nbytes for p in module.parameters())
        self._period = module.period
        self._pixels = run.obs.pixels if run.obs.sees_pixels else None
        per_round = run.algo.utd_ratio * run.collect.n_envs
        pieces = set()
        for updates in {math.floor(per_round), math.ceil(per_round)}:
            pieces |= {min(updates, at_once), updates % at_once}
        # Updates on one batch of batches: a graph for each, and for each place in the period.
        self._pieces = pieces - {0}

    def total_bytes(self) -> int:
        """Estimate over all processes of the run; the replay is page cache, not memory."""
        run, working = self._run, self._update_bytes()
        if trains_on_cuda(run):  # what is left for this side: the batches that are drawn here
            working = 0 if replay_device(run).type == "cuda" else self._batch_bytes()
        per_worker, per_env = WORKER_BYTES, ENV_BYTES
        if self._pixels is not None:
            side = self._pixels.rendered_size
            per_worker += RENDERING_WORKER_BYTES
            per_env += RENDERER_BYTES[self._pixels.quality] + RENDERED_PIXEL_BYTES * side**2
        processes = MAIN_PROCESS_BYTES
        processes += (collecting_workers(run) + evaluation_workers(run)) * per_worker
        processes += (run.collect.n_envs + run.callbacks.evaluation.n_envs) * per_env
        return processes + COPIES_OF_PARAMETERS * self._parameters + working

    def check_device(self, replay_bytes: int, bytes_per_transition: float) -> None:
        """Refuse updates, and a replay if it is there, that do not fit in the GPU's memory."""
        run, mirrored = self._run, replay_device(self._run).type == "cuda"
        free = int(DEVICE_MEMORY_SHARE * torch.cuda.mem_get_info()[0])
        updates = self._update_bytes() + COPIES_OF_PARAMETERS * self._parameters
        needed = updates + (replay_bytes if mirrored else 0)
        fits = fitting_capacity(needed, free, run.replay.capacity, bytes_per_transition)
        smaller_replay = f"replay.capacity={fits}" if fits else "a smaller algo.batch_size"
        require(
            needed <= free,
            "replay.device" if mirrored else "algo.batch_size",
            "cuda" if mirrored else run.algo.batch_size,
            f"at most {free:,} bytes on that device, this run has {needed:,} there, {updates:,} of "
            "them for its updates",
            f"use replay.device=cpu, or {smaller_replay}" if mirrored else "use a smaller one",
        )

    def _update_bytes(self) -> int:
        """What updates hold beside the networks: batches, twice under a graph, and activations."""
        run, graphs, activations = self._run, self._run.trainer.cuda_graphs, 0
        if self._pixels is not None:
            image = self._pixels.image_size**2  # further cameras are channels of it
            activations = ACTIVATION_BYTES_PER_PIXEL * image * run.algo.batch_size
        if graphs and trains_on_cuda(run):  # each keeps the memory that it was recorded with
            activations *= len(self._pieces) * self._period
        return self._batch_bytes() * (2 if graphs else 1) + activations

    def _batch_bytes(self) -> int:
        """The batches that are in memory together."""
        run, per_sample = self._run, 1_000
        if self._pixels is not None:
            stack = run.obs.frame_stack
            frames = stack + 1 if run.algo.n_step == 1 else 2 * stack
            per_sample = math.prod(self._pixels.shape) * frames
        return per_sample * run.algo.batch_size * max(self._pieces, default=1)
