"""Animate a policy that sees: a camera's view of its episodes, and beside it what the agent sees.

    python scripts/animate.py RUN_DIR OUT.gif [--episodes 4] [--seed 0]

The left half is the agent's camera as people like it, 192x192 with the goal marker; the right half
is the agent's own image, each pixel a square. The frame is green while the episode succeeds, and
an episode's last picture, red where it does not, stays for a second. The episodes are those of a
seed, and neither training nor its evaluations use them: `python src/evaluate.py video=true` writes
the best, the median and the worst of them in the same form.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from fetchlab import config, entry  # noqa: E402
from fetchlab.errors import ConfigError, require  # noqa: E402

SIDE = 192  # pixels of each half, 12 x 16 and 6 x 32
STEP_MS, HOLD_MS = 40, 1000
MAX_BYTES = 1_000_000
COLOURS = 96  # of the palette
#: Env steps from one frame to the next: the first that keeps the file within `MAX_BYTES`.
STRIDES = (2, 3, 5, 10)


def play(run_dir: Path, episodes: int, seed: int) -> tuple[list[np.ndarray], list[bool]]:
    """Each episode's pictures (T, H, W, 3) uint8, see `side_by_side`, and its success.

    Raises:
        ConfigError: the folder holds no run, or its policy sees no images.
        RunFailedError: it has no valid checkpoint, or the episodes could not be played.
    """
    from fetchlab import play, policy
    from fetchlab.footage import footage
    from fetchlab.run_folder import require_run

    require_run("RUN_DIR", run_dir)
    asked = play.request(run=str(run_dir), episodes=episodes)
    sees = config.typed(config.stored(run_dir, ())).obs.sees_pixels
    remedy = "python src/evaluate.py run=RUN_DIR video=true shows any policy"
    require(sees, "RUN_DIR", str(run_dir), "a policy that sees images", remedy)
    seeds = play.own_seeds(seed, episodes)
    with policy.in_one_line(None):
        subject = play.subject(asked, {})
        ((_, _, played),) = play.episodes_of(subject, seeds, asked)
        pictures = footage(subject.run, played, seeds, range(episodes), SIDE)
    return pictures, played.success.tolist()


def moments(pictures: np.ndarray, stride: int) -> tuple[list[np.ndarray], list[int]]:
    """Every ``stride``-th picture of an episode, its last one among them, each for how many ms."""
    shown = list(pictures[::-stride][::-1])
    return shown, [STEP_MS * stride] * (len(shown) - 1) + [HOLD_MS]


def gif(pictures: Sequence[np.ndarray], durations_ms: Sequence[int]) -> bytes:
    """An endless GIF of (H, W, 3) uint8, each shown for so long.

    One palette without dithering: what does not move costs no bytes.
    """
    arrays, plain = list(pictures), Image.Dither.NONE
    sample = np.concatenate(arrays[:: max(1, len(arrays) // 12)] + arrays[-1:])
    palette = Image.fromarray(sample).quantize(COLOURS, dither=plain)
    first, *others = (
        Image.fromarray(one).quantize(palette=palette, dither=plain) for one in arrays
    )
    out = io.BytesIO()
    options = {"save_all": True, "append_images": others, "loop": 0}
    first.save(out, "GIF", duration=list(durations_ms), **options)
    return out.getvalue()


def animate(run_dir: Path, path: Path, episodes: int, seed: int) -> None:
    """Write the picture and say what is in it."""
    says = "a path that ends in .gif, in a folder that exists"
    require(
        path.suffix == ".gif" and path.parent.is_dir(), "OUT.gif", str(path), says, "correct it"
    )
    require(episodes > 0, "--episodes", episodes, "a positive whole number", "4 is pleasant")
    played, successes = play(run_dir, episodes, seed)
    for stride in STRIDES:
        parts = [moments(pictures, stride) for pictures in played]
        pictures, durations_ms = (list(chain(*part)) for part in zip(*parts, strict=True))
        data = gif(pictures, durations_ms)
        if len(data) <= MAX_BYTES:
            break
    else:
        expected = f"a picture of at most {MAX_BYTES:,} bytes, this one has {len(data):,}"
        raise ConfigError("--episodes", episodes, expected, "use fewer")
    path.write_bytes(data)
    height, width = pictures[0].shape[:2]
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
