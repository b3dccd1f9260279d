"""What to simulate, how to picture it, and what an environment then yields.

`TaskSpec` travels to worker processes and `EnvSpec` comes back, so they hold plain values only;
importing this module loads neither MuJoCo nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from fetchlab.entries import EnvSpec
from fetchlab.errors import require

if TYPE_CHECKING:
    import numpy as np

QUALITIES = ("reference", "fast")
UNKNOWN_RANGE = (-math.inf, math.inf)


@dataclass(frozen=True)
class CameraSpec:
    """A free camera that looks at a point.

    Args:
        lookat: (3,) world point in the image centre, metres.
        distance: from ``lookat`` to the camera, metres, > 0.
        azimuth: degrees about the vertical; 0 looks along +x, 90 along +y.
        elevation: degrees; -90 looks straight down.

    Raises:
        ConfigError: ``lookat`` has not 3 numbers, or ``distance`` is not positive.
    """

    lookat: tuple[float, float, float]
    distance: float
    azimuth: float
    elevation: float

    def __post_init__(self) -> None:
        # YAML gives a list; a tuple of floats keeps the spec hashable and free of OmegaConf types.
        object.__setattr__(self, "lookat", tuple(float(x) for x in self.lookat))
        require(len(self.lookat) == 3, "camera.lookat", self.lookat, "3 numbers", "give x, y, z")
        require(
            self.distance > 0, "camera.distance", self.distance, "> 0 metres", "move the camera"
        )


@dataclass(frozen=True)
class PixelSpec:
    """One camera frame per step.

    Args:
        image_size: height and width in pixels, >= 1.
        camera: None is gymnasium's default camera (far: a 5 cm cube is 3 pixels wide at 84x84).
        show_goal: draw the desired goal as a red ball. HER relabels the vector, not the picture, so
            with the ball visible a relabelled sample shows the wrong goal.
        quality: ``reference`` is pixel-identical to gymnasium's ``rgb_array``; ``fast`` leaves out
            multisampling and the shadow pass.

    Raises:
        ConfigError: the size or the quality cannot work.
    """

    image_size: int
    camera: CameraSpec | None
    show_goal: bool
    quality: str

    def __post_init__(self) -> None:
        size = self.image_size
        require(size >= 1, "image_size", size, "at least 1 pixel", "84 is the usual choice")
        require(
            self.quality in QUALITIES,
            "quality",
            self.quality,
            f"one of {', '.join(QUALITIES)}",
            "fast is quicker, reference equals gymnasium's picture",
        )


@dataclass(frozen=True)
class TaskSpec:
    """What to simulate; None is what is known of the environment.

    Args:
        env_id: a registered gymnasium goal environment such as ``FetchPush-v4``;
            ``my_package.my_envs:MyReach-v0`` imports that module first, which registers it.
        max_episode_steps: episodes are truncated after this many steps, >= 1.
        pixels: None renders nothing.
        kwargs: for `gymnasium.make`.
        proprio: entries of ``state`` that are the robot's own sensors; None: of a Fetch task those
            that do not mention the object, of another all.
        reward_range: lowest and highest reward; None: of a Fetch task its own, else unknown.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive, or a range has not two ends in order.
            (What runs the environment checks the rest against it.)
    """

    env_id: str
    max_episode_steps: int
    pixels: PixelSpec | None
    kwargs: Mapping[str, Any] = field(default_factory=dict, hash=False)
    proprio: tuple[int, ...] | None = None
    reward_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        steps, ends = self.max_episode_steps, self.reward_range
        require(steps >= 1, "max_episode_steps", steps, "at least 1 step", "Fetch tasks use 50")
        ok = ends is None or (len(ends) == 2 and ends[0] <= ends[1])
        require(ok, "task.reward_range", ends, "[lowest, highest]", "null where it is unknown")
        # YAML gives lists.
        for name in ("proprio", "reward_range"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, tuple(value))


def as_asked(spec: EnvSpec, task: TaskSpec) -> EnvSpec:
    """``spec`` with what the task declares itself.

    Raises:
        ConfigError: a ``proprio`` that names entries beyond ``state``.
    """
    asked = task.proprio
    require(
        asked is None or (len(asked) > 0 and all(0 <= i < spec.state_dim for i in asked)),
        "task.proprio",
        asked,
        f"entries of a state of {spec.state_dim} numbers, from 0",
        "null takes those that are known of it",
    )
    ends = spec.reward_range if task.reward_range is None else task.reward_range
    return replace(spec, proprio=spec.proprio if asked is None else asked, reward_range=ends)


class Obs(NamedTuple):
    """One observation; the arrays are the caller's to keep.

    ``state`` (D,), ``achieved_goal`` and ``desired_goal`` (G,) float32, of Fetch tasks in metres,
    ``pixels`` (3, H, W) uint8, or None without a camera.
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
