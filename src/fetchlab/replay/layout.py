"""Sizes and shapes of the replay: pure arithmetic, before anything is allocated.

Each environment owns one ring of ``rows`` rows. One row is one time step of one environment: the
observation, and the transition that starts there. A finished episode of ``T`` transitions takes
``T + 1`` rows, because its final observation is a row too. Of the ring's rows

    window_rows = window_steps + ceil(window_steps / max_episode_steps)

hold the logical window (full-length episodes assumed; shorter ones are evicted by rows as well),
``max_episode_steps + 2 * ROUNDS_AHEAD`` more the episode in progress, and the rest is the margin
that keeps what the two newest checkpoints can sample from being overwritten.

This module imports no torch: the preflight sums run before anything heavy is loaded.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, PIXELS, STATE
from fetchlab.errors import require

ACTION = "action"
TERMINATED = "terminated"

#: Written for every row, the final one of an episode included.
OBSERVATION_ARRAYS = (PIXELS, STATE, ACHIEVED_GOAL)
#: Written for every transition: the final row of an episode has none.
TRANSITION_ARRAYS = (DESIRED_GOAL, ACTION, TERMINATED)
FORMAT_VERSION = 1
#: How many rounds before the last possible moment a commit is asked for: the outstanding round is
#: stored before a commit; the two newest checkpoints may protect the same row, so that a second
#: commit must follow one round later; and then the write itself.
ROUNDS_AHEAD = 3


@dataclass(frozen=True)
class RowSpec:
    """What one environment yields per step."""

    state_dim: int
    goal_dim: int
    action_dim: int
    stores_goal: bool  # whether ``achieved_goal`` is stored, for it is no slice of ``state``
    pixels_shape: tuple[int, int, int] | None  # (C, H, W)

    def arrays(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of one row of each array."""
        arrays: dict[str, tuple[tuple[int, ...], str]] = {
            STATE: ((self.state_dim,), "float32"),
            DESIRED_GOAL: ((self.goal_dim,), "float32"),
            ACTION: ((self.action_dim,), "float32"),
            TERMINATED: ((), "uint8"),
        }
        if self.stores_goal:
            arrays[ACHIEVED_GOAL] = ((self.goal_dim,), "float32")
        if self.pixels_shape is not None:
            arrays[PIXELS] = (tuple(self.pixels_shape), "uint8")
        return arrays


@dataclass(frozen=True)
class ReplaySize:
    """How much a run stores, all environments together.

    Raises:
        ConfigError: a window without room for one episode of every environment.
    """

    n_envs: int
    max_episode_steps: int
    capacity: int  # transitions of the logical window
    total_env_steps: int
    margin_env_steps: int  # beyond the window; of two checkpoint intervals: no commit is forced

    def __post_init__(self) -> None:
        least = self.n_envs * self.max_episode_steps
        expected = f"at least n_envs * max_episode_steps = {least} transitions"
        remedy = "raise replay.capacity or lower collect.n_envs"
        require(self.capacity >= least, "replay.capacity", self.capacity, expected, remedy)


@dataclass(frozen=True)
class Layout:
    """The arrangement of one replay on disk; ``layout.json`` holds exactly this."""

    n_envs: int  # number of rings, N
    max_episode_steps: int
    window_steps: int  # transitions of finished episodes per environment, at most
    window_rows: int  # rows of those episodes per environment, at most
    rows: int  # of one ring; absolute row ``a`` lies at physical row ``a % rows``
    arrays: dict[str, tuple[tuple[int, ...], str]]  # shape and dtype; on disk (N, rows, *shape)
    generation: int  # how often the replay has been grown; names the files

    def disk_bytes(self) -> int:
        """Bytes of all files, margin included."""
        return sum(map(self.file_bytes, self.arrays))

    def bytes_per_transition(self) -> float:
        """Bytes of the full logical window over its transitions, margin excluded."""
        return self.window_rows * self.row_bytes() / self.window_steps

    def row_bytes(self) -> int:
        """Bytes of one row, all arrays together."""
        return self.disk_bytes() // (self.n_envs * self.rows)

    def file_bytes(self, name: str) -> int:
        """Bytes of the file of one array."""
        shape, dtype = self.arrays[name]
        return self.n_envs * self.rows * math.prod(shape) * np.dtype(dtype).itemsize

    def file_name(self, name: str) -> str:
        """File of one array: ``pixels.bin``; after the replay has grown once ``pixels.1.bin``."""
        return f"{name}.{self.generation}.bin" if self.generation else f"{name}.bin"

    def differences(self, other: Layout) -> list[str]:
        """What keeps the files of ``other`` from serving as ours; sizes may differ, shapes not."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{key}: {theirs[key]} on disk, {mine[key]} asked for"
            for key in ("n_envs", "max_episode_steps", "arrays")
            if mine[key] != theirs[key]
        ]

    def grown_from(self, old: Layout) -> Layout:
        """The larger of both layouts: a replay is never shrunk."""
        larger = replace(
            self,
            window_steps=max(self.window_steps, old.window_steps),
            window_rows=max(self.window_rows, old.window_rows),
            rows=max(self.rows, old.rows),
            generation=old.generation,
        )
        return replace(larger, generation=old.generation + 1) if larger.rows > old.rows else larger

    def to_json(self) -> str:
        """Plain JSON, with the file of each array spelled out for scripts that read the rows."""
        plain: dict[str, Any] = {"format": FORMAT_VERSION, **asdict(self)}
        plain["arrays"] = {
            name: {"file": self.file_name(name), "shape": list(shape), "dtype": dtype}
            for name, (shape, dtype) in self.arrays.items()
        }
        return json.dumps(plain, indent=2, sort_keys=True) + "\n"

    @staticmethod
    def from_json(text: str) -> Layout:
        """Read what `to_json` wrote; `ValueError` for another text."""
        try:
            plain = json.loads(text)
            if plain.pop("format") != FORMAT_VERSION:
                raise ValueError("another format version")
            plain["arrays"] = {
                name: (tuple(int(size) for size in array["shape"]), str(np.dtype(array["dtype"])))
                for name, array in plain["arrays"].items()
            }
            return Layout(**plain)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a replay layout ({error!r})") from error


def plan_layout(row: RowSpec, size: ReplaySize) -> Layout:
    """The layout of a new replay: min(capacity, total_env_steps) plus margin.

    The margin never exceeds what the whole run can write (two rows per transition, if every
    episode had one step), so a short run stays small whatever its checkpoint interval is.
    """
    longest = size.max_episode_steps
    steps = -(-size.total_env_steps // size.n_envs)
    window_steps = max(longest, min(size.capacity // size.n_envs, steps))
    window_rows = _rows_of(window_steps, longest)
    needed = window_rows + longest + rows_written(ROUNDS_AHEAD) + 1
    with_margin = needed + _rows_of(-(-size.margin_env_steps // size.n_envs), longest)
    return Layout(
        n_envs=size.n_envs,
        max_episode_steps=longest,
        window_steps=window_steps,
        window_rows=window_rows,
        rows=max(needed, min(with_margin, 2 * steps + 2)),
        arrays=row.arrays(),
        generation=0,
    )


def rows_written(rounds: int) -> int:
    """Rows that one environment writes in ``rounds`` rounds, at most and beyond its open row.

    A round writes one row, or two where an episode begins; one that begins after the last stored
    final row reuses the cursor's row, hence the 1.
    """
    return 2 * rounds - 1


def _rows_of(steps: int, max_episode_steps: int) -> int:
    """Rows of ``steps`` transitions in full-length episodes: one final row each."""
    return steps + -(-steps // max_episode_steps)
