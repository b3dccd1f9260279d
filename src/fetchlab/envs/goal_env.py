"""Any registered gymnasium goal environment, behind the interface of Fetch's fast path.

What is asked of it is gymnasium-robotics' ``GoalEnv``: a Dict observation of ``observation``,
``achieved_goal`` and ``desired_goal``, a ``compute_reward`` of two goals, optionally
``compute_terminated``, and a verdict ``is_success`` or ``success`` in ``info``. What it lacks is
said by `fetchlab.envs.examine`, in one line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fetchlab.entries import EnvSpec
from fetchlab.envs import examine, snapshot
from fetchlab.envs.fetch import FetchEnv, fetch_ids
from fetchlab.envs.spec import Obs, SimulationError, StepResult, TaskSpec
from fetchlab.errors import require


class GoalEnv:
    """One environment; its observations are cast to float32.

    Args:
        task: which environment, with which arguments, and how long its episodes are.
        env_spec: what it yields, as another instance found it; None examines the environment, which
            takes some dozen steps, and is needed for `compute_reward` and `compute_terminated`.

    Raises:
        ConfigError: it cannot be made, or lacks something.
    """

    def __init__(self, task: TaskSpec, env_spec: EnvSpec | None = None) -> None:
        rendered = "a Fetch task, the only ones that are rendered"
        remedy = "use obs=state obs.pixels=null, without video"
        require(task.pixels is None, "obs.pixels", task.env_id, rendered, remedy)
        self.task = task
        self._env = examine.make(task)
        self._space = examine.action_space(self._env)
        self._unit = bool((self._space[0] == -1.0).all() and (self._space[1] == 1.0).all())
        self._elapsed_steps = -1
        self._seed = int(self._env.unwrapped.np_random_seed)
        self._bad = snapshot.unstable(self._env)
        if env_spec is None:
            found, pairs = examine.examine(self._env, task)
            inner: Any = self._env.unwrapped
            self._reward = OverBatch(inner.compute_reward, pairs)
            if found.terminates:
                self._terminated = OverBatch(inner.compute_terminated, pairs)
            restorable = snapshot.restores(lambda: GoalEnv(task, replace(found, restorable=True)))
            env_spec = replace(found, restorable=restorable)
        self.env_spec = env_spec

    def reset(self, seed: int | None = None) -> Obs:
        """Begin an episode; None continues the random stream of the last seed."""
        obs, _ = self._env.reset(seed=seed)
        self._seed = self._seed if seed is None else seed
        self._elapsed_steps = 0
        return _observation(obs)

    def step(self, action: np.ndarray) -> StepResult:
        """Apply ``action`` (A,) float32, clipped to [-1, 1] and scaled to the action space."""
        low, high, dtype = self._space
        action = np.clip(action, -1.0, 1.0)
        if not self._unit:  # where it is, the action stays what the agent chose, to the last bit
            action = low + (action + 1.0) * (0.5 * (high - low))
        obs, reward, terminated, truncated, info = self._env.step(action.astype(dtype))
        self._elapsed_steps += 1
        result = StepResult(
            obs=_observation(obs),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated) or self._elapsed_steps >= self.task.max_episode_steps,
            success=bool(info[examine.success_key(info)]),
        )
        finite = np.isfinite(result.obs.state).all() and np.isfinite(result.reward)
        if not finite or any(bad.any() for bad in self._bad):
            where = f"step {self._elapsed_steps} of the episode, seed {self._seed}"
            raise SimulationError(f"the simulation is unstable ({self.task.env_id}, {where})")
        return result

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray) -> np.ndarray:
        """The environment's own reward (B,) float32 of goals (B, G)."""
        return self._reward(achieved_goal, desired_goal).astype(np.float32)

    def compute_terminated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray) -> np.ndarray:
        """Whether these goals (B, G) end an episode, (B,) bool; where ``env_spec.terminates``."""
        return self._terminated(achieved_goal, desired_goal).astype(np.bool_)

    def get_state(self) -> dict[str, Any]:
        """Everything the future depends on, as far as it can be saved (``env_spec.restorable``)."""
        return {
            "env_id": self.task.env_id,
            "elapsed_steps": self._elapsed_steps,
            "seed": str(self._seed),
            "simulation": snapshot.take_all(self._env) if self.env_spec.restorable else {},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from `get_state`; where that saved nothing, a `reset` must follow."""
        if state["env_id"] != self.task.env_id:
            raise ValueError(f"state of {state['env_id']}: expected one of {self.task.env_id}")
        if self._elapsed_steps < 0:  # attributes that a first reset makes are there from now on
            self._env.reset(seed=0)
        if state["simulation"]:
            snapshot.put_all(self._env, state["simulation"])
        self._elapsed_steps, self._seed = int(state["elapsed_steps"]), int(state["seed"])

    def close(self) -> None:
        """Free what the environment holds."""
        self._env.close()


class OverBatch:
    """The environment's function of (achieved_goal, desired_goal, info), over many pairs.

    ``function`` takes goals (G,) and perhaps (B, G): ``pairs``, two arrays (B, G), show whether a
    batch gives what its pairs give.
    """

    def __init__(self, function: Callable[..., Any], pairs: tuple[np.ndarray, np.ndarray]) -> None:
        self._function, self.vectorised = function, False
        one_by_one = self(*pairs)
        try:
            at_once = np.asarray(function(*pairs, {}))
        except Exception:  # whatever code that expects one pair does with many
            return
        self.vectorised = np.array_equal(at_once, one_by_one)

    def __call__(self, achieved_goal: np.ndarray, desired_goal: np.ndarray) -> np.ndarray:
        """Values (B,) of goals (B, G)."""
        if self.vectorised:
            return np.asarray(self._function(achieved_goal, desired_goal, {}))
        pairs = zip(achieved_goal, desired_goal, strict=True)
        return np.array([self._function(achieved, desired, {}) for achieved, desired in pairs])


def open_env(
    task: TaskSpec, env_spec: EnvSpec | None = None, render: bool = True
) -> FetchEnv | GoalEnv:
    """The environment of a task, see `FetchEnv` and `GoalEnv`; ``render=False``: without camera."""
    if task.env_id in fetch_ids():
        return FetchEnv(task if render else replace(task, pixels=None))
    return GoalEnv(task, env_spec)


def _observation(obs: dict[str, np.ndarray]) -> Obs:
    state, achieved, desired = (obs[name].astype(np.float32) for name in examine.ENTRIES)
    return Obs(state, achieved, desired, None)
