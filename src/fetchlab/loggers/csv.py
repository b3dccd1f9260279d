"""``metrics.csv``: one row per logging point, exact across kill and resume.

Lightning's own `CSVLogger` deletes ``metrics.csv`` in a non-empty folder and rewrites the file when
a new column appears. Here the header is fixed at construction and rows are only appended, so a byte
count describes the file at a checkpoint, and cutting the file back to it leaves neither a gap nor a
duplicate.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers.logger import Logger

from fetchlab.errors import ConfigError, require
from fetchlab.loggers.durable import AppendFile, checked_size, cut_back

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FILE_NAME = "metrics.csv"
STEP_COLUMN = "env_steps"


class RunCSVLogger(Logger):
    """Writes ``<run_dir>/metrics.csv``: ``env_steps``, then one column per metric.

    Floats are written with `repr`, so the same run twice gives the same file apart from its
    ``time/`` columns, and reading them back loses nothing.

    Args:
        run_dir: The run's folder.
        metric_names: The columns after ``env_steps``, in order; plain names such as
            ``eval/success_rate``.
        resume: Whether `load_state_dict` follows; nothing is written before it.

    Raises:
        ConfigError: A name is repeated or not plain, or ``metrics.csv`` has content already and
            this is no resume.
    """

    def __init__(self, run_dir: str, metric_names: Sequence[str], resume: bool) -> None:
        super().__init__()
        self._path = Path(run_dir) / FILE_NAME
        self._columns = tuple(metric_names)
        _check_names(self._columns)
        occupied = self._path.exists() and self._path.stat().st_size > 0
        require(
            resume or not occupied,
            "run_dir",
            str(run_dir),
            f"a folder without {FILE_NAME}",
            "continue that run with resume=RUN_DIR, or choose another run_dir",
        )
        self._header = ",".join((STEP_COLUMN, *self._columns)) + "\n"
        self._waits_for_state = resume
        self._file: AppendFile | None = None
        self._last_step: int | None = None

    @property
    def name(self) -> str:
        """Empty: the run's folder is complete without Lightning's name and version."""
        return ""

    @property
    def version(self) -> str:
        """Empty, as `name`."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._path.parent)

    @property
    def log_dir(self) -> str:
        """The run's folder."""
        return str(self._path.parent)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's ``config.yaml`` is the record."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row; a metric that is absent leaves its cell empty.

        Args:
            metrics: Scalars by name; integers are written as such, everything else as float.
            step: ``env_steps``, larger than the row before.

        Raises:
            KeyError: A metric is no column of this file.
            ConfigError: ``step`` is not larger than the last row's (one row per logging point).
            OSError: The row cannot be written; the message names the file.
        """
        for name in metrics:
            if name not in self._columns:
                raise KeyError(
                    f"metric {name!r} is no column of {self._path}; add it to metric_names"
                )
        step = self._checked_step(step)
        cells = [_cell(metrics[name]) if name in metrics else "" for name in self._columns]
        self._opened().write((",".join((str(step), *cells)) + "\n").encode())
        self._last_step = step

    def state_dict(self) -> dict[str, int]:
        """Make all rows durable and return ``{"bytes": size of the file}``."""
        return {"bytes": self._opened().sync()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Cut the file back to the checkpoint's size: rows logged after it vanish.

        Raises:
            ConfigError: The file is missing, shorter, a link, or has other columns.
        """
        if self._file is not None:
            self._file.close()
            self._file = None
        size = checked_size(self._path, state["bytes"])
        self._last_step = self._checked_prefix(size)
        cut_back(self._path, size)
        self._waits_for_state = False

    def finalize(self, status: str) -> None:
        """Make all rows durable and close the file; a later row opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> AppendFile:
        if self._waits_for_state:
            raise RuntimeError(
                f"{self._path}: call load_state_dict before logging to a resumed run"
            )
        if self._file is None:
            self._file = AppendFile(self._path)
            if self._path.stat().st_size == 0:
                self._file.write(self._header.encode())
        return self._file

    def _checked_step(self, step: int | None) -> int:
        last = -1 if self._last_step is None else self._last_step
        if step is None or step <= last:
            remedy = "log once per logging point, with step=env_steps"
            raise ConfigError(STEP_COLUMN, step, f"a count above the last row's ({last})", remedy)
        return int(step)

    def _checked_prefix(self, size: int) -> int | None:
        """Return the last ``env_steps`` within the first ``size`` bytes, None without rows."""
        if size == 0:
            return None
        with self._path.open("rb") as stream:
            lines = stream.read(size).decode(errors="replace").splitlines(keepends=True)
        where, remedy = f"{self._path} header", "resume with the metrics the run was started with"
        require(lines[0] == self._header, where, lines[0].strip(), self._header.strip(), remedy)
        complete = lines[-1].endswith("\n")
        remedy = "restore the file, or resume another checkpoint"
        require(complete, str(self._path), lines[-1], "a complete last row", remedy)
        return int(lines[-1].split(",", 1)[0]) if len(lines) > 1 else None


def _check_names(names: tuple[str, ...]) -> None:
    remedy = "name each metric once, without commas, quotes or line breaks"
    for index, name in enumerate(names):
        plain = bool(name) and not set(name) & set(",\"'\r\n") and name != STEP_COLUMN
        require(plain, "metric_names", name, "a plain name", remedy)
        require(name not in names[:index], "metric_names", name, "distinct names", remedy)


def _cell(value: float) -> str:
    return repr(value) if type(value) is int else repr(float(value))
