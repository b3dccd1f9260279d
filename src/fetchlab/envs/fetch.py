"""One Fetch environment: bit-identical to ``gymnasium.make``, quicker, and exactly restorable."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import farama_notifications
import gymnasium
import mujoco
import numpy as np

from fetchlab.entries import EnvSpec
from fetchlab.envs.spec import Obs, SimulationError, StepResult, TaskSpec, as_asked
from fetchlab.errors import require

# gymnasium-robotics prints its release notice on import, once per worker process.
farama_notifications.notifications.pop("gymnasium_robotics", None)
import gymnasium_robotics  # noqa: E402

from fetchlab.envs import snapshot  # noqa: E402
from fetchlab.envs.fetch_arrays import FetchArrays  # noqa: E402
from fetchlab.envs.rendering import FrameRenderer  # noqa: E402

if TYPE_CHECKING:
    from gymnasium_robotics.envs.fetch import MujocoFetchEnv


class FetchEnv:
    """One environment without gymnasium's wrappers in the step path.

    Resets and goals are gymnasium-robotics' own code, steps are `FetchArrays`. float32 observations
    are casts of float64 values that equal gymnasium's bit for bit.

    Attributes:
        env_spec: what it yields; ``state`` has 25 entries (Reach: 10).
        sparse_reward: whether the reward is -1 or 0; else minus the distance in metres.
        distance_threshold: metres below which the goal is reached.

    Raises:
        ConfigError: no Fetch task has this ``env_id``.
        RuntimeError: the installed gymnasium-robotics observes something else than this class.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.task = task
        env_id, known = task.env_id, fetch_ids()
        require(env_id in known, "env_id", env_id, "a Fetch task", f"use one of {', '.join(known)}")
        made: Any = gymnasium.make(env_id, disable_env_checker=True, **task.kwargs).unwrapped
        self._inner: MujocoFetchEnv = made
        inner = self._inner
        self._model, self._data = inner.model, inner.data
        arrays = self._arrays = FetchArrays(inner)
        self.sparse_reward = inner.reward_type == "sparse"
        self.distance_threshold = float(inner.distance_threshold)
        self.env_spec = as_asked(
            EnvSpec(
                state_dim=len(arrays.state),
                goal_dim=3,
                action_dim=4,
                # The robot's own sensors: everything that does not mention the object.
                proprio=(0, 1, 2, 9, 10, *range(20, 25)) if inner.has_object else tuple(range(10)),
                goal_slice=arrays.goal_slice,
                reward_range=(-1.0 if self.sparse_reward else -math.inf, 0.0),
                terminates=False,
                restorable=True,
                symmetries=_symmetries(inner),
            ),
            task,
        )
        (self._bad,) = snapshot.unstable(inner)
        self._elapsed_steps = -1
        self._seed = int(inner.np_random_seed)  # drawn here, in case nobody gives one
        theirs, ours = inner._get_obs(), arrays.read()
        same = np.array_equal(theirs["observation"], ours)
        if not same or not np.array_equal(theirs["achieved_goal"], arrays.achieved_goal):
            raise RuntimeError(
                f"gymnasium-robotics {gymnasium_robotics.__version__} observes something else than "
                "fetchlab.envs.fetch_arrays: install the locked version"
            )
        self._renderer = None if task.pixels is None else FrameRenderer(inner, task.pixels)

    def reset(self, seed: int | None = None) -> Obs:
        """Begin an episode; None continues the random stream of the last seed."""
        inner = self._inner
        gymnasium.Env.reset(inner, seed=seed)  # seeds `np_random` only
        if seed is not None:
            self._seed = seed
        while not inner._reset_sim():
            pass
        inner.goal = inner._sample_goal().copy()
        self._elapsed_steps = 0
        self._arrays.read()
        return self._obs()

    def step(self, action: np.ndarray) -> StepResult:
        """Apply ``action`` (4,), cast to float32 and clipped to [-1, 1], for 40 ms.

        Raises:
            SimulationError: MuJoCo reset itself; the environment needs a `reset`.
        """
        action = self._checked(action)
        inner, arrays = self._inner, self._arrays
        arrays.write(action)
        mujoco.mj_step(self._model, self._data, nstep=inner.n_substeps)
        self._elapsed_steps += 1
        if self._bad.any():
            names = [kind.name for kind, n in zip(snapshot.BAD_KINDS, self._bad, strict=True) if n]
            message = f"MuJoCo reset itself: {', '.join(names)} ({self._where()})"
            self._elapsed_steps = -1  # refuse to step on
            raise SimulationError(message)
        if inner.block_gripper:
            arrays.close_fingers()
        arrays.read()
        achieved, goal = arrays.achieved_goal, inner.goal
        offset = achieved - goal
        # Summed by numpy, as np.linalg.norm does: another order of additions moves the last bit.
        distance = math.sqrt(np.add.reduce(offset * offset))
        threshold = inner.distance_threshold
        return StepResult(
            obs=self._obs(),
            reward=-float(distance > threshold) if self.sparse_reward else -distance,
            terminated=bool(inner.compute_terminated(achieved, goal, {})),
            truncated=self._elapsed_steps >= self.task.max_episode_steps,
            success=distance < threshold,
        )

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray) -> np.ndarray:
        """Return the environment's own reward (...,) float32 of goals (..., 3)."""
        return np.asarray(self._inner.compute_reward(achieved_goal, desired_goal, {}), np.float32)

    def render_frame(self) -> np.ndarray:
        """Return a new (C, H, W) uint8 frame of the present state (see `FrameRenderer.render`)."""
        if self._renderer is None:
            raise RuntimeError("this environment has no camera: build it with TaskSpec(pixels=...)")
        return self._renderer.render()

    def get_state(self) -> dict[str, Any]:
        """Return everything the future depends on, see `snapshot`."""
        return {
            **snapshot.take(self._inner),
            "env_id": self.task.env_id,
            "elapsed_steps": self._elapsed_steps,
            "seed": str(self._seed),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from `get_state`, which may be another process's, bit for bit."""
        if state["env_id"] != self.task.env_id:
            raise ValueError(f"state of {state['env_id']}: expected one of {self.task.env_id}")
        snapshot.put(self._inner, state)
        self._elapsed_steps, self._seed = int(state["elapsed_steps"]), int(state["seed"])

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._inner.close()

    def _obs(self) -> Obs:
        state = self._arrays.state.astype(np.float32)
        return Obs(
            state=state,
            achieved_goal=state[self._arrays.goal_slice],
            desired_goal=self._inner.goal.astype(np.float32),
            # After the state: rendering refreshes poses, and gymnasium's observation comes first.
            pixels=None if self._renderer is None else self._renderer.render(),
        )

    def _checked(self, action: np.ndarray) -> np.ndarray:
        action = np.asarray(action, np.float32)
        if self._elapsed_steps < 0:
            raise RuntimeError("step before reset: call reset first")
        if action.shape != (self.env_spec.action_dim,):
            raise ValueError(f"action of shape {action.shape}: expected (4,)")
        # One Python sum is quicker than numpy's isfinite; opposite infinities add up to NaN.
        if not math.isfinite(sum(action.tolist())):
            # MuJoCo would not raise: it resets itself and simulates on.
            raise ValueError(f"action {action.tolist()} is not finite ({self._where()})")
        return action

    def _where(self) -> str:
        return f"{self.task.env_id}, step {self._elapsed_steps} of the episode, seed {self._seed}"


def fetch_ids() -> list[str]:
    """The registered tasks that have this fast path."""
    return [
        name
        for name, spec in gymnasium.registry.items()
        if str(spec.entry_point).startswith("gymnasium_robotics.envs.fetch.")
        and ":MujocoFetch" in str(spec.entry_point)
    ]


def _symmetries(inner: MujocoFetchEnv) -> tuple[str, ...]:
    if np.any(inner.target_offset):  # goals lie ahead: Slide
        return ("mirror_y",)
    # Fingers that open do so along y: they can be mirrored, not turned.
    return ("mirror_x", "mirror_y", "mirrors", *(["square"] if inner.block_gripper else []))
