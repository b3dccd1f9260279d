"""Runs as their folders tell them: configuration, evaluations, logged metrics, summary.

Only the configuration is needed. A run that is still running has no summary and perhaps a row that
is half written; a published one has neither replay nor checkpoints to resume from. A file that
cannot be read is one line in `StoredRun.notes`, and the rest of its run is shown without it.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.checkpoint.safe_config import load_run_config
from fetchlab.durable import read_json
from fetchlab.errors import ConfigError, require
from fetchlab.report.differences import decisive

CONFIG, METRICS, EVALUATION, SUMMARY = (
    *("config.yaml", "metrics.csv", "evaluation.json"),
    "summary.json",
)
#: What tells a run's folder from any other with a ``config.yaml``.
BESIDE = (METRICS, EVALUATION, SUMMARY, "checkpoints")
STEPS, RATE, LOSS = "env_steps", "time/env_steps_per_s", "train/critic_loss"
UNFINISHED = "unfinished"


@dataclass(frozen=True)
class StoredRun:
    """One run.

    Args:
        folder: where it is.
        config: its own, plain.
        identity: what the seeds of one configuration share.
        steps: env steps of its N evaluations, increasing; (N,) int.
        success: their success rates; (N,) float in [0, 1].
        episodes: how many each has; (N,) int, at least 1.
        metrics: ``metrics.csv`` by column; (rows,) float, NaN where a cell is empty.
        summary: ``summary.json``; empty while there is none.
        notes: one line for each file that cannot be read.
    """

    folder: Path
    config: Mapping[str, Any]
    identity: str
    steps: np.ndarray
    success: np.ndarray
    episodes: np.ndarray
    metrics: Mapping[str, np.ndarray]
    summary: Mapping[str, Any]
    notes: Sequence[str] = field(default=())

    @property
    def experiment(self) -> str:
        """Its name."""
        return str(self.config.get("experiment"))

    @property
    def seed(self) -> int:
        """Its seed."""
        return int(self.config.get("seed") or 0)

    @cached_property
    def env_steps(self) -> int:
        """How far it has come, as far as its files tell."""
        return max(self._logged_steps, int(self.summary.get(STEPS, 0)))

    @property
    def _logged_steps(self) -> int:
        logged = self.metrics[STEPS] if self.metrics else np.empty(0)
        return int(max([0, *logged[-1:], *self.steps[-1:]]))

    @cached_property
    def seconds(self) -> np.ndarray:
        """Wall time at each row of `metrics`: evaluations included, pauses before a resume not."""
        if RATE not in self.metrics:
            return np.empty(0)
        taken = np.diff(self.metrics[STEPS], prepend=0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            spent = taken / self.metrics[RATE]
        return np.cumsum(np.where(np.isfinite(spent), spent, 0.0))

    def seconds_at(self, env_steps: Any) -> np.ndarray:
        """Wall time at some env steps; NaN where nothing was logged."""
        at = np.asarray(env_steps, float)
        if not len(self.seconds):
            return np.full(at.shape, np.nan)
        return np.interp(at, self.metrics[STEPS], self.seconds)

    def at_evaluations(self, metric: str) -> np.ndarray:
        """The mean of a metric's rows since the previous evaluation; (N,), NaN without any."""
        values = self.metrics.get(metric, np.empty(0))
        means, begin = [], 0
        for step in self.steps:
            end = int(np.searchsorted(self.metrics[STEPS], step, "right")) if len(values) else 0
            rows = values[begin:end]
            rows = rows[~np.isnan(rows)]
            means.append(float(rows.mean()) if len(rows) else np.nan)
            begin = end
        return np.array(means)

    @property
    def status(self) -> str:
        """``finished``, ``stopped``, ``failed``, or `UNFINISHED`: it runs, or was cut off."""
        gone_on = self._logged_steps > self.summary.get(STEPS, 0)
        return UNFINISHED if gone_on else str(self.summary.get("status", UNFINISHED))


def find_runs(key: str, asked: str | Sequence[str]) -> list[Path]:
    """The runs' folders that are meant, sorted and each once.

    Args:
        key: the argument that asks for them.
        asked: paths or globs, of runs or of folders with runs below them.

    Raises:
        ConfigError: one of them leads to no run.
    """
    found: dict[Path, Path] = {}
    for one in [asked] if isinstance(asked, str) else asked:
        paths = [one] if Path(one).exists() else _matches(one)
        runs = [run for path in paths for run in _below(Path(path))]
        expected = "a run's folder, with config.yaml, or a folder or glob with some below it"
        require(bool(runs), key, one, expected, "check the path")
        found |= {run.resolve(): run for run in runs if run.resolve() not in found}
    return list(found.values())


def read_runs(
    folders: Sequence[Path], identity: Callable[[Mapping[str, Any]], str]
) -> tuple[list[StoredRun], list[str]]:
    """The runs, and one line for each folder whose configuration cannot be read.

    ``identity`` of a configuration is equal for its seeds.
    """
    runs, lines = [], []
    for folder in folders:
        try:
            runs.append(read_run(folder, identity))
        except ConfigError as error:
            lines.append(f"left out: {error}")
    return runs, lines


def read_run(folder: Path, identity: Callable[[Mapping[str, Any]], str]) -> StoredRun:
    """Read one run.

    Raises:
        ConfigError: its configuration cannot be read.
    """
    config = load_run_config(folder / CONFIG, _Anything())
    notes: list[str] = []
    nothing = (np.empty(0, int), np.empty(0), np.empty(0, int))
    steps, success, episodes = attempt(_evaluations, folder / EVALUATION, nothing, notes)
    metrics = attempt(_metrics, folder / METRICS, {}, notes)
    summary = attempt(_summary, folder / SUMMARY, {}, notes)
    of = identity(decisive(config))
    return StoredRun(folder, config, of, steps, success, episodes, metrics, summary, notes)


def attempt(read: Callable[[Path], Any], path: Path, otherwise: Any, notes: list[str]) -> Any:
    """What a file holds; where it is missing or broken ``otherwise``, the latter with a note."""
    try:
        return read(path)
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        reason = " ".join(f"{error}".split()) or type(error).__name__
        notes.append(f"{path} cannot be read, and is left out: {reason}")
        return otherwise


def recorded(run_dir: Path) -> dict[str, Any]:
    """What the newest checkpoint records of the process that wrote it: versions, machine, settings.

    Empty where no checkpoint has that: a published run keeps its best weights alone.
    """
    from fetchlab.checkpoint.torch_io import read_payload  # torch: seconds

    try:
        payload = read_payload(newest_valid(run_dir / "checkpoints"))
        return dict(payload["record"]["fingerprint"])
    except (CheckpointError, KeyError, TypeError):
        return {}


def evaluations(run_dir: Path) -> list[dict[str, Any]]:
    """What ``src/evaluate.py`` kept in a run's folder, by env steps, then age."""
    # Those of the same env steps are numbered: `_10` comes after `_9`.
    paths = sorted(
        (run_dir / "evaluations").glob("*.json"), key=lambda path: (len(path.stem), path.stem)
    )
    told = [one for one in (read_json(path, dict) for path in paths) if _is_evaluation(one)]
    return sorted(told, key=lambda one: one[STEPS])


def is_own(evaluation: Mapping[str, Any]) -> bool:
    """Whether it is of the run as it is: own checkpoint, task and camera, the mode of its actions.

    The checkpoint of another run is a whole path.
    """
    elsewhere = "/" in str(evaluation.get("checkpoint"))
    return not (elsewhere or evaluation.get("changes") or evaluation.get("stochastic"))


class _Anything:
    """Targets are shown, never called: any may be named."""

    def __contains__(self, target: object) -> bool:
        return True


def _matches(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  absolute ones, too


def _below(path: Path) -> list[Path]:
    """Runs in a folder and below it; none inside of another, and no link is followed."""
    runs = []
    for folder, inside, files in os.walk(path):
        inside.sort()
        if CONFIG in files and {*files, *inside} & {*BESIDE}:
            runs.append(Path(folder))
            inside.clear()
    return runs


def _is_evaluation(told: Mapping[str, Any]) -> bool:
    return isinstance(told.get(STEPS), int) and isinstance(told.get("videos", []), list)


def _evaluations(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    entries = json.loads(path.read_text())
    if not isinstance(entries, list):
        raise ValueError("expected a list of evaluations")
    for index, entry in enumerate(entries):
        rate = float(entry["success_rate"])
        if not (0 <= rate <= 1 and int(entry["episodes"]) >= 1):
            raise ValueError(f"evaluation {index} is none: {entry}")
    steps = np.array([int(entry[STEPS]) for entry in entries], int)
    if np.any(np.diff(steps) <= 0):
        raise ValueError("its env steps do not increase")
    success = np.array([float(entry["success_rate"]) for entry in entries])
    return steps, success, np.array([int(entry["episodes"]) for entry in entries], int)


def _metrics(path: Path) -> dict[str, np.ndarray]:
    # What follows the last line break is a row that is being written, or that a crash cut short.
    header, *lines = path.read_text().split("\n")[:-1] or [STEPS]
    names = header.split(",")
    if names[0] != STEPS:
        raise ValueError(f"its first column is {names[0]!r}, not {STEPS!r}")
    rows = []
    for number, line in enumerate(lines, start=2):
        cells = line.split(",")
        try:
            if len(cells) != len(names):
                raise ValueError(f"{len(cells)} cells for {len(names)} columns")
            rows.append([float(cell) if cell else np.nan for cell in cells])
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None
    table = np.array(rows).reshape(len(rows), len(names))
    if not np.all(np.diff(table[:, 0], prepend=-1) > 0):
        raise ValueError("its env steps do not increase")
    return {name: table[:, column] for column, name in enumerate(names)}


def _summary(path: Path) -> dict[str, Any]:
    told = json.loads(path.read_text())
    if not isinstance(told, dict) or not isinstance(told.get(STEPS), int):
        raise ValueError(f"expected a mapping with {STEPS}")
    return told
