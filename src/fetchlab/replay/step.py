"""One step of all environments, checked before any of it is stored."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from tensordict import TensorDictBase

from fetchlab.entries import DESIRED_GOAL
from fetchlab.errors import NonFiniteError
from fetchlab.replay.layout import ACTION, OBSERVATION_ARRAYS, TERMINATED


class Step(NamedTuple):
    """Numpy views of one step; the dicts are by array name."""

    before: dict[str, np.ndarray]  # observation the actions were chosen for
    transition: dict[str, np.ndarray]  # goal, action, terminated
    after: dict[str, np.ndarray]  # observation they led to
    done: np.ndarray  # (N,) bool: the episode ends here


def read_step(data: TensorDictBase, arrays: dict[str, np.ndarray], n_envs: int) -> Step:
    """Take what the replay stores out of ``data``, [N], as its ``arrays`` store it.

    Root ``state``, ``desired_goal`` and ``action``; under ``next`` ``state``, ``terminated`` and
    ``truncated``, the flags (N,) or (N, 1) bool; in both ``pixels`` and ``achieved_goal`` where
    they are stored.

    Raises:
        ValueError: a shape or dtype that does not fit, or a number that is not finite.
    """
    after = data["next"]
    names = [name for name in OBSERVATION_ARRAYS if name in arrays]
    terminated = _flags(after, TERMINATED, n_envs)
    return Step(
        before={name: _values(data, name, arrays[name], n_envs) for name in names},
        transition={
            DESIRED_GOAL: _values(data, DESIRED_GOAL, arrays[DESIRED_GOAL], n_envs),
            ACTION: _values(data, ACTION, arrays[ACTION], n_envs),
            TERMINATED: terminated,
        },
        after={name: _values(after, name, arrays[name], n_envs) for name in names},
        done=terminated | _flags(after, "truncated", n_envs),
    )


def _values(data: TensorDictBase, name: str, array: np.ndarray, n_envs: int) -> np.ndarray:
    values = data[name].numpy()
    expected = (n_envs, *array.shape[1:])
    if values.shape != expected or values.dtype != array.dtype:
        raise ValueError(
            f"{name}: {values.dtype} {values.shape} given, {array.dtype} {expected} expected"
        )
    if values.dtype == np.float32 and not np.isfinite(values).all():
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1)).tolist()
        raise NonFiniteError(f"{name} of environments {bad} is not finite; the step is not stored")
    return values


def _flags(data: TensorDictBase, name: str, n_envs: int) -> np.ndarray:
    values = data[name].numpy()
    if values.size != n_envs or values.dtype != np.bool_:
        raise ValueError(f"{name}: {values.dtype} {values.shape} given, bool ({n_envs},) expected")
    return values.reshape(n_envs)
