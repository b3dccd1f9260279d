"""A simulator worker whose simulator blows up; imports no torch, as any worker."""

from __future__ import annotations

from typing import Any

from fetchlab.envs import worker
from fetchlab.envs.fetch import FetchEnv

BLOWS_UP_AT = 300  # env steps of this worker: in training, not in an evaluation


def main() -> None:
    """Serve, with a force of 1e30 at the chosen step: MuJoCo answers with BADQACC."""
    inner, calls = FetchEnv.step, iter(range(1, 1 << 30))

    def step(self: Any, action: Any) -> Any:
        if next(calls) == BLOWS_UP_AT:
            self._data.qfrc_applied[:] = 1e30
        return inner(self, action)

    FetchEnv.step = step
    worker.main()
