"""Preallocated memory-mapped files: one flat binary file per array, and ``layout.json``.

``layout.json`` is written last and replaced atomically, so it always describes complete files;
whatever else lies in the folder is left over from a kill and removed. Every block is allocated
beforehand (`os.posix_fallocate`) and every size is checked before mapping: writing to a sparse file
on a full disk, or reading behind the end of a shortened one, is a SIGBUS and no error.
"""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np

from fetchlab.durable import fsync_directory, write_text
from fetchlab.replay.layout import OBSERVATION_ARRAYS, TRANSITION_ARRAYS, Layout

LAYOUT_FILE = "layout.json"
ROWS_AT_ONCE = 1024  # copied into a larger ring


class ReplayError(RuntimeError):
    """The replay's files cannot be used as asked; the message names the path and the remedy."""


class RowFiles:
    """The mapped arrays of one replay.

    Attributes:
        layout: the arrangement on disk, which may be smaller than asked until `grow`.
        existing: whether the files were there before.
        arrays: name -> (N * rows, *shape) numpy view of the file; row ``a`` of environment ``i`` is
            at ``i * rows + a % rows``.

    Raises:
        ReplayError: files of another layout or size, or too little disk.
    """

    def __init__(self, directory: Path, layout: Layout) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / LAYOUT_FILE
        self.existing = path.exists()
        if self.existing:
            layout = _read_layout(path, layout)
        self._remove_leftovers(layout, in_use=self.existing)
        if not self.existing:
            _allocate(self.directory, layout)
            write_text(path, layout.to_json())
        self._map(layout)

    def _map(self, layout: Layout) -> None:
        self.layout = layout
        self._maps = _open_maps(self.directory, layout)
        # Plain arrays: every slice of an np.memmap pays for the subclass.
        self.arrays = {name: np.asarray(mapped) for name, mapped in self._maps.items()}

    def flush(self) -> None:
        """Make all rows durable (msync); call before a checkpoint refers to them."""
        for mapped in self._maps.values():
            mapped.flush()

    def _remove_leftovers(self, layout: Layout, in_use: bool) -> None:
        for name in layout.arrays:
            for path in self.directory.glob(f"{name}*.bin"):
                if not (in_use and path.name == layout.file_name(name)):
                    path.unlink()

    def grow(self, asked: Layout, first: np.ndarray, end: np.ndarray) -> None:
        """Move to a larger ring, once, when a run is extended.

        A row's place ``a % rows`` depends on the ring's size, so the rows that checkpoints can
        sample are copied into new files beside the old ones; replacing ``layout.json`` is the one
        atomic step between the two. All that checkpoints can sample, absolute rows ``first .. end -
        1``, both (N,) int64, is copied, so both newest read the new files as well as the old.

        Raises:
            ReplayError: too little disk; the old files are intact and in use.
        """
        old, new = self.layout, asked.grown_from(self.layout)
        if new == old:
            return
        if new.rows > old.rows:
            _allocate(self.directory, new)
            maps = _open_maps(self.directory, new)
            for env in range(old.n_envs):
                for begin in range(first[env], end[env], ROWS_AT_ONCE):
                    rows = np.arange(begin, min(begin + ROWS_AT_ONCE, end[env]))
                    source, target = (env * one.rows + rows % one.rows for one in (old, new))
                    for name, mapped in maps.items():
                        mapped[target] = self.arrays[name][source]
            for mapped in maps.values():
                mapped.flush()
        write_text(self.directory / LAYOUT_FILE, new.to_json())
        self._map(new)
        self._remove_leftovers(new, in_use=True)

    def episode_checksum(self, env: int, start: int, length: int) -> int:
        """CRC-32 of an episode: where it belongs, its ``length`` transitions, its observations."""
        checksum = zlib.crc32(struct.pack("<qqq", env, start, length))
        for names, count in ((OBSERVATION_ARRAYS, length + 1), (TRANSITION_ARRAYS, length)):
            rows = env * self.layout.rows + np.arange(start, start + count) % self.layout.rows
            for name in names:
                if name in self.arrays:
                    checksum = zlib.crc32(self.arrays[name][rows].data, checksum)
        return checksum

    def checksums(self, env: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        """`episode_checksum` of several episodes, all (K,) int64."""
        places = zip(env.tolist(), start.tolist(), length.tolist(), strict=True)
        return np.array([self.episode_checksum(*place) for place in places], np.int64)


def _read_layout(path: Path, asked: Layout) -> Layout:
    try:
        found = Layout.from_json(path.read_text())
    except ValueError as error:
        raise ReplayError(f"{path}: {error}; start the run in another folder") from error
    differences = asked.differences(found)
    if differences:
        raise ReplayError(
            f"{path.parent} holds another replay ({'; '.join(differences)}); "
            "resume with the settings it was made with, or use another folder"
        )
    return found


def _allocate(directory: Path, layout: Layout) -> None:
    needed, free = layout.disk_bytes(), shutil.disk_usage(directory).free
    remedy = "lower replay.capacity or total_env_steps, or free some space"
    if needed > free:
        raise ReplayError(
            f"{directory}: the replay needs {needed:,} bytes of disk, {free:,} are free; {remedy}"
        )
    paths = [directory / layout.file_name(name) for name in layout.arrays]
    try:
        for name, path in zip(layout.arrays, paths, strict=True):
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, layout.file_bytes(name))
                os.fsync(file.fileno())
    except OSError as error:
        for path in paths:
            path.unlink(missing_ok=True)
        # Not what is free: a quota and a limit on the size of files are not seen there.
        reason = error.strerror or error
        raise ReplayError(
            f"{directory}: the replay's {needed:,} bytes of disk are refused: {reason}; {remedy}, "
            "or have that limit raised"
        ) from error
    fsync_directory(directory)


def _open_maps(directory: Path, layout: Layout) -> dict[str, np.memmap]:
    for name in layout.arrays:
        path, expected = directory / layout.file_name(name), layout.file_bytes(name)
        found = path.stat().st_size if path.exists() else 0
        if found != expected:
            raise ReplayError(
                f"{path}: {expected:,} bytes expected, {found:,} found; "
                "restore the file, the run cannot be resumed without it"
            )
    maps = {}
    for name, (shape, dtype) in layout.arrays.items():
        path, rows = directory / layout.file_name(name), layout.n_envs * layout.rows
        maps[name] = np.memmap(path, dtype=dtype, mode="r+", shape=(rows, *shape))
    return maps
