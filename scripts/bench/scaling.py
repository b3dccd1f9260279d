"""How cost grows: environments, workers, stored transitions, image size.

    python scripts/bench/scaling.py [--quick]

Rows, for information, each against the first of its series: ``train_n_envs_<n>_workers_<w>`` (env
steps/s of `state_push` at one update per 8 env steps), ``sample_state_<n>_ms`` (a batch of 256 from
a replay of n transitions without pixels), ``frames_<side>`` (frames/s of one renderer),
``sample_pixels_<side>_ms`` (a batch of 256 from 4000 transitions) and ``update_<side>_s`` (a pixel
update with a batch of 16).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from table import SCRATCH, main, print_row, say
from training import compose, torch_settings, training_rates, without_trainer
from update import layout_of, random_batch

N_ENVS = (1, 2, 4, 8, 16, 32)
STORED = (10_000, 100_000, 1_000_000)
SIDES = (48, 64, 84, 128)
REPETITIONS = 30


def training(quick: bool, folder: Path) -> None:
    """Whole training over environments and workers."""
    cores = len(os.sched_getaffinity(0))
    first = None
    for n_envs in N_ENVS[1::2] if quick else N_ENVS:
        for workers in sorted({1, min(cores, n_envs)}):
            name = f"train_n_envs_{n_envs}_workers_{workers}"
            steps = 2_000 if quick else 4_000 + 60 * n_envs
            cfg = compose(
                "state_push",
                f"total_env_steps={steps}",
                f"collect.n_envs={n_envs}",
                f"collect.workers={workers}",
                "collect.learning_starts=1600",
                f"run_dir={folder / name}",
            )
            rate = training_rates(cfg).env_steps_per_s
            first = first or rate
            print_row(name, rate, first, rate / first, None, None)


def median_ms(job: Callable[[], Any], repetitions: int) -> float:
    """Median time of ``job`` in milliseconds."""
    job()
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        job()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def replay_of(folder: Path, transitions: int, side: int | None) -> Any:
    """A replay full of zeros, whose rows were all touched once."""
    import torch

    from fetchlab.envs.batched import GoalReward
    from fetchlab.replay.layout import ReplaySize, RowSpec
    from fetchlab.replay.relabel import FutureRelabel
    from fetchlab.replay.replay import HindsightReplay
    from fetchlab.replay.sampler import HindsightSampler
    from fetchlab.replay.storage import EpisodeStorage

    n_envs, length = 8, 50
    row = RowSpec(25, 3, 4, False, None if side is None else (3, side, side))
    size = ReplaySize(n_envs, length, transitions, transitions, 400)
    stack = 1 if side is None else 4
    storage = EpisodeStorage(folder, row, size, stack, torch.device("cpu"), n_step=1)
    reward = GoalReward(sparse=True, threshold_m=0.05)
    sampler = HindsightSampler(FutureRelabel(4), reward, None, slice(3, 6), discount=0.95)
    replay = HindsightReplay(storage, sampler, torch.Generator().manual_seed(0))
    for array in storage.files.arrays.values():
        array[:] = np.zeros((), array.dtype)
    for episode in range(storage.layout.window_steps // length):
        for env in range(n_envs):
            storage.window.append(env, episode * (length + 1), length, checksum=0)
    return replay


def series(name: str, keys: Sequence[int], unit: str, measure: Callable[[int], float]) -> None:
    """A row for each key, against the first."""
    first = None
    for key in keys:
        value = measure(key)
        first = first or value
        say(f"{name}, {key}: {value:.3g}")
        print_row(f"{name}_{key}{unit}", value, first, value / first, None, None)


def frames_per_s(side: int) -> float:
    """Frames of one renderer, without physics."""
    from fetchlab.build import task_spec
    from fetchlab.config import typed
    from fetchlab.envs.fetch import FetchEnv

    env = FetchEnv(task_spec(typed(compose("pixel_push_nodrq", f"obs.pixels.image_size={side}"))))
    env.reset(seed=0)
    rate = 1000 / median_ms(env.render_frame, REPETITIONS)
    env.close()
    return rate


def update_s(side: int) -> float:
    """Seconds of a pixel update with a batch of 16."""
    from fetchlab.build import build_module
    from fetchlab.config import typed

    cfg = compose("pixel_push_nodrq", f"obs.pixels.image_size={side}")
    layout = layout_of(cfg)
    module = without_trainer(build_module(typed(cfg), layout))
    batch = random_batch(cfg, 16, layout.state_dim)
    with torch_settings(len(os.sched_getaffinity(0)), deterministic=True):
        return median_ms(lambda: module.learn(batch), 5) / 1000


def bench(quick: bool) -> None:
    """Print the rows."""
    from fetchlab.preflight.renderer import choose_renderer

    choose_renderer()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        folder = Path(scratch)

        def sample_ms(transitions: int, side: int | None) -> float:
            where = folder / f"replay_{transitions}_{side}"
            replay = replay_of(where, transitions, side)
            return median_ms(lambda: replay.draw(256, env_steps=0), REPETITIONS)

        training(quick, folder)
        stored = STORED[:2] if quick else STORED
        series("sample_state", stored, "_ms", lambda n: sample_ms(n, None))
        series("frames", SIDES, "", frames_per_s)
        series("sample_pixels", SIDES, "_ms", lambda side: sample_ms(4_000, side))
        series("update", SIDES, "_s", update_s)


if __name__ == "__main__":
    main(__doc__, bench)
