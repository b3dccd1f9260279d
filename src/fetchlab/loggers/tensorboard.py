"""TensorBoard event files with ``env_steps`` as the x axis, exact across kill and resume.

Written with TensorBoard's record format directly, not with `torch.utils.tensorboard`: that writer
queues events in a thread and gives no handle to fsync, so no size recorded in a checkpoint could be
trusted. Import and writing wait for the first logging point (0.2 s here, either way).

A resumed process starts a new event file, because TensorBoard may still be reading the old one at
an offset. Names carry the first step they hold instead of host and process, so they sort by step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fetchlab.durable import fsync_directory
from fetchlab.errors import ConfigError, require
from fetchlab.loggers.durable import AppendFile, RunLogger, checked_size, cut_back

FOLDER_NAME = "tensorboard"
PREFIX = "events.out.tfevents."


class RunTensorBoardLogger(RunLogger):
    """Writes ``<save_dir>/tensorboard/``, one event per logging point."""

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__(save_dir)
        self._folder = Path(save_dir) / FOLDER_NAME

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one event with all ``metrics`` at ``env_steps`` = ``step``.

        Args:
            metrics: Scalars by name; stored as float32, as TensorBoard does.
            step: ``env_steps``, >= 0.

        Raises:
            ConfigError: ``step`` is missing or negative, or the folder holds another run's events.
            OSError: The event cannot be written; the message names the file.
        """
        if step is None or step < 0:
            raise ConfigError("step", step, "env_steps >= 0", "pass the count of environment steps")
        if not metrics:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=float(v)) for name, v in metrics.items()]
        event = Event(wall_time=time.time(), step=int(step), summary=Summary(value=values))
        if self._file is None:
            strange = not self._begun and self._event_files()
            remedy = "continue that run with resume=RUN_DIR, or choose another run_dir"
            require(not strange, "run_dir", self.save_dir, "a folder without event files", remedy)
            self._begun = True
            self._file = AppendFile(self._folder / f"{PREFIX}{int(step):012d}")
            _write_record(self._file, Event(wall_time=time.time(), file_version="brain.Event:2"))
        _write_record(self._file, event)

    def state_dict(self) -> dict[str, int]:
        """Make all events durable and return {event file's name: size in bytes}."""
        if self._file is not None:
            self._file.sync()
        return {path.name: path.stat().st_size for path in self._event_files()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Cut event files back to the checkpoint's sizes and delete those it does not know.

        Raises:
            ConfigError: A recorded file is missing, shorter, a link, or not in this folder.
        """
        self.finalize("resume")
        remedy = "restore the folder, or resume another checkpoint"
        linked = self._folder.is_symlink()
        require(not linked, "log folder", str(self._folder), "a folder, no link", remedy)
        sizes: dict[Path, int] = {}
        for file_name, size in state.items():
            inside = file_name.startswith(PREFIX) and Path(file_name).name == file_name
            require(inside, "event file", file_name, f"a name like {PREFIX}0", remedy)
            path = self._folder / file_name
            sizes[path] = checked_size(path, size)
        for path, size in sizes.items():
            cut_back(path, size)
        unknown = [path for path in self._event_files() if path not in sizes]
        for path in unknown:
            path.unlink()
        if unknown:
            fsync_directory(self._folder)
        self._begun = True

    def _event_files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{PREFIX}*"))


def _write_record(file: AppendFile, event: Any) -> None:
    """Append one event in one write: length, its checksum, the event, its checksum."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    RecordWriter(file).write(event.SerializeToString())
