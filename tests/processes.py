"""Processes as the kernel shows them: any of them may end while it is looked at."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

_ENDED = (FileNotFoundError, ProcessLookupError)


def gone(pids, within_s=5.0):
    """Whether all these processes are dead, zombies included, within so many seconds."""
    deadline = time.monotonic() + within_s
    while alive := [pid for pid in pids if _alive(pid)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return not alive


def simulators(parent):
    """Process ids of the simulator workers that a process has started, oldest first.

    A child that has not begun its own program yet, still with its parent's command line and
    libraries, is none.
    """
    found = []
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        with suppress(*_ENDED):
            for pid in map(int, path.read_text().split()):
                with suppress(*_ENDED):
                    if "envs.worker" in Path(f"/proc/{pid}/cmdline").read_text():
                        found.append(pid)
    return found


def _alive(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except _ENDED:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
