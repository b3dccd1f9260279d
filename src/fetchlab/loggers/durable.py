"""Append-only files that can be cut back to a recorded size: what makes logs exact after a crash.

A checkpoint records how long each log file was (`AppendFile.sync`); a resume cuts the file back to
that length (`cut_back`), so what was logged after the checkpoint vanishes and is logged again.
Symbolic links are refused: a run folder from elsewhere must not truncate files outside itself.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger

from fetchlab.durable import fsync_directory
from fetchlab.errors import ConfigError, require


class AppendFile:
    """A file that only grows; every write reaches the operating system before it returns.

    Args:
        path: Created when missing, together with its folder; existing bytes are kept.

    Raises:
        OSError: The file cannot be created (or is a symbolic link); the message names the path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        # Unbuffered: after a failed write nothing is left behind that a close would try again.
        self._stream = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
        self._folder_synced = False

    def write(self, data: bytes) -> None:
        """Append ``data`` and hand it to the operating system, all of it or nothing.

        Raises:
            OSError: For example on a full disk; the message names the path.
        """
        before = os.fstat(self._stream.fileno()).st_size
        try:
            done = 0
            while done < len(data):  # a nearly full disk takes a part first
                done += self._stream.write(data[done:])
        except OSError as error:
            with contextlib.suppress(OSError):
                self._stream.truncate(before)
            error.filename = str(self._path)  # a write's error does not name its file by itself
            raise

    def sync(self) -> int:
        """Make every written byte survive a power cut and return the file's size in bytes."""
        os.fsync(self._stream.fileno())
        if not self._folder_synced:
            fsync_directory(self._path.parent)
            self._folder_synced = True
        return os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        self._stream.close()


class RunLogger(Logger):
    """A logger of the run's folder ``save_dir``, with one append-only file open at a time."""

    # The folder is complete without Lightning's name and version.
    name = version = save_dir = ""

    def __init__(self, save_dir: str) -> None:
        super().__init__()
        self.save_dir = save_dir
        self._file: AppendFile | None = None
        self._begun = False  # whether what is there is this run's: begun, or taken back

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's ``config.yaml`` is the record."""

    def finalize(self, status: str) -> None:
        """Make all that is logged durable and close the file; a later entry opens one again."""
        if self._file is not None:
            self._file.close()
            self._file = None


def checked_size(path: Path, size: object) -> int:
    """Return ``size`` if ``path`` can be cut back to it; changes nothing.

    Raises:
        ConfigError: ``size`` is no byte count, ``path`` is no regular file, or it is shorter.
    """
    if type(size) is not int or size < 0:
        raise ConfigError(str(path), size, "a size in bytes", "the checkpoint is damaged")
    if size == 0 and not path.exists() and not path.is_symlink():
        return 0  # nothing was logged before the checkpoint
    remedy = "restore the file, or resume another checkpoint"
    mode = path.lstat().st_mode if os.path.lexists(path) else 0
    require(stat.S_ISREG(mode), "log file", str(path), "a regular file, no link", remedy)
    found = path.stat().st_size
    require(found >= size, str(path), f"{found} bytes", f"at least {size} bytes", remedy)
    return size


def cut_back(path: Path, size: int) -> None:
    """Truncate ``path`` to ``size`` bytes, as `checked_size` allowed; safe to repeat."""
    if size == 0 and not path.exists():
        return
    with os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())
