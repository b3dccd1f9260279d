"""The memory that simulator workers and their parent share: one anonymous mapping, many arrays.

It has no name, so a SIGKILL anywhere leaks nothing; and on Linux it does not count against
``/dev/shm``, which containers keep small (a full one is a SIGBUS, not an error).
"""

from __future__ import annotations

import math
import mmap
import os

import numpy as np

from fetchlab.entries import EnvSpec
from fetchlab.envs.spec import Obs

_ALIGNMENT_BYTES = 64


class Rows:
    """Where the environments' observations are: views of columns of ``vector``, and ``pixels``.

    The columns are ``state`` (D), ``achieved_goal`` (G) behind it where it is none of its slices,
    and ``desired_goal`` (G).
    """

    def __init__(self, vector: np.ndarray, pixels: np.ndarray, spec: EnvSpec) -> None:
        d, g = spec.state_dim, spec.goal_dim
        goal = spec.goal_slice or slice(d, d + g)
        end = max(d, goal.stop)
        self.state, self.achieved_goal = vector[:, :d], vector[:, goal]
        self.desired_goal = vector[:, end : end + g]
        self.pixels = pixels
        self._stores_goal = spec.goal_slice is None

    def write(self, env: int, obs: Obs) -> None:
        """Write ``obs`` as environment ``env``'s."""
        self.state[env] = obs.state
        if self._stores_goal:
            self.achieved_goal[env] = obs.achieved_goal
        self.desired_goal[env] = obs.desired_goal
        if obs.pixels is not None:
            self.pixels[env] = obs.pixels


class SharedArrays:
    """Views on the shared mapping; the leading dimension is the environment.

    What the parent copies every round lies together: ``vector`` (N, D + G + 1) float32 holds the
    columns of `Rows` and the reward, ``flags`` (N, 4) bool terminated | truncated | done | success.
    ``now`` are its `Rows`; ``first`` are those of ``first_vector``, which has no reward: the next
    episode's first observation, valid where done. ``pixels`` and ``first_pixels`` are (N, *frame)
    uint8, (N, 0) without a camera. ``seed``, ``episode`` (since that seed) and ``step`` (of that
    episode), each (N, 1) int64, and ``current`` (workers, 1) int64, the environment each worker is
    at, name the place of an error even when a worker cannot. ``memory`` is the mapping's file
    descriptor, sized here; ``frame`` is (3 V, H, W) of V cameras, None without.
    """

    def __init__(
        self,
        memory: int,
        n_envs: int,
        workers: int,
        env_spec: EnvSpec,
        frame: tuple[int, int, int] | None,
    ) -> None:
        image = (0,) if frame is None else frame
        goals = env_spec.goal_dim * (2 if env_spec.goal_slice is None else 1)
        width = env_spec.state_dim + goals
        self._per_env = arrays = _lay_out(
            memory,
            action=((n_envs, env_spec.action_dim), np.float32),
            vector=((n_envs, width + 1), np.float32),
            first_vector=((n_envs, width), np.float32),
            flags=((n_envs, 4), np.bool_),
            seed=((n_envs, 1), np.int64),
            episode=((n_envs, 1), np.int64),
            step=((n_envs, 1), np.int64),
            pixels=((n_envs, *image), np.uint8),
            first_pixels=((n_envs, *image), np.uint8),
            current=((workers, 1), np.int64),
        )
        self.current = arrays.pop("current")
        self.action, self.flags = arrays["action"], arrays["flags"]
        self.seed, self.episode, self.step = arrays["seed"], arrays["episode"], arrays["step"]
        self.vector, self.first_vector = arrays["vector"], arrays["first_vector"]
        self.pixels, self.first_pixels = arrays["pixels"], arrays["first_pixels"]
        self.now = Rows(self.vector, self.pixels, env_spec)
        self.first = Rows(self.first_vector, self.first_pixels, env_spec)
        self.reward = self.vector[:, -1]
        self.terminated, self.truncated, self.done, self.success = self.flags.T

    def get_row(self, env: int) -> dict[str, np.ndarray]:
        """Copy everything the mapping holds about environment ``env``."""
        return {name: array[env].copy() for name, array in self._per_env.items()}

    def set_row(self, env: int, row: dict[str, np.ndarray]) -> None:
        """Write back what `get_row` returned."""
        for name, array in self._per_env.items():
            array[env] = row[name]


def _lay_out(memory: int, **fields: tuple[tuple[int, ...], type]) -> dict[str, np.ndarray]:
    """Size the memory and return one array per shape and dtype, on separate cache lines."""
    starts, end = [], 0
    for shape, kind in fields.values():
        starts.append(end)
        size = math.prod(shape) * np.dtype(kind).itemsize
        end += -(-size // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    os.ftruncate(memory, end)
    mapping = mmap.mmap(memory, end)
    return {
        name: np.frombuffer(mapping, kind, math.prod(shape), start).reshape(shape)
        for (name, (shape, kind)), start in zip(fields.items(), starts, strict=True)
    }
