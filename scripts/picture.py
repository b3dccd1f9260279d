"""Draw into `docs/` what the agent sees during a scripted push, enlarged.

    python scripts/picture.py

`what_the_agent_sees.png`: each camera's 84x84 frame. `small_images.png`: the strict camera's frames
of 16x16 and 32x32, each as it is rendered, then averaged from four times its height and width.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import imageio.v3 as iio  # noqa: E402
import numpy as np  # noqa: E402
import yaml  # noqa: E402

from fetchlab.preflight.renderer import choose_renderer  # noqa: E402

MAGNIFY = 4
STEPS = (0, 4, 8, 12)
SMALL_SIDE, SMALL_STEPS = 224, (0, 8)  # enlarged by whole factors, 14 and 7


def main() -> None:
    """Render the study's observation above, the strict one below; then the small ones."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    choose_renderer()
    from fetchlab.schema import Camera, Pixels

    strict = yaml.safe_load((ROOT / "configs/obs/pixels_strict.yaml").read_text())["pixels"]
    near = Camera(**strict["camera"]), strict["show_goal"]
    rows = [
        np.concatenate(pushing(Pixels(84, 1, camera, {}, show_goal, "fast"), STEPS), axis=1)
        for camera, show_goal in ((None, True), near)
    ]
    save("what_the_agent_sees.png", enlarged(np.concatenate(rows), MAGNIFY))
    columns = []
    for size, supersample in ((16, 1), (16, 4), (32, 1), (32, 4)):
        frames = pushing(Pixels(size, supersample, near[0], {}, near[1], "fast"), SMALL_STEPS)
        columns.append(enlarged(np.concatenate(frames), SMALL_SIDE // size))
    save("small_images.png", np.concatenate(columns, axis=1))


def pushing(pixels: Any, steps: Sequence[int]) -> list[np.ndarray]:
    """Frames (H, W, 3) at some steps of a hand that goes for the object."""
    from fetchlab.envs.fetch import FetchEnv
    from fetchlab.envs.spec import TaskSpec

    env = FetchEnv(TaskSpec("FetchPush-v4", 50, pixels))
    obs, frames = env.reset(seed=4), []
    for step in range(max(steps) + 1):
        if step in steps:
            frames.append(obs.pixels.transpose(1, 2, 0))
        towards = obs.achieved_goal - obs.state[:3] + np.array([0.0, 0.0, -0.01])
        action = np.append(np.clip(8 * towards, -1, 1), 0.0).astype(np.float32)
        obs = env.step(action).obs
    env.close()
    return frames


def enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    """Each pixel (H, W, 3) repeated."""
    return picture.repeat(factor, 0).repeat(factor, 1)


def save(name: str, picture: np.ndarray) -> None:
    """Write it, and say its size."""
    path = ROOT / "docs" / name
    path.parent.mkdir(exist_ok=True)
    iio.imwrite(path, picture)
    print(f"{path.relative_to(ROOT)}: {picture.shape[1]} x {picture.shape[0]} pixels")


if __name__ == "__main__":
    main()
