"""What the rows of `gpu.py` measure with: what was asked for, and a learner without simulators."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from table import missing_row, print_row
from training import compose, without_trainer
from update import layout_of

SUCCESS_M = 0.05  # of all sparse Fetch tasks
REHEARSAL = (
    "debug=default",
    "algo.batch_size=4",
    "algo.utd_ratio=0.5",
    "obs.pixels.image_size=32",
    "trainer.threads=1",
)
AT_ONCE = 8  # updates whose batches are drawn together; a captured graph has as many


@dataclass(frozen=True)
class Asked:
    """The command line.

    Args:
        experiment: of all rows.
        rehearse: toy size, on a CPU too; figures mean nothing.
        quick: shorter measurements.
        envs: environments N; None: the experiment's own.
        deadline: `time.perf_counter` by which rows should be done.
        out: where a run's files go; None: nowhere.
    """

    experiment: str
    rehearse: bool
    quick: bool
    envs: int | None
    deadline: float
    out: Path | None

    @property
    def overrides(self) -> tuple[str, ...]:
        """Of the experiment."""
        envs = self.envs or (4 if self.rehearse else None)
        chosen = () if envs is None else (f"collect.n_envs={envs}",)
        return (*(REHEARSAL if self.rehearse else ()), *chosen)

    @property
    def transitions(self) -> int:
        """In the replay that updates are drawn from: far more than a cache holds."""
        return 800 if self.rehearse else 20_000

    @property
    def window_s(self) -> float:
        """Seconds of one measurement."""
        return 0.1 if self.rehearse else 0.5 if self.quick else 1.0

    @property
    def repetitions(self) -> int:
        """Measurements that count."""
        return 1 if self.rehearse else 3

    @cached_property
    def device(self) -> str:
        """The card's name, or ``cpu``."""
        return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"

    def cfg(self, *more: str) -> dict[str, Any]:
        """The experiment at the asked size."""
        return compose(self.experiment, *self.overrides, *more)

    def seconds_left(self) -> float:
        """Until the deadline."""
        return self.deadline - time.perf_counter()

    def row(
        self,
        name: str,
        value: float,
        reference: float | None = None,
        target: float | None = None,
        ok: bool | None = None,
        **details: Any,
    ) -> None:
        """Print a row, with what it was measured on."""
        ratio = None if reference is None else value / max(reference, 1e-12)
        print_row(name, value, reference, ratio, target, ok, **self._about, **details)

    def missing(self, name: str, target: float | None, reason: str, **details: Any) -> None:
        """Print the row of what could not be measured."""
        missing_row(name, target, reason, **self._about, **details)

    @property
    def _about(self) -> dict[str, Any]:
        return {"experiment": self.experiment, "device": self.device, "rehearsal": self.rehearse}


def synchronize() -> None:
    """Wait for the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@contextlib.contextmanager
def numerics(
    deterministic: bool = False, tf32: bool = False, benchmark: bool = False
) -> Iterator[None]:
    """Process-wide settings of torch while updates are prepared; the earlier ones come back."""
    # Deterministic cuBLAS asks for it; it is read when that is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    exact = torch.are_deterministic_algorithms_enabled()
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    cudnn.benchmark = benchmark
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before
        torch.use_deterministic_algorithms(exact)


class Learner:
    """A run's module on its device and a replay to draw from; no simulators.

    Args:
        replay: see `filled_replay`; several learners may share one.
        cfg: resolved, plain.
        wrap: makes another network of each encoder's convolutions; None: they stay.
    """

    def __init__(
        self, replay: Any, cfg: dict[str, Any], wrap: Callable[[Any], Any] | None = None
    ) -> None:
        from fetchlab.build import build_module
        from fetchlab.config import typed

        self.replay, self.batch_size = replay, cfg["algo"]["batch_size"]
        self.per_round = max(1, round(cfg["algo"]["utd_ratio"] * cfg["collect"]["n_envs"]))
        module = build_module(typed(cfg), layout_of(cfg))
        if wrap is not None:
            for encoder in (module.agent.encoder, module.agent.encoder_target):
                if encoder is not None:  # algo.target_encoder=false has no second one
                    encoder.cnn = wrap(encoder.cnn)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = without_trainer(module.to(device))

    def round(self) -> None:
        """Sample and run a round's updates."""
        for first in range(0, self.per_round, AT_ONCE):
            count = min(AT_ONCE, self.per_round - first)
            batch = self.replay.draw(count * self.batch_size, env_steps=0)
            self.module.learn(*batch.split(self.batch_size))
        synchronize()

    def warm_up(self) -> None:
        """Fill caches and record graphs."""
        for _ in range(2):
            self.round()

    def updates_per_s(self, seconds: float) -> float:
        """Rate over so many seconds, or one round."""
        synchronize()
        updates, began = 0, time.perf_counter()
        while updates == 0 or time.perf_counter() - began < seconds:
            self.round()
            updates += self.per_round
        self.module.raise_if_failed()
        return updates / (time.perf_counter() - began)


def filled_replay(folder: Path, cfg: dict[str, Any], transitions: int) -> Any:
    """A replay of random rows in finished episodes, where ``replay.device`` puts it."""
    from fetchlab.build import replay_size, row_spec, seed_for, swap_in
    from fetchlab.config import typed
    from fetchlab.envs.batched import GoalReward
    from fetchlab.preflight.sizes import replay_device
    from fetchlab.replay.replay import HindsightReplay
    from fetchlab.replay.sampler import HindsightSampler
    from fetchlab.replay.storage import EpisodeStorage

    layout, device = layout_of(cfg), replay_device(typed(cfg))
    margin = 100 * cfg["collect"]["n_envs"]
    sizes = {**cfg["replay"], "capacity": transitions, "margin_env_steps": margin}
    row = row_spec(typed(cfg), layout)
    size = replay_size(typed({**cfg, "replay": sizes, "total_env_steps": transitions}))
    stack, algo = cfg["obs"]["frame_stack"], cfg["algo"]
    storage = EpisodeStorage(folder, row, size, stack, device, algo["n_step"])
    reward = GoalReward(sparse=True, threshold_m=SUCCESS_M)
    relabel = swap_in(cfg["relabel"])
    sampler = HindsightSampler(relabel, reward, None, layout.goal_slice, algo["discount"])
    generator = torch.Generator(device).manual_seed(seed_for(cfg["seed"], "replay"))
    replay, rng = HindsightReplay(storage, sampler, generator), np.random.default_rng(0)
    for array in storage.files.arrays.values():
        if array.dtype == np.uint8 and array.ndim > 1:
            array[:] = rng.integers(0, 256, array.nbytes, np.uint8).reshape(array.shape)
        elif array.dtype == np.float32:
            array[:] = rng.standard_normal(array.shape, np.float32).clip(-1, 1)
    storage.reader.push_all()
    longest = storage.layout.max_episode_steps
    for episode in range(storage.layout.window_steps // longest):
        for env in range(storage.layout.n_envs):
            storage.window.append(env, episode * (longest + 1), longest, checksum=episode)
    return replay
