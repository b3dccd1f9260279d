"""Child of test_commit.py: kill a commit before, or in the middle of, its n-th change on disk.

``python kill_points.py FOLDER MODE`` prints one JSON line per kill point. It imports nothing heavy,
so that one process can fork a victim for every point.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from fetchlab.checkpoint.commit import prune, write_checkpoint
from fetchlab.checkpoint.find import newest_valid, survey
from fetchlab.checkpoint.manifest import read_checkpoint

STEPS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")
OLDER, OLD, NEW = b"older" * 200, b"old" * 200, b"new" * 200


def prepare(folder: Path) -> None:
    """Two checkpoints, and what an earlier kill left behind."""
    shutil.rmtree(folder, ignore_errors=True)
    write_checkpoint(folder, "step_000000100", {"a.bin": OLDER, "b.bin": OLDER}, 100)
    write_checkpoint(folder, "step_000000200", {"a.bin": OLD, "b.bin": OLD}, 200)
    for stale in (".commit-step_000000250", ".removed-step_000000050"):
        (folder / stale).mkdir()
        (folder / stale / "a.bin").write_bytes(b"x")


def commit(folder: Path) -> None:
    write_checkpoint(folder, "step_000000300", {"a.bin": NEW, "b.bin": NEW}, 300)
    prune(folder, "step", keep=2)


def arm(n: int, mode: str) -> list[str]:
    """Make this process die at its n-th step on disk; returns the list of steps it records."""
    trace: list[str] = []

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def step(*args, **kwargs):
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            trace.append(name)
            if len(trace) == n:
                if mode == "torn" and name == "write":
                    real(args[0], bytes(args[1])[: len(args[1]) // 2])
                if mode == "after":
                    real(*args, **kwargs)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        setattr(os, name, step)

    for name in STEPS:
        wrap(name)
    return trace


def main(folder: Path, mode: str) -> None:
    os.fsync = lambda fd: None  # a killed process loses nothing of the page cache: save the time
    for n in range(1, 1000):
        prepare(folder)
        victim = os.fork()
        if victim == 0:
            arm(n, mode)
            commit(folder)
            os._exit(0)
        status = os.waitpid(victim, 0)[1]
        valid = [c.path.name for c in survey(folder, "step", limit=None).valid]
        newest = newest_valid(folder)
        content = read_checkpoint(newest)[1]
        commit(folder)  # the next commit of the run that was killed
        record = {
            "n": n,
            "killed": os.WIFSIGNALED(status),
            "code": status,
            "valid": valid,
            "newest": newest.name,
            "whole": content in ({"a.bin": d, "b.bin": d} for d in (OLD, NEW)),
            "left": sorted(p.name for p in folder.iterdir()),
            "heavy": "torch" in sys.modules,
        }
        sys.stdout.write(json.dumps(record) + "\n")
        if not record["killed"]:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
