"""One process per run folder, by a lock that the kernel frees when its holder dies.

`flock` belongs to the open file, so a stale lock cannot exist: kill -9 frees it. The file stays;
what is written in it only feeds the message of a refused second start.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from fetchlab.errors import ConfigError, RunFailedError

LOCK_FILE = ".lock"
_held: set[int] = set()


class RunLockedError(RunFailedError):
    """Another process is using the run folder; the message names its pid and the folder."""


class RunLock:
    """Hold a run folder for this process; a context manager.

    No child process keeps the lock alive: the descriptor closes on exec (spawned workers), and in
    the child of a plain fork.

    Args:
        run_dir: an existing folder.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock at once or fail; nothing in the folder changes on failure.

        Raises:
            RunLockedError: somebody holds it.
            ConfigError: the lock file cannot be opened for writing.
        """
        path = self._run_dir / LOCK_FILE
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from error
        with ExitStack() as undo:
            undo.callback(os.close, fd)
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise self._unusable(f"{LOCK_FILE} is not a regular file")
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"pid {os.getpid()} since {now}\n".encode(), 0)
            except BlockingIOError:
                found = _holder(fd)
                by = f"process {found[1]} since {found[2]}" if found else "another process"
                raise RunLockedError(
                    f"run_dir={str(self._run_dir)!r} is in use by {by}: expected one process per"
                    " run; wait for it, stop it, or choose another run_dir"
                ) from None
            except OSError as error:
                raise self._unusable(error.strerror or str(error)) from error
            undo.pop_all()
        self._fd = fd
        _held.add(fd)

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._fd is not None and self._fd in _held:
            _held.discard(self._fd)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
        self._fd = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _unusable(self, reason: str) -> ConfigError:
        return ConfigError(
            "run_dir", str(self._run_dir), "a folder this user can write", f"{reason}; fix or move"
        )


def was_locked(run_dir: Path) -> bool:
    """Whether a run's process has ever held this folder; reads only."""
    try:
        fd = os.open(run_dir / LOCK_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (OSError, ValueError):
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and _holder(fd) is not None
    finally:
        os.close(fd)


def _holder(fd: int) -> re.Match[str] | None:
    text = os.pread(fd, 100, 0).decode("ascii", "replace")
    return re.match(r"pid ([0-9]+) since ([0-9T:+-]+)\n", text)


def _close_in_forked_child() -> None:
    # Closing a copy does not unlock: the lock lives until the last copy closes or LOCK_UN.
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_forked_child)
