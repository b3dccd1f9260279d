"""Policy plus environments into replay, one round at a time.

A round is ``receive`` (what the workers simulated meanwhile), ``act`` (choose with the current
policy), ``send``; the caller's gradient updates then run while the workers simulate. Nothing is
asynchronous: which policy chose which action is fixed by the order of these calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.envs import TransformedEnv

WINDOW_EPISODES = 100  # train/success_rate and train/return: mean over the last 100, as SB3 and Zoo


class ExploringPolicy(Protocol):
    """What the collector needs of the learner."""

    def observe(self, rows: TensorDictBase) -> None:
        """See rows that the simulator gave, before they are stored."""

    def explore(self, obs: TensorDictBase, env_steps: int) -> Tensor:
        """Choose actions (N, A) in [-1, 1], so many env steps into the run."""


class Collector:
    """Steps N environments together and stores what they return.

    Args:
        env: batched environment (`fetchlab.envs.batched.make_env`).
        policy: consulted from ``learning_starts`` on; before, actions are uniform.
        store: takes one step of all environments, e.g. ``replay.extend``.
        learning_starts: env steps of uniform actions before the policy acts.
        env_seed: of the environments.
        action_seed: of the uniform actions.
    """

    def __init__(
        self,
        env: TransformedEnv,
        policy: ExploringPolicy,
        store: Callable[[TensorDictBase], Any],
        learning_starts: int,
        env_seed: int,
        action_seed: int,
    ) -> None:
        self.env, self.policy, self.store = env, policy, store
        self.learning_starts, self._env_seed = learning_starts, env_seed
        self.n_envs = int(env.batch_size[0])
        self.env_steps = self.episodes = 0
        self._rng = torch.Generator().manual_seed(action_seed)
        self._obs: TensorDictBase | None = None
        self._sent: TensorDictBase | None = None
        self._successes: deque[float] = deque(maxlen=WINDOW_EPISODES)
        self._returns: deque[float] = deque(maxlen=WINDOW_EPISODES)

    @property
    def outstanding_steps(self) -> int:
        """Env steps sent to the workers and not yet received."""
        return 0 if self._sent is None else self.n_envs

    @property
    def learning(self) -> bool:
        """Whether the policy acts and updates run."""
        return self.env_steps >= self.learning_starts

    def start(self) -> None:
        """Begin new episodes: the run's first, or on resume where no simulator can be restored."""
        self.env.set_seed(self._env_seed + self.env_steps)
        self._obs = self.env.reset()

    def receive(self) -> int:
        """Wait for the outstanding step, store it, and return the number of env steps received."""
        if self._sent is None:
            return 0
        step, self._obs = self.env.step_and_maybe_reset(self._sent)
        self._sent = None
        self.policy.observe(step)
        self.store(step)
        self.env_steps += self.n_envs
        after = step.get("next")
        done = after.get("done").squeeze(-1)
        if done.any():
            self.episodes += int(done.sum())
            self._successes.extend(after.get("success")[done].float().flatten().tolist())
            self._returns.extend(after.get("episode_return")[done].flatten().tolist())
        return self.n_envs

    def send(self) -> None:
        """Choose actions for the current observations and start the workers."""
        assert self._obs is not None and self._sent is None
        if self.learning:
            action = self.policy.explore(self._obs, self.env_steps).cpu()
        else:
            spec = self.env.action_spec
            action = torch.rand(spec.shape, generator=self._rng) * 2.0 - 1.0
        self._obs.set("action", action)
        self.env.base_env.send(action)
        self._sent, self._obs = self._obs, None

    def means(self) -> dict[str, float]:
        """Success rate in [0, 1] and return over the last 100 episodes; empty before the first."""
        windows = {"train/success_rate": self._successes, "train/return": self._returns}
        return {name: sum(window) / len(window) for name, window in windows.items() if window}

    def state_dict(self) -> dict[str, Any]:
        """Counters, windows, random state and the observation the policy sees next.

        The simulators' states are the environment's own (`fetchlab.envs`).
        """
        assert self._sent is None, "receive the outstanding step first"
        assert self._obs is not None, "call start first"
        return {
            "env_steps": self.env_steps,
            "episodes": self.episodes,
            "rng": self._rng.get_state(),
            "obs": self._obs.flatten_keys(".").to_dict(),
            "successes": list(self._successes),
            "returns": list(self._returns),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.env_steps, self.episodes = int(state["env_steps"]), int(state["episodes"])
        self._rng.set_state(state["rng"])
        flat = TensorDict(state["obs"], batch_size=[self.n_envs])
        self._obs, self._sent = flat.unflatten_keys("."), None
        self._successes = deque(state["successes"], maxlen=WINDOW_EPISODES)
        self._returns = deque(state["returns"], maxlen=WINDOW_EPISODES)
