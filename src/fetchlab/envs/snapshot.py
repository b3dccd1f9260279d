"""Saves and restores one environment exactly, in the middle of an episode.

`take` and `put` know Fetch. `take_all` and `put_all` take any environment's plain attributes and
random streams, its wrappers' and inner environments' too, and every MuJoCo simulator in it; whether
that is all, `restores` finds out.

MuJoCo's integration state is not enough: an action starts from the gripper's derived pose
(``xpos``, ``xquat``), which lags the joint positions in tasks with a free gripper; and the next
frame depends on where the last one put the goal marker (its place is updated relatively, so it
carries rounding from frame to frame).

A snapshot holds numpy arrays, ints and strings only. The generator's 128-bit integers and the seed
are decimal strings, so that any plain-data format can carry them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import mujoco
import numpy as np

from fetchlab.envs.fetch_arrays import refresh_poses

if TYPE_CHECKING:
    from gymnasium_robotics.envs.fetch import MujocoFetchEnv

    from fetchlab.envs.goal_env import GoalEnv

_Kind = mujoco.mjtWarning
#: After these MuJoCo has reset the simulation, or ignored a control, by itself.
BAD_KINDS = _Kind.mjWARN_BADQPOS, _Kind.mjWARN_BADQVEL, _Kind.mjWARN_BADQACC, _Kind.mjWARN_BADCTRL
_SIGNATURE = mujoco.mjtState.mjSTATE_INTEGRATION


def take(inner: MujocoFetchEnv) -> dict[str, Any]:
    """Return everything that the simulator's future depends on."""
    model, data = inner.model, inner.data
    return {
        "integration": _integration(model, data),
        "xpos": data.xpos.copy(),
        "xquat": data.xquat.copy(),
        "site_pos": model.site_pos.copy(),
        "goal": inner.goal.copy(),
        "generator": _generator_state(inner.np_random),
    }


def put(inner: MujocoFetchEnv, state: dict[str, Any]) -> None:
    """Bring the simulator to where `take` left it."""
    model, data = inner.model, inner.data
    _integrate(model, data, state["integration"])
    model.site_pos[:] = np.asarray(state["site_pos"])
    refresh_poses(model, data)
    data.xpos[:] = np.asarray(state["xpos"])
    data.xquat[:] = np.asarray(state["xquat"])
    inner.goal = np.array(state["goal"], np.float64)
    _restore_generator(inner.np_random, state["generator"])


def take_all(env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    """Return what of ``env`` is plain data, and its simulators."""
    return {
        "attributes": [
            {name: kept for name, one in vars(part).items() if (kept := _keep(one)) is not None}
            for part in _parts(env)
        ],
        "simulators": [
            {
                "integration": _integration(data.model, data),
                "model": {name: getattr(data.model, name).copy() for name in _MOVED},
                "data": {name: array.copy() for name, array in _arrays(data).items()},
            }
            for data in _simulators(env)
        ],
    }


def put_all(env: gymnasium.Env[Any, Any], state: dict[str, Any]) -> None:
    """Bring an environment that was reset once to where `take_all` left its like."""
    for part, attributes in zip(_parts(env), state["attributes"], strict=True):
        for name, kept in attributes.items():
            setattr(part, name, _given_back(kept, getattr(part, name, None)))
    for data, saved in zip(_simulators(env), state["simulators"], strict=True):
        _integrate(data.model, data, saved["integration"])
        for name, value in saved["model"].items():
            getattr(data.model, name)[:] = value
        mujoco.mj_forward(data.model, data)
        for name, array in _arrays(data).items():  # what code reads between steps lags behind qpos
            array[:] = saved["data"][name]


def unstable(env: gymnasium.Env[Any, Any]) -> list[np.ndarray]:
    """Live views of how often each simulator has reset itself, see `BAD_KINDS`."""
    bad = slice(BAD_KINDS[0], BAD_KINDS[-1] + 1)
    return [data.warning.number[bad] for data in _simulators(env)]


def restores(build: Callable[[], GoalEnv]) -> bool:
    """Whether an environment goes on exactly, in another instance, from what can be saved of it."""
    first, second = build(), build()
    try:
        first.reset(seed=0)
        second.reset()
        for steps in (0, 7):  # at an episode's start, and on the way
            _play(first, steps, seed=1)
            _play(second, 3, seed=2)
            second.set_state(first.get_state())
            if _play(first, 12, seed=3) != _play(second, 12, seed=3):
                return False
    except Exception:  # the environment's own code: anything
        return False
    finally:
        first.close()
        second.close()
    return True


def _play(env: GoalEnv, steps: int, seed: int) -> list[bytes]:
    """Everything that so many random steps and the resets between them gave."""
    rng, seen = np.random.default_rng(seed), []
    for step in range(steps):
        result = env.step(rng.uniform(-1, 1, env.env_spec.action_dim).astype(np.float32))
        seen.append(b"".join(one.tobytes() for one in result.obs[:3]) + repr(result[1:]).encode())
        if result.terminated or result.truncated or step == steps - 3:
            seen += [one.tobytes() for one in env.reset()[:3]]
    return seen


#: Of a model: what tasks move between episodes.
_MOVED = ("site_pos", "body_pos", "body_quat")
#: Of a simulator: arrays whose sizes change with the contacts, which each step finds anew.
_RESIZED = ("efc_", "iefc_", "iacc", "ifrc")


def _parts(env: gymnasium.Env[Any, Any]) -> list[gymnasium.Env[Any, Any]]:
    """``env``, what it wraps, and the environments that these hold, each once."""
    parts: list[gymnasium.Env[Any, Any]] = [env]
    for part in parts:  # which grows on the way
        held = [one for one in vars(part).values() if isinstance(one, gymnasium.Env)]
        parts += [one for one in held if not any(one is known for known in parts)]
    return parts


def _simulators(env: gymnasium.Env[Any, Any]) -> list[mujoco.MjData]:
    held = [one for part in _parts(env) for one in vars(part).values()]
    return [one for one in held if isinstance(one, mujoco.MjData)]


def _arrays(data: mujoco.MjData) -> dict[str, np.ndarray]:
    """The float64 arrays of a simulator that have one size for good."""
    names = [name for name in dir(data) if not name.startswith(("_", *_RESIZED))]
    held = {name: getattr(data, name) for name in names}
    arrays = {name: one for name, one in held.items() if isinstance(one, np.ndarray)}
    return {name: one for name, one in arrays.items() if one.dtype == np.float64 and one.size}


def _keep(value: Any) -> Any:
    """``value`` as plain data, which names what it was; None for what cannot be kept."""
    if value is None:
        return {"none": ""}
    if isinstance(value, np.random.Generator):
        return {"generator": _generator_state(value)}
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind not in "biuf":
            return None
        return value.copy() if isinstance(value, np.ndarray) else {"scalar": np.array(value)}
    if isinstance(value, str):  # a file's path is this process's: the mazes write their XML anew
        return None if Path(value).is_absolute() else value
    if isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, list | tuple):
        kept = [_keep(one) for one in value]
        return None if any(one is None for one in kept) else {type(value).__name__: kept}
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        held = {name: _keep(one) for name, one in value.items()}
        return None if any(one is None for one in held.values()) else {"dict": held}
    return None


def _given_back(kept: Any, present: Any) -> Any:
    if isinstance(kept, np.ndarray):
        if isinstance(present, np.ndarray) and present.base is not None:  # a view of something else
            present[...] = kept
            return present
        return kept.copy()
    if not isinstance(kept, dict):
        return kept
    ((kind, value),) = kept.items()
    if kind == "generator":
        stream = present if isinstance(present, np.random.Generator) else np.random.default_rng()
        _restore_generator(stream, value)
        return stream
    if kind == "dict":
        return {name: _given_back(one, None) for name, one in value.items()}
    if kind in ("list", "tuple"):
        held = [_given_back(one, None) for one in value]
        return held if kind == "list" else tuple(held)
    if kind == "scalar":
        return value[()]
    return int(value) if kind == "int" else None


def _integration(model: mujoco.MjModel, data: mujoco.MjData) -> np.ndarray:
    integration = np.empty(mujoco.mj_stateSize(model, _SIGNATURE))
    mujoco.mj_getState(model, data, integration, _SIGNATURE)
    return integration


def _integrate(model: mujoco.MjModel, data: mujoco.MjData, saved: np.ndarray) -> None:
    integration, size = np.asarray(saved, np.float64), mujoco.mj_stateSize(model, _SIGNATURE)
    if integration.shape != (size,):
        found = f"snapshot of {integration.size} numbers"
        raise ValueError(f"{found}: expected {size}; it is of another model")
    mujoco.mj_resetData(model, data)  # clears warnings and whatever a failed step left behind
    mujoco.mj_setState(model, data, integration, _SIGNATURE)


def _generator_state(generator: np.random.Generator) -> dict[str, Any]:
    state = generator.bit_generator.state
    return {**state, **{name: str(number) for name, number in state["state"].items()}}


def _restore_generator(generator: np.random.Generator, state: dict[str, Any]) -> None:
    numbers = {name: int(state[name]) for name in ("state", "inc")}
    generator.bit_generator.state = {**state, "state": numbers}
