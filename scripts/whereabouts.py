"""Where a Fetch run's gripper has been, from its replay: does it go to the object, or hide it?

    python scripts/whereabouts.py RUN_DIR [RUN_DIR ...] [--parts 8]

A line for each part of the run: mean position of the gripper (metres), its distance from the
object over the table (metres), the share of episodes in which the object moved by 1 cm and by 5 cm,
and the mean action. The strict camera looks from the table's +y side: there the arm hides all.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

GRIPPER, OBJECT = slice(0, 3), slice(3, 6)  # of Fetch's observation


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR")
    parser.add_argument("--parts", type=int, default=8)
    asked = parser.parse_args()
    for run_dir in asked.run_dirs:
        told(run_dir, asked.parts)


def told(run_dir: Path, parts: int) -> None:
    """Print a run's lines."""
    layout = json.loads((run_dir / "replay" / "layout.json").read_text())
    state, action = (rows_of(run_dir, layout, name) for name in ("state", "action"))
    used = int(np.abs(state).any(axis=(0, 2)).nonzero()[0].max()) + 1
    rows = layout["max_episode_steps"] + 1  # of an episode; all are equally long in Fetch
    episodes = used // rows
    print(
        f"{run_dir}: {episodes * len(state)} episodes of {rows - 1} env steps, {len(state)} a time"
    )
    print("env steps      x     y     z  apart   1 cm  5 cm  action x    y      z")
    for part in np.array_split(np.arange(episodes), min(parts, episodes)):
        window = slice(part[0] * rows, (part[-1] + 1) * rows)
        seen, done = state[:, window], action[:, window]
        gripper, thing = seen[..., GRIPPER], seen[..., OBJECT]
        apart = np.linalg.norm((gripper - thing)[..., :2], axis=-1).mean()
        ends = thing.reshape(len(thing), len(part), rows, 3)
        moved = np.linalg.norm(ends[:, :, -1] - ends[:, :, 0], axis=-1)
        steps = int(part[-1] + 1) * (rows - 1) * len(state)
        place = " ".join(f"{one:5.2f}" for one in gripper.mean(axis=(0, 1)))
        shares = f"{(moved > 0.01).mean():5.0%} {(moved > 0.05).mean():5.0%}"
        moves = " ".join(f"{one:+6.2f}" for one in done.mean(axis=(0, 1))[:3])
        print(f"{steps:9,}  {place}  {apart:5.2f}  {shares}  {moves}")


def rows_of(run_dir: Path, layout: dict, name: str) -> np.ndarray:
    """All environments' rows (N, rows, ...); those of a ring that has wrapped are out of order."""
    one = layout["arrays"][name]
    shape = (layout["n_envs"], layout["rows"], *one["shape"])
    return np.memmap(run_dir / "replay" / one["file"], one["dtype"], "r", shape=shape)


if __name__ == "__main__":
    main()
