"""Saves and restores one simulator exactly, in the middle of an episode.

MuJoCo's integration state is not enough: an action starts from the gripper's derived pose
(``xpos``, ``xquat``), which lags the joint positions in tasks with a free gripper; and the next
frame depends on where the last one put the goal marker (its place is updated relatively, so it
carries rounding from frame to frame).

A snapshot holds numpy arrays, ints and strings only. The generator's 128-bit integers and the seed
are decimal strings, so that any plain-data format can carry them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from fetchlab.envs.observation import refresh_poses

if TYPE_CHECKING:
    from gymnasium_robotics.envs.fetch import MujocoFetchEnv

_SIGNATURE = mujoco.mjtState.mjSTATE_INTEGRATION


def take(inner: MujocoFetchEnv) -> dict[str, Any]:
    """Return everything that the simulator's future depends on."""
    model, data = inner.model, inner.data
    integration = np.empty(mujoco.mj_stateSize(model, _SIGNATURE))
    mujoco.mj_getState(model, data, integration, _SIGNATURE)
    return {
        "integration": integration,
        "xpos": data.xpos.copy(),
        "xquat": data.xquat.copy(),
        "site_pos": model.site_pos.copy(),
        "goal": inner.goal.copy(),
        "generator": _generator_state(inner.np_random),
    }


def put(inner: MujocoFetchEnv, state: dict[str, Any]) -> None:
    """Bring the simulator to where `take` left it.

    Raises:
        ValueError: the snapshot is of another model or another kind of generator.
    """
    model, data = inner.model, inner.data
    integration = np.asarray(state["integration"], np.float64)
    expected = mujoco.mj_stateSize(model, _SIGNATURE)
    if integration.shape != (expected,):
        raise ValueError(
            f"snapshot of {integration.size} numbers: expected {expected}; it is of another model"
        )
    mujoco.mj_resetData(model, data)  # clears warnings and whatever a failed step left behind
    model.site_pos[:] = np.asarray(state["site_pos"])
    mujoco.mj_setState(model, data, integration, _SIGNATURE)
    refresh_poses(model, data)
    data.xpos[:] = np.asarray(state["xpos"])
    data.xquat[:] = np.asarray(state["xquat"])
    inner.goal = np.array(state["goal"], np.float64)
    _restore_generator(inner.np_random, state["generator"])


def _generator_state(generator: np.random.Generator) -> dict[str, Any]:
    state = generator.bit_generator.state
    return {
        "bit_generator": state["bit_generator"],
        "state": str(state["state"]["state"]),
        "inc": str(state["state"]["inc"]),
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }


def _restore_generator(generator: np.random.Generator, state: dict[str, Any]) -> None:
    generator.bit_generator.state = {
        "bit_generator": state["bit_generator"],
        "state": {"state": int(state["state"]), "inc": int(state["inc"])},
        "has_uint32": int(state["has_uint32"]),
        "uinteger": int(state["uinteger"]),
    }
