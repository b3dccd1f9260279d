"""Rows about the whole: the host, rendering, and training in this process."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_learner import Asked, Learner, filled_replay, numerics
from training import training_rates

STUDY_ENV_STEPS_PER_S = 37.0  # its best
TRAINING_TARGETS = {"pixel_push_nodrq_gpu": 2000.0}  # env steps/s, by experiment
UTILISATION_TARGET = 0.8
PACKAGES = (
    *("torch", "numpy", "lightning", "torchrl", "tensordict", "mujoco", "gymnasium"),
    *("gymnasium-robotics", "hydra-core", "omegaconf", "triton"),
)
SOFTWARE = ("llvmpipe", "softpipe", "swrast", "osmesa")  # renderers without a GPU
#: Disk and device memory that a replay may take of what is free.
REPLAY_SHARE = 0.5
BYTES_PER_TRANSITION = 22_000


def versions_row(asked: Asked, folder: Path) -> None:
    """What the host is, and whether its GPU renders."""
    from fetchlab.errors import ConfigError
    from fetchlab.preflight.renderer import choose_renderer

    found: dict[str, Any] = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    memory, capability = 0, None
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        capability = list(torch.cuda.get_device_capability())
        found["cudnn"] = str(torch.backends.cudnn.version())
    try:
        renderer = choose_renderer().description
    except ConfigError as error:
        renderer = f"none: {error}"
    by_gpu = not renderer.startswith("none") and not any(
        name in renderer.lower() for name in SOFTWARE
    )
    asked.row(
        "gpu_host",
        memory,
        ok=not renderer.startswith("none"),
        versions=found,
        driver=" ".join(_nvidia_smi("driver_version")),
        compute_capability=capability,
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        scratch_free_bytes=shutil.disk_usage(folder).free,
        renderer=renderer,
        renders="GPU" if by_gpu else "CPU",
    )


def _nvidia_smi(query: str, *more: str) -> list[str]:
    """Lines that the driver's tool answers with; none where it is not there."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", *more]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split("\n")[:-1]


# ---------------------------------------------------------------------------------------- rendering


def frames_rows(asked: Asked, folder: Path) -> None:
    """Frames per second of all workers, while the device is idle and while it trains."""
    from fetchlab.build import build_env
    from fetchlab.config import typed
    from fetchlab.preflight.renderer import choose_renderer
    from fetchlab.preflight.sizes import collecting_workers

    choose_renderer()
    cfg = asked.cfg()
    n_envs, workers = cfg["collect"]["n_envs"], collecting_workers(typed(cfg))
    env = build_env(typed(cfg), n_envs, workers)
    try:
        env.base_env.pool.reset(list(range(n_envs)))
        rate = partial(frames_per_s, env.base_env.pool, n_envs, 3 * asked.window_s)
        rate()
        idle = rate()
        about: dict[str, Any] = {"n_envs": n_envs, "workers": workers}
        asked.row("gpu_frames_per_s_idle", idle, **about)
        learner = Learner(filled_replay(folder / "replay", cfg, asked.transitions), cfg)
        with numerics():
            learner.warm_up()
        with training(learner) as updates_per_s:
            busy = rate()
            updates = updates_per_s()
        about["updates_per_s"] = round(updates, 2)
        asked.row("gpu_frames_per_s_training", busy, idle, **about)
    finally:
        env.close()


def frames_per_s(pool: Any, n_envs: int, seconds: float) -> float:
    """Rate of steps that each render one frame, under uniform actions, resets included."""
    rng, frames, began = np.random.default_rng(0), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        pool.send(rng.uniform(-1, 1, (n_envs, 4)).astype(np.float32))
        pool.receive()
        frames += n_envs
    return frames / (time.perf_counter() - began)


@contextlib.contextmanager
def training(learner: Learner) -> Iterator[Callable[[], float]]:
    """Updates without an end, in another thread; yields what tells their rate."""
    rounds, ended, began = itertools.count(), threading.Event(), time.perf_counter()

    def train() -> None:
        while not ended.is_set():
            learner.round()
            next(rounds)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        yield lambda: next(rounds) * learner.per_round / (time.perf_counter() - began)
    finally:
        ended.set()
        thread.join()


# ----------------------------------------------------------------------------------- whole training


class Utilisation:
    """What share of the time the device was busy, twice a second."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        uuid = getattr(torch.cuda.get_device_properties(0), "uuid", None)
        one = [f"--id=GPU-{uuid}"] if uuid else []
        while not self._stop.wait(0.5):
            self.values += [
                int(line) / 100 for line in _nvidia_smi("utilization.gpu", *one) if line.isdigit()
            ]

    def __enter__(self) -> Utilisation:
        if torch.cuda.is_available():
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()


def training_rows(asked: Asked, folder: Path) -> None:
    """Simulators, rendering, replay, updates, logs: until the deadline, evaluations left out."""
    steps = 800 if asked.rehearse else 200_000
    sizes = (f"total_env_steps={steps}", f"replay.capacity={fitting_capacity(folder, steps)}")
    cfg = asked.cfg(*sizes, f"run_dir={folder / 'run'}")
    with Utilisation() as watch:
        rates = training_rates(cfg, until=asked.deadline)
    about = {"n_envs": cfg["collect"]["n_envs"], "updates_per_s": round(rates.updates_per_s, 2)}
    target = TRAINING_TARGETS.get(asked.experiment)
    rate = rates.env_steps_per_s
    ok = None if target is None else rate >= target
    asked.row("gpu_train_env_steps_per_s", rate, STUDY_ENV_STEPS_PER_S, target, ok, **about)
    if watch.values:
        busy = statistics.mean(watch.values[len(watch.values) // 2 :])
        ok = busy >= UTILISATION_TARGET
        asked.row("gpu_utilisation", busy, 1.0, UTILISATION_TARGET, ok, **about)
    else:
        asked.missing("gpu_utilisation", UTILISATION_TARGET, "nvidia-smi tells nothing", **about)


def fitting_capacity(folder: Path, wanted: int) -> int:
    """A replay's transitions, of which disk and device hold the files and a copy."""
    free = shutil.disk_usage(folder).free
    if torch.cuda.is_available():
        free = min(free, torch.cuda.mem_get_info()[0])
    return max(800, min(wanted, int(REPLAY_SHARE * free / BYTES_PER_TRANSITION)))
