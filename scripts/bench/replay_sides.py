"""The two replays that `replay.py` compares, filled with random rows: ours and TorchRL's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from linux_memory import Mapped
from table import say
from training import compose, threads_of, torch_settings

EXPERIMENT = "pixel_push_nodrq"
CHUNK_ROWS = 500  # written at once


def small_cfg(transitions: int) -> dict[str, Any]:
    """The study's pixel agent with a replay of so many transitions and hardly a margin."""
    sizes = (f"replay.capacity={transitions}", f"total_env_steps={transitions}")
    return compose(EXPERIMENT, *sizes, "replay.margin_env_steps=200")


class OurReplay:
    """A full replay of a run, with random rows in 50-step episodes.

    Args:
        folder: for its files.
        transitions: how many.
    """

    def __init__(self, folder: Path, transitions: int) -> None:
        from fetchlab.build import build_parts
        from fetchlab.config import typed

        cfg = small_cfg(transitions)
        folder.mkdir()
        parts = build_parts(typed(cfg), folder)
        parts.env.close()
        self.folder, self.replay, storage = folder, parts.data.replay, parts.data.replay._storage
        self._batch_size = cfg["algo"]["batch_size"]
        self._settings = {
            "threads": threads_of(cfg),
            "deterministic": cfg["trainer"]["deterministic"],
        }
        arrays, layout = storage.files.arrays, storage.layout
        rng = np.random.default_rng(0)
        for array in arrays.values():
            chunk = _random(rng, (CHUNK_ROWS, *array.shape[1:]), array.dtype)
            for first in range(0, len(array), CHUNK_ROWS):
                rows = array[first : first + CHUNK_ROWS]
                rows[:] = chunk[: len(rows)]
        length = layout.max_episode_steps
        for episode in range(layout.window_steps // length):
            for env in range(layout.n_envs):
                storage.window.append(env, episode * (length + 1), length, checksum=episode)
        storage.flush()
        self.mappings = [Mapped(a.ctypes.data, a.nbytes) for a in arrays.values()]
        say(f"ours: {len(self.replay):,} transitions, {layout.disk_bytes():,} bytes")

    def sample(self) -> float:
        """Milliseconds of one batch."""
        with torch_settings(**self._settings):
            began = time.perf_counter()
            self.replay.sample(self._batch_size)
            return (time.perf_counter() - began) * 1000


class TorchRLReplay:
    """TorchRL's memory-mapped buffer, holding the stacks of obs and next_obs as SB3 does.

    Args:
        folder: for its files.
        transitions: how many.
    """

    def __init__(self, folder: Path, transitions: int) -> None:
        import torch
        from tensordict import TensorDict
        from torchrl.data import LazyMemmapStorage, TensorDictReplayBuffer

        cfg = small_cfg(transitions)
        self._threads = threads_of(cfg)
        size, frames = cfg["obs"]["pixels"]["image_size"], 3 * cfg["obs"]["frame_stack"]
        self.folder = folder
        storage = LazyMemmapStorage(transitions, scratch_dir=folder)
        self._buffer = TensorDictReplayBuffer(storage=storage, batch_size=cfg["algo"]["batch_size"])
        n = CHUNK_ROWS
        stacks = torch.randint(0, 256, (2, n, frames, size, size), dtype=torch.uint8)
        vectors = {"state": torch.randn(n, 25), "desired_goal": torch.randn(n, 3)}
        after = {"reward": torch.zeros(n), "terminated": torch.zeros(n, dtype=torch.bool)}
        obs = {**vectors, "action": torch.randn(n, 4), "pixels": stacks[0]}
        following = TensorDict({**vectors, **after, "pixels": stacks[1]}, [n])
        chunk = TensorDict({**obs, "next": following}, [n])
        for _ in range(0, transitions, n):
            self._buffer.extend(chunk)
        self.mappings = [
            Mapped(tensor.data_ptr(), tensor.nbytes)
            for tensor in storage._storage.values(True, True)
        ]
        held = sum(mapping.size for mapping in self.mappings)
        say(f"TorchRL: {len(self._buffer):,} transitions, {held:,} bytes")

    def sample(self) -> float:
        """Milliseconds of one batch."""
        with torch_settings(self._threads, deterministic=False):
            began = time.perf_counter()
            self._buffer.sample()
            return (time.perf_counter() - began) * 1000


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    if dtype == np.uint8:
        top = 256 if len(shape) > 1 else 1  # images; the other one is the terminated flag
        return rng.integers(0, top, shape, np.uint8)
    return rng.standard_normal(shape, np.float32)
