"""Who executes the runs of a sweep: any launcher takes the same list of jobs.

A launcher is a ``_target_`` in ``configs/launcher``. It knows nothing of runs: it starts commands,
and tells when each has ended; what became of a run stands in the run's folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fetchlab.checkpoint.signals import StopFlag

#: In a run's folder: what its processes said, one after the other.
OUTPUT = "output.log"


@dataclass(frozen=True)
class Job:
    """One run as a command that can be given again at any time, and what it needs.

    Attributes:
        folder: of the run, absolute; its name is the job's.
        command: starts, continues, or returns at once.
        cores: learner threads and workers together.
        memory_bytes: of all its processes, page cache aside.
        gpu: whether it trains on one.
    """

    folder: Path
    command: tuple[str, ...]
    cores: int
    memory_bytes: int
    gpu: bool


class Launcher(Protocol):
    """Executes jobs.

    Attributes:
        cores_per_run: what a run may use; None: all that this machine has.
    """

    cores_per_run: int | None

    def launch(self, jobs: Sequence[Job], flag: StopFlag) -> Iterator[tuple[Job, int | None]]:
        """Yield each job when it has ended, with its exit code where that is known.

        Negative: the signal that killed it. Returns early where ``flag`` asks for it.
        """
