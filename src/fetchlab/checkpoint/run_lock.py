"""One process per run folder, by a lock that the kernel frees when its holder dies.

On one machine `flock` is all: it belongs to the open file, so kill -9 frees it and no stale lock
exists. On a file system that several machines share it may hold nothing, or hold on for a dead
node. So the file names its holder's machine, the holder touches it every `BEAT_S`, and another
machine takes it only after it has seen no touch for `LEASE_S`; a holder that finds another
machine's name there has lost the folder, and ends at once. The file stays.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import sys
import threading
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path

from fetchlab.errors import ConfigError, RunFailedError

LOCK_FILE = ".lock"
#: Between two signs of life, and how long none may come; a network's file attributes are cached for
#: up to a minute.
BEAT_S, LEASE_S = 10.0, 90.0
HOST = re.sub(r"[^\w.-]", "-", socket.gethostname())
_RELEASED = b"released\n"
_held: set[int] = set()


class RunLockedError(RunFailedError):
    """Another process is using the run folder; the message names its pid and the folder."""


class RunLock:
    """Hold a run folder, which exists, for this process; a context manager.

    No child process keeps the lock alive: the descriptor closes on exec (spawned workers), and in
    the child of a plain fork.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._fd: int | None = None
        self._ends = threading.Event()

    def acquire(self) -> None:
        """Take the lock at once or fail; nothing in the folder changes on failure.

        Of a folder that another machine held and did not release it takes `LEASE_S`.

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
                lives = _elsewhere(fd) and _touched(path, LEASE_S)
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if lives:
                    raise BlockingIOError
                now = datetime.now(UTC).isoformat(timespec="seconds")
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"pid {os.getpid()} since {now} on {HOST}\n".encode(), 0)
                os.fsync(fd)
            except BlockingIOError:
                found = _holder(fd)
                by = f"process {found[1]} since {found[2]}" if found else "another process"
                by += f" on {found[3]}" if found and _elsewhere(fd) else ""
                raise RunLockedError(
                    f"run_dir={str(self._run_dir)!r} is in use by {by}: expected one process per"
                    " run; wait for it, stop it, or choose another run_dir"
                ) from None
            except OSError as error:
                raise self._unusable(error.strerror or str(error)) from error
            undo.pop_all()
        self._fd = fd
        _held.add(fd)
        self._ends = threading.Event()
        threading.Thread(target=_beat, args=(path, self._ends), daemon=True).start()

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._fd is not None and self._fd in _held:
            self._ends.set()
            _held.discard(self._fd)
            with suppress(OSError):  # a full disk: then another machine waits
                os.pwrite(self._fd, _RELEASED, os.fstat(self._fd).st_size)
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
    text = os.pread(fd, 400, 0).decode("ascii", "replace")
    return re.match(r"pid ([0-9]+) since ([0-9T:+-]+)(?: on ([\w.-]+))?\n(released\n)?", text)


def _elsewhere(fd: int) -> bool:
    """Whether a process of another machine held the folder last, and has not released it."""
    found = _holder(fd)
    return found is not None and found[3] not in (None, HOST) and found[4] is None


def _touched(path: Path, seconds: float) -> bool:
    """Whether the file changes within so many seconds; by no clock but this machine's."""
    before, ends = _looked_at(path), time.monotonic() + seconds
    waiting = f"waiting {seconds:.0f} s for a sign of life"
    print(f"lock      {path} was not released by another machine: {waiting}", flush=True)
    while time.monotonic() < ends:
        time.sleep(min(1.0, seconds / 10))
        if _looked_at(path) != before:
            return True
    return False


def _looked_at(path: Path) -> tuple[int, bytes]:
    """Opened anew: a network file system then asks its server."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.fstat(fd).st_mtime_ns, os.pread(fd, 400, 0)
    finally:
        os.close(fd)


def _beat(path: Path, ends: threading.Event) -> None:
    """Touch the file until the lock is released, or end the process where it was taken away."""
    while not ends.wait(BEAT_S):
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            if _elsewhere(fd) and not ends.is_set():
                found = _holder(fd)
                where = f"{path.parent} was taken over by {found and found[3]}"
                print(f"error: {where}, which saw no sign of life of this process", file=sys.stderr)
                os._exit(1)
            os.utime(fd)
        except OSError:
            continue
        finally:
            os.close(fd)


def _close_in_forked_child() -> None:
    # Closing a copy does not unlock: the lock lives until the last copy closes or LOCK_UN.
    for fd in _held:
        os.close(fd)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_forked_child)
