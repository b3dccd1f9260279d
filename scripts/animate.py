"""Animate a policy that sees: a camera's view of its episodes, and beside it what the agent sees.

    python scripts/animate.py RUN_DIR OUT.gif [--episodes 4] [--seed 0]

The left half is the agent's camera as people like it, 192x192 with the goal marker; the right half
is the agent's own image, each pixel a square. An episode's last frame stays for a second, framed
green where the episode succeeds, else red. The episodes are those of a seed, and neither
training nor its evaluations use them. The left half is a second rendering of the same simulation:
the same seeds and actions give the same episodes.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from fetchlab import config, entry  # noqa: E402
from fetchlab.errors import ConfigError, require  # noqa: E402

if TYPE_CHECKING:
    from tensordict import TensorDictBase
    from torch import Tensor

SIDE, BORDER = 192, 6  # pixels of each half and of the frame around both; 192 is 12 x 16 and 6 x 32
RUNNING, SUCCEEDED, FAILED = (90, 90, 90), (30, 170, 60), (210, 50, 40)
COLOURS = 96
STEP_MS, HOLD_MS = 40, 1000
MAX_BYTES = 1_000_000
#: Env steps from one frame to the next: the first that keeps the file within `MAX_BYTES`.
STRIDES = (2, 3, 5, 10)


def play(
    run_dir: Path, episodes: int, seed: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[bool]]:
    """Each episode's frames (T, `SIDE`, `SIDE`, 3) uint8, left and right, and its success.

    Raises:
        ConfigError: the folder holds no run, or its policy sees no images.
        RunFailedError: it has no valid checkpoint, or the episodes could not be played.
    """
    from fetchlab.build import build_env, build_module
    from fetchlab.checkpoint.find import newest_policy
    from fetchlab.checkpoint.torch_io import load_weights
    from fetchlab.collect.rollout import episode_seeds, rollout
    from fetchlab.errors import RunFailedError
    from fetchlab.play import OWN_SEEDS
    from fetchlab.preflight import numerics
    from fetchlab.preflight.renderer import choose_renderer
    from fetchlab.preflight.sizes import learner_threads
    from fetchlab.run import STOPS_A_RUN
    from fetchlab.run_folder import require_run

    require_run("RUN_DIR", run_dir)
    cfg = config.stored(run_dir, ())
    run = config.check(cfg)
    remedy = "python src/evaluate.py run=RUN_DIR video=true shows any policy"
    require(run.obs.sees_pixels, "RUN_DIR", str(run_dir), "a policy that sees images", remedy)
    numerics.apply(cfg["trainer"], learner_threads(run), cuda=False)
    choose_renderer()
    people = {"image_size": SIDE, "supersample": 1, "quality": "reference", "show_goal": True}
    shown = config.check(config.changed(cfg, {f"obs.pixels.{k}": v for k, v in people.items()}))
    seeds = [OWN_SEEDS + one for one in episode_seeds(seed, episodes)]
    try:
        with closing(build_env(run, episodes, None)) as env:
            module = build_module(run, env.base_env.env_spec)
            load_weights(module, newest_policy(run_dir / "checkpoints"))
            module.eval()
            actions: list[Tensor] = []

            def act(obs: TensorDictBase) -> Tensor:
                actions.append(module.act(obs).cpu())
                return actions[-1]

            right = rollout(env, act, seeds, episodes)
        again = iter(actions)
        with closing(build_env(shown, episodes, None)) as env:
            left = rollout(env, lambda obs: next(again), seeds, episodes)
    except STOPS_A_RUN as error:
        raise RunFailedError(str(error)) from error
    assert left.goal_distance_m.equal(right.goal_distance_m), "the same actions, other episodes"
    pairs = zip(left.frames, right.frames, strict=True)
    halves = [(enlarged(one.numpy()), enlarged(other.numpy())) for one, other in pairs]
    return halves, right.success.tolist()


def enlarged(frames: np.ndarray) -> np.ndarray:
    """Frames (T, 3, h, w) as (T, `SIDE`, `SIDE`, 3); each pixel becomes a rectangle."""
    rows = np.arange(SIDE) * frames.shape[2] // SIDE
    return frames.transpose(0, 2, 3, 1)[:, rows][:, :, rows]


def drawn(
    episodes: list[tuple[np.ndarray, np.ndarray]], successes: list[bool], stride: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Every ``stride``-th picture of each episode, its last one among them, and for how many ms."""
    for halves, success in zip(episodes, successes, strict=True):
        left, right = (half[::-stride][::-1] for half in halves)
        for index in range(len(left)):
            last = index == len(left) - 1
            frame = np.empty((SIDE + 2 * BORDER, 2 * SIDE + 3 * BORDER, 3), np.uint8)
            frame[:] = (SUCCEEDED if success else FAILED) if last else RUNNING
            frame[BORDER:-BORDER, BORDER : BORDER + SIDE] = left[index]
            frame[BORDER:-BORDER, -BORDER - SIDE : -BORDER] = right[index]
            yield frame, HOLD_MS if last else STEP_MS * stride


def encoded(pictures: list[tuple[np.ndarray, int]]) -> bytes:
    """An endless GIF. One palette without dithering: what does not move costs no bytes."""
    arrays, durations = zip(*pictures, strict=True)
    sample = np.concatenate(arrays[:: max(1, len(arrays) // 12)] + arrays[-1:])
    palette = Image.fromarray(sample).quantize(COLOURS, dither=Image.Dither.NONE)
    first, *others = (
        Image.fromarray(array).quantize(palette=palette, dither=Image.Dither.NONE)
        for array in arrays
    )
    out = io.BytesIO()
    options = {"save_all": True, "append_images": others, "loop": 0}
    first.save(out, "GIF", duration=list(durations), **options)
    return out.getvalue()


def animate(run_dir: Path, path: Path, episodes: int, seed: int) -> None:
    """Write the picture and say what is in it."""
    says = "a path that ends in .gif, in a folder that exists"
    require(
        path.suffix == ".gif" and path.parent.is_dir(), "OUT.gif", str(path), says, "correct it"
    )
    require(episodes > 0, "--episodes", episodes, "a positive whole number", "4 is pleasant")
    frames, successes = play(run_dir, episodes, seed)
    for stride in STRIDES:
        pictures = list(drawn(frames, successes, stride))
        data = encoded(pictures)
        if len(data) <= MAX_BYTES:
            break
    else:
        expected = f"a picture of at most {MAX_BYTES:,} bytes, this one has {len(data):,}"
        raise ConfigError("--episodes", episodes, expected, "use fewer")
    path.write_bytes(data)
    height, width = pictures[0][0].shape[:2]
    print(
        f"{path}: {sum(successes)} of {episodes} episodes succeed; {len(pictures)} frames of "
        f"{width} x {height}, {len(data):,} bytes"
    )


def main() -> None:
    """Run the command line."""
    entry.sleep_while_waiting()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dir", metavar="RUN_DIR", type=Path, help="of a policy that sees")
    parser.add_argument("path", metavar="OUT.gif", type=Path)
    parser.add_argument("--episodes", type=int, default=4, help="one after the other")
    parser.add_argument("--seed", type=int, default=0, help="which episodes")
    asked = parser.parse_args()
    entry.answer(lambda: animate(**vars(asked)))


if __name__ == "__main__":
    main()
