"""What to simulate, and what a step of it gives.

A `TaskSpec` travels to worker processes; importing this module loads neither MuJoCo nor torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from fetchlab.entries import EnvSpec
from fetchlab.errors import require
from fetchlab.schema import Pixels


@dataclass(frozen=True)
class TaskSpec:
    """What to simulate; None is what is known of the environment.

    Args:
        env_id: a registered gymnasium goal environment such as ``FetchPush-v4``;
            ``my_package.my_envs:MyReach-v0`` imports that module first, which registers it.
        max_episode_steps: episodes are truncated after this many steps, >= 1.
        pixels: one camera frame per step, of equal height and width; None renders nothing.
        kwargs: for `gymnasium.make`.
        proprio: entries of ``state`` that are the robot's own sensors; None: of a Fetch task those
            that do not mention the object, of another all.
        reward_range: lowest and highest reward; None: of a Fetch task its own, else unknown.

    Raises:
        ConfigError: a range has not two ends in order; the schema checks single values.
    """

    env_id: str
    max_episode_steps: int
    pixels: Pixels | None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    proprio: tuple[int, ...] | None = None
    reward_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        ends = self.reward_range
        ok = ends is None or (len(ends) == 2 and ends[0] <= ends[1])
        require(ok, "task.reward_range", ends, "[lowest, highest]", "null where it is unknown")
        # YAML gives lists.
        for name in ("proprio", "reward_range"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))


def as_asked(spec: EnvSpec, task: TaskSpec) -> EnvSpec:
    """``spec`` with what the task declares itself."""
    asked, entries = task.proprio, f"entries of a state of {spec.state_dim} numbers, from 0"
    ok = asked is None or (len(asked) > 0 and all(0 <= i < spec.state_dim for i in asked))
    require(ok, "task.proprio", asked, entries, "null takes those that are known of it")
    ends = spec.reward_range if task.reward_range is None else task.reward_range
    return replace(spec, proprio=spec.proprio if asked is None else asked, reward_range=ends)


class Obs(NamedTuple):
    """One observation; the arrays are the caller's to keep.

    ``state`` (D,), ``achieved_goal`` and ``desired_goal`` (G,) float32, of Fetch tasks in metres,
    ``pixels`` (C, H, W) uint8, or None without a camera.
    """

    state: np.ndarray
    achieved_goal: np.ndarray
    desired_goal: np.ndarray
    pixels: np.ndarray | None


class StepResult(NamedTuple):
    """What one step gave; ``success`` is the environment's own verdict at this very step."""

    obs: Obs
    reward: float
    terminated: bool
    truncated: bool
    success: bool


class SimulationError(RuntimeError):
    """The simulation became unstable; MuJoCo silently resets it in the middle of an episode."""
