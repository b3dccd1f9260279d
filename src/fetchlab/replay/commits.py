"""Which rows the two newest checkpoints need, and how far the ring may still be written."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Commit(NamedTuple):
    """What one checkpoint can sample, or continue: rows ``start .. cursor``; both (N,) int64."""

    start: np.ndarray
    cursor: np.ndarray


class CommittedRows:
    """Keeps a checkpoint's rows from being overwritten while it is one of the two newest.

    ``limit`` (N,) int64 is the first absolute row that may not be written yet.
    """

    def __init__(self, n_envs: int, rows: int) -> None:
        self._rows = rows
        self._commits: list[Commit] = []
        self._taken: Commit | None = None
        self.newest: Commit | None = None  # of the durable ones, and the one before it
        self.previous: Commit | None = None
        self.limit = np.full(n_envs, np.iinfo(np.int64).max)

    def take(self, commit: Commit) -> None:
        """A state was handed out for a checkpoint that is not durable yet."""
        self._taken = commit

    def committed(self) -> None:
        """The state handed out last is durable now; the oldest of three loses its protection."""
        if self._taken is None:
            raise RuntimeError("committed() without state_dict(): save the state first")
        self.restore([*self._commits, self._taken])

    def replace(self) -> None:
        """The next checkpoint takes the place of the newest, and needs the same rows."""
        self.restore(self._commits[:-1])

    def restore(self, commits: list[Commit]) -> None:
        """Protect the two newest of ``commits``, oldest first."""
        self._commits = commits[-2:]
        self.previous, self._taken = [None, None, *commits][-2:]
        self.newest = self._taken
        # Writing absolute row a destroys row a - rows: all below start + rows are free to write.
        self.limit.fill(np.iinfo(np.int64).max)
        for commit in self._commits:
            np.minimum(self.limit, commit.start + self._rows, out=self.limit)
