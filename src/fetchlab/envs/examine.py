"""What a gymnasium environment of the user's own is, and in one line what it lacks.

Two short episodes with fixed seeds answer what its spaces do not say: whether ``achieved_goal`` is
a slice of ``observation``, whether the reward is a function of the two goals, whether reaching a
goal ends an episode.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from fetchlab.entries import EnvSpec
from fetchlab.envs.spec import TaskSpec, as_asked
from fetchlab.errors import ConfigError, require

ENTRIES = ("observation", "achieved_goal", "desired_goal")
EPISODES, STEPS = 2, 25
REWARD_TOLERANCE = 1e-6
_SEE = "see 'An environment' in CONTRIBUTING.md"


class Step(NamedTuple):
    """One step of the trial, in the environment's own float64."""

    state: np.ndarray
    achieved_goal: np.ndarray
    desired_goal: np.ndarray
    reward: float
    info: dict[str, Any]


def make(task: TaskSpec) -> gymnasium.Env[Any, Any]:
    """Build it, without gymnasium's time limit and checks."""
    env_id, names = task.env_id, list(gymnasium.registry)
    try:
        env = gymnasium.make(env_id, max_episode_steps=-1, disable_env_checker=True, **task.kwargs)
    except Exception as error:  # the environment's own code: anything
        near = get_close_matches(env_id, names, n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(near)}? " if near and env_id not in names else ""
        built = "an environment that gymnasium.make builds with task.kwargs"
        remedy = f"{advice}it raised {_line(error)}"
        raise ConfigError("task.env_id", env_id, built, remedy) from error
    if maze := getattr(env.unwrapped, "tmp_xml_file_path", None):
        Path(maze).unlink(missing_ok=True)  # gymnasium-robotics leaves one behind for every maze
    space, goals = env.observation_space, ENTRIES[1:]
    shapes: dict[str, Any] = {}
    if isinstance(space, gymnasium.spaces.Dict):
        shapes = {name: one.shape for name, one in space.items() if one.shape}
    vectors = all(len(shapes.get(name, ())) == 1 for name in ENTRIES)
    named = f"Dict observations with the vectors {', '.join(ENTRIES)}, not {_words(space)}"
    _lacks(vectors, task, named)
    _lacks(len({shapes[name] for name in goals}) == 1, task, f"{' and '.join(goals)} of one size")
    acts = env.action_space
    box = isinstance(acts, gymnasium.spaces.Box) and len(acts.shape) == 1 and acts.is_bounded()
    _lacks(box, task, f"a Box of actions in finite bounds, not {_words(acts)}")
    callable_reward = callable(getattr(env.unwrapped, "compute_reward", None))
    _lacks(callable_reward, task, "a method compute_reward(achieved_goal, desired_goal, info)")
    return env


def action_space(env: gymnasium.Env[Any, Any]) -> tuple[np.ndarray, np.ndarray, Any]:
    """Lower and upper bounds (A,) float32 of its actions, and their dtype."""
    space: Any = env.action_space
    return space.low.astype(np.float32), space.high.astype(np.float32), space.dtype


def success_key(info: dict[str, Any]) -> str:
    """Under which name ``info`` has the verdict."""
    return "is_success" if "is_success" in info else "success"


def examine(
    env: gymnasium.Env[Any, Any], task: TaskSpec
) -> tuple[EnvSpec, tuple[np.ndarray, np.ndarray]]:
    """Play two short episodes, and say what the environment yields.

    Returns:
        Its spec, not yet ``restorable``, and two arrays (B, G) float32 of goals, the second half of
        the pairs reached.
    """
    steps = _play(env, task)
    inner: Any = env.unwrapped
    achieved, desired = (
        np.array([getattr(step, name) for step in steps]).astype(np.float32) for name in ENTRIES[1:]
    )
    pairs = np.concatenate((achieved, achieved)), np.concatenate((desired, achieved))
    ends = getattr(inner, "compute_terminated", None)
    first = steps[0]
    spec = as_asked(
        EnvSpec(
            state_dim=len(first.state),
            goal_dim=len(first.achieved_goal),
            action_dim=len(action_space(env)[0]),
            proprio=tuple(range(len(first.state))),
            goal_slice=_goal_slice(steps),
            reward_range=(-math.inf, math.inf),
            terminates=ends is not None and any(_ends(ends, task, goal) for goal in achieved),
            restorable=False,
        ),
        task,
    )
    low, high = spec.reward_range
    seen = [_reward(inner, task, a, d, {}) for a, d in zip(*pairs, strict=True)]
    holds = f"a range that holds the rewards {min(seen):g} to {max(seen):g}, which were seen"
    remedy = "widen it, or null where it is unknown"
    ok = low <= min(seen) and max(seen) <= high
    require(ok, "task.reward_range", [low, high], holds, remedy)
    return spec, pairs


def _play(env: gymnasium.Env[Any, Any], task: TaskSpec) -> list[Step]:
    steps, rng, (low, high, dtype) = [], np.random.default_rng(0), action_space(env)
    for episode in range(EPISODES):
        obs, _ = env.reset(seed=episode)
        goal = obs["desired_goal"].copy()
        for _ in range(STEPS):
            action = rng.uniform(low, high).astype(dtype)
            obs, reward, terminated, truncated, info = env.step(action)
            state, achieved, desired = (obs[name].copy() for name in ENTRIES)
            step = Step(state, achieved, desired, float(reward), info)
            _check(step, goal, env.unwrapped, task)
            steps.append(step)
            if terminated or truncated:
                break
    return steps


def _check(step: Step, goal: np.ndarray, inner: Any, task: TaskSpec) -> None:
    numbers = np.concatenate([getattr(step, name) for name in Step._fields[:3]])
    _lacks(bool(np.isfinite(numbers).all()), task, "finite observations")
    same = np.array_equal(step.desired_goal, goal)
    _lacks(same, task, "one desired_goal an episode (it changed on the way)")
    verdict = success_key(step.info) in step.info
    _lacks(verdict, task, "info['is_success'] or info['success'] at every step")
    for info in (step.info, {}):
        again = _reward(inner, task, step.achieved_goal, goal, info)
        gave = f"a step gave {step.reward:g}, compute_reward {again:g}"
        same = abs(again - step.reward) <= REWARD_TOLERANCE
        _lacks(same, task, f"a reward that is compute_reward of the two goals: {gave}")


def _reward(
    inner: Any, task: TaskSpec, achieved: np.ndarray, desired: np.ndarray, info: dict[str, Any]
) -> float:
    try:
        return float(inner.compute_reward(achieved, desired, info))
    except Exception as error:  # the environment's own code: anything
        expected = "a compute_reward of two goals that needs nothing in info"
        remedy = f"it raised {_line(error)}; {_SEE}"
        raise ConfigError("task.env_id", task.env_id, expected, remedy) from error


def _ends(ends: Callable[..., Any], task: TaskSpec, goal: np.ndarray) -> bool:
    """Whether an episode ends at its goal."""
    try:
        return bool(ends(goal, goal, {}))
    except Exception as error:  # the environment's own code: anything
        expected = "a compute_terminated of two goals that needs nothing in info"
        remedy = f"it raised {_line(error)}; {_SEE}"
        raise ConfigError("task.env_id", task.env_id, expected, remedy) from error


def _goal_slice(steps: list[Step]) -> slice | None:
    """The first slice of the state that is ``achieved_goal`` at every step, in float64."""
    states, goals = (np.array([step[i] for step in steps]) for i in (0, 1))
    size = goals.shape[1]
    for start in range(states.shape[1] - size + 1):
        if np.array_equal(states[:, start : start + size], goals):
            return slice(start, start + size)
    return None


def _lacks(ok: bool, task: TaskSpec, expected: str) -> None:
    require(ok, "task.env_id", task.env_id, f"an environment with {expected}", _SEE)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {_words(error)}"


def _words(value: object) -> str:
    return " ".join(str(value).split())[:300]
