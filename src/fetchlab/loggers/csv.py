"""``metrics.csv``: one row per logging point, exact across kill and resume.

Lightning's own `CSVLogger` deletes ``metrics.csv`` in a non-empty folder. Here rows are appended; a
column that nobody knew before, or a second entry for the last row, replaces the whole file in one
step. A checkpoint records how many rows there were, so what was logged after it vanishes on resume,
and neither a gap nor a duplicate is left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from fetchlab.durable import write_text
from fetchlab.errors import ConfigError, require
from fetchlab.loggers.durable import AppendFile, RunLogger

FILE_NAME = "metrics.csv"
STEP_COLUMN = "env_steps"


class RunCSVLogger(RunLogger):
    """Writes ``<save_dir>/metrics.csv``: ``env_steps``, then one column per metric.

    Floats are written with `repr`, so the same run twice gives the same file apart from its
    ``time/`` columns, and reading them back loses nothing.
    """

    def __init__(self, save_dir: str = ".") -> None:
        super().__init__(save_dir)
        self._path = Path(save_dir) / FILE_NAME
        self._columns: tuple[str, ...] = (STEP_COLUMN,)
        self._rows = 0
        self._last: list[str] = []  # the newest row's cells

    def expect(self, names: Iterable[str]) -> None:
        """Have columns for these metrics from now on, behind those that there are.

        Raises:
            ConfigError: a name that is not plain.
        """
        new = [_plain(name) for name in dict.fromkeys(names) if name not in self._columns]
        if new:
            self._open()
            self._columns += tuple(new)
            self._replace(self._read())

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write one row; a metric that is absent leaves its cell empty.

        Args:
            metrics: Scalars by name; integers are written as such, everything else as float.
            step: ``env_steps``; at those of the newest row its cells are set.

        Raises:
            ConfigError: ``step`` is smaller than the newest row's, or a name is not plain.
            OSError: The row cannot be written; the message names the file.
        """
        last = int(self._last[0]) if self._last else -1
        if step is None or step < last:
            remedy = "log with step=trainer.datamodule.env_steps"
            raise ConfigError(STEP_COLUMN, step, f"a count from the newest row's {last}", remedy)
        self.expect(metrics)
        cells = {name: _cell(value) for name, value in metrics.items()}
        row = [str(int(step)), *(cells.get(name, "") for name in self._columns[1:])]
        file = self._open()
        if step > last:
            file.write(_line(row).encode())
            self._rows += 1
        elif cells:
            row = [new or old for new, old in zip(row, self._last, strict=True)]
            self._replace([*self._read()[:-1], row])
        self._last = row

    def state_dict(self) -> dict[str, int]:
        """Make all rows durable and return ``{"rows": how many}``."""
        self._open().sync()
        return {"rows": self._rows}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Keep as many rows as the checkpoint had: those logged after it vanish.

        Raises:
            ConfigError: The file is missing, a link, or has fewer rows.
        """
        self.finalize("resume")
        wanted, remedy = state["rows"], "restore the file, or resume another checkpoint"
        regular = self._path.is_file() and not self._path.is_symlink()
        require(regular, "log file", str(self._path), "a regular file, no link", remedy)
        rows = self._read()
        counted = isinstance(wanted, int) and 0 <= wanted <= len(rows)
        whole = counted and all(row[0].isdigit() for row in rows[:wanted])
        require(whole, str(self._path), f"{len(rows)} rows", f"{wanted} or more", remedy)
        self._columns, self._begun = tuple(self._lines()[0].split(",")), True
        self._replace(rows[:wanted])

    def _open(self) -> AppendFile:
        if self._file is None:
            strange = not self._begun and self._path.exists() and self._path.stat().st_size > 0
            remedy = "continue that run with resume=RUN_DIR, or choose another run_dir"
            require(not strange, "run_dir", self.save_dir, f"a folder without {FILE_NAME}", remedy)
            self._file = AppendFile(self._path)
            if not self._begun:
                self._file.write(_line(self._columns).encode())
                self._begun = True
        return self._file

    def _lines(self) -> list[str]:
        """Without what follows the last line break: a row that a crash cut short."""
        return self._path.read_text(errors="replace").split("\n")[:-1]

    def _read(self) -> list[list[str]]:
        return [line.split(",") for line in self._lines()[1:]]

    def _replace(self, rows: list[list[str]]) -> None:
        """The same file with these rows, and a cell in each for every column."""
        width = len(self._columns)
        rows = [[*row, *[""] * (width - len(row))] for row in rows]
        self.finalize("replaced")
        write_text(self._path, "".join(map(_line, [self._columns, *rows])))
        self._rows, self._last = len(rows), rows[-1] if rows else []


def _plain(name: str) -> str:
    plain = bool(name) and not set(name) & set(",\"'\r\n")
    require(plain, "metric", name, "a name without commas, quotes or line breaks", "rename it")
    return name


def _line(cells: Iterable[str]) -> str:
    return ",".join(cells) + "\n"


def _cell(value: float) -> str:
    return repr(value) if type(value) is int else repr(float(value))
