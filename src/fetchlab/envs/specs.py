"""What to simulate and how to picture it: plain, picklable descriptions of one Fetch environment.

They travel to worker processes, so they hold numbers and strings only; importing this module loads
neither MuJoCo nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from fetchlab.errors import require

QUALITIES = ("reference", "fast")


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
class FetchSpec:
    """One environment.

    Args:
        env_id: a gymnasium-robotics Fetch id such as ``FetchPush-v4``.
        max_episode_steps: episodes are truncated after this many steps, >= 1.
        pixels: None renders nothing.

    Raises:
        ConfigError: ``max_episode_steps`` is not positive. (`FetchEnv` checks ``env_id``.)
    """

    env_id: str
    max_episode_steps: int
    pixels: PixelSpec | None

    def __post_init__(self) -> None:
        steps = self.max_episode_steps
        require(steps >= 1, "max_episode_steps", steps, "at least 1 step", "Fetch tasks use 50")
