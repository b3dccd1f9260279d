"""Draw `docs/what_the_agent_sees.png`: each camera's 84x84 frame, enlarged, during a scripted push.

python scripts/picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import imageio.v3 as iio  # noqa: E402
import numpy as np  # noqa: E402
import yaml  # noqa: E402

from fetchlab.preflight.renderer import choose_renderer  # noqa: E402

MAGNIFY = 4
STEPS = (0, 4, 8, 12)


def main() -> None:
    """Render the study's observation above, the strict one below."""
    choose_renderer()
    from fetchlab.envs.fetch import FetchEnv
    from fetchlab.envs.spec import TaskSpec
    from fetchlab.schema import Camera, Pixels

    strict = yaml.safe_load((ROOT / "configs/obs/pixels_strict.yaml").read_text())["pixels"]
    cameras = ((None, True), (Camera(**strict["camera"]), strict["show_goal"]))
    rows = []
    for camera, show_goal in cameras:
        env = FetchEnv(TaskSpec("FetchPush-v4", 50, Pixels(84, camera, show_goal, "fast")))
        obs, frames = env.reset(seed=4), []
        for step in range(max(STEPS) + 1):
            if step in STEPS:
                frames.append(obs.pixels.transpose(1, 2, 0))
            towards = obs.achieved_goal - obs.state[:3] + np.array([0.0, 0.0, -0.01])
            action = np.append(np.clip(8 * towards, -1, 1), 0.0).astype(np.float32)
            obs = env.step(action).obs
        rows.append(np.concatenate(frames, axis=1))
        env.close()
    picture = np.concatenate(rows).repeat(MAGNIFY, 0).repeat(MAGNIFY, 1)
    path = ROOT / "docs" / "what_the_agent_sees.png"
    path.parent.mkdir(exist_ok=True)
    iio.imwrite(path, picture)
    print(f"{path.relative_to(ROOT)}: {picture.shape[1]} x {picture.shape[0]} pixels")


if __name__ == "__main__":
    main()
