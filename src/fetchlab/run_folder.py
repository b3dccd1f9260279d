"""A run's folder: chosen, recognised, claimed for a new run, taken back where nothing was trained.

Nothing is written into a folder before it is known to be a run's, or free for one.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from fetchlab.callbacks.stopping import BY_CALLBACK
from fetchlab.checkpoint.find import kind_of
from fetchlab.checkpoint.run_lock import LOCK_FILE, RunLock, was_locked
from fetchlab.config import ROOT, config_hash
from fetchlab.durable import read_json
from fetchlab.errors import ConfigError

#: What a run writes before its first checkpoint, beside the lock; of the metrics, their names.
STARTED = (
    "config.yaml",
    ".config.yaml.tmp",
    "checkpoints",
    "replay",
    "metrics.csv",
    ".metrics.csv.tmp",
)
_STARTED_INSIDE = {
    "checkpoints": re.compile(r"\.(commit|removed)-.*"),
    "replay": re.compile(r"\.?layout\.json(\.tmp)?|.*\.bin"),
}
#: What it writes later; the loggers look after their own files.
RESULTS = ("evaluation.json", "summary.json", ".summary.json.tmp")


def choose_run_dir(cfg: Mapping[str, Any], now: datetime) -> Path:
    """The run's folder: ``run_dir``, or ``logs/<experiment>/<date>_<config hash>_s<seed>``."""
    given = cfg["run_dir"]
    if given is not None:
        return Path(given)
    name = f"{now:%Y-%m-%d_%H-%M-%S}_{config_hash(cfg)}_s{cfg['seed']}"
    return ROOT / "logs" / str(cfg["experiment"]) / name


def has_checkpoint(run_dir: Path) -> bool:
    """Whether anything has a checkpoint's name, sound or not; a link may lead to some."""
    folder = run_dir / "checkpoints"
    return "checkpoints" in _names(run_dir) and (
        folder.is_symlink() or any(kind_of(Path(name)) for name in _names(folder))
    )


def is_run(path: Path) -> bool:
    """Whether this is the folder of a run that can be continued or evaluated."""
    return "config.yaml" in _names(path) and has_checkpoint(path)


def require_run(key: str, path: Path) -> None:
    """Refuse anything but the folder of a run with a checkpoint; reads only.

    Args:
        key: the argument that named it.
        path: the folder asked for; where it is part of a run, or holds several, the error says so.

    Raises:
        ConfigError: with the folder to use instead, where there is one.
    """
    if is_run(path):
        return
    expected, remedy = "a run's folder, with config.yaml and checkpoints", "check the path"
    around = [folder for folder in list(path.absolute().parents)[:3] if is_run(folder)]
    inside = [name for name in _names(path) if is_run(path / name)]
    if around:
        expected = "a run's folder, not what lies in it"
        remedy = f"use {key}={quoted(around[0])}"
        if key == "run" and kind_of(path):
            remedy += f" checkpoint={quoted(path)}"
    elif inside:
        expected = f"the folder of one run, and it holds {len(inside)}"
        remedy = f"use {key}={quoted(path / inside[0])}"
    elif _nothing_trained(path):
        expected = "a run with a checkpoint, but this one ended before its first"
        remedy = f"start it again: the command that began it, with run_dir={quoted(path)}"
    raise ConfigError(key, str(path), expected, remedy)


def finished(run_dir: Path, total_env_steps: int) -> dict[str, Any] | None:
    """The summary of a run that has its steps and its last evaluation; None of any other."""
    summary = summary_of(run_dir)
    try:
        done = summary["status"] == "finished" and summary["env_steps"] >= total_env_steps
    except (KeyError, TypeError):
        return None
    return summary if done else None


def ended(run_dir: Path, total_env_steps: int) -> dict[str, Any] | None:
    """The summary of a finished run, or of one that a callback of its own has ended."""
    summary = summary_of(run_dir)
    by_callback = str(summary.get("stop_reason")).startswith(BY_CALLBACK)
    return summary if by_callback else finished(run_dir, total_env_steps)


def summary_of(run_dir: Path) -> dict[str, Any]:
    """What ``summary.json`` says; nothing where it is missing or torn."""
    return read_json(run_dir / "summary.json", dict)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a folder for a new run; it is left as it was where the run ends without a checkpoint.

    What a start-up left that was killed before its first checkpoint is removed.

    Raises:
        ConfigError: it already holds a run, or cannot be written.
        RunLockedError: another process uses it.
    """
    require_free(path)
    made = missing(path)
    require_writable("run_dir", path, "choose another")
    with RunLock(path):
        require_free(path)  # another process may have been quicker
        _remove(path, STARTED)
        try:
            yield
        except BaseException:
            if not has_checkpoint(path):
                _remove(path, (*STARTED, *RESULTS, LOCK_FILE))
                remove_empty(made)
            raise


def missing(folder: Path) -> list[Path]:
    """What has to be made for a folder to be there, the innermost first."""
    return [one for one in (folder, *folder.parents) if not os.path.lexists(one)]


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first; somebody else's files stay, and so does their folder."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def require_writable(key: str, folder: Path, remedy: str) -> None:
    """Make a folder where it is missing, and try to write into it.

    Raises:
        ConfigError: with the operating system's reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        expected = "a folder that can be written"
        raise ConfigError(key, str(folder), expected, f"{remedy} ({reason})") from error


def quoted(path: Path) -> str:
    """A path as a shell takes it."""
    return shlex.quote(str(path))


def require_free(path: Path) -> None:
    """Refuse (`ConfigError`) a folder that holds a run of which something was trained."""
    taken = any(os.path.lexists(path / name) for name in (*STARTED, *RESULTS))
    if taken and not _nothing_trained(path):
        way = "give another run_dir"
        if has_checkpoint(path):
            way = f"continue that run with resume={quoted(path)}, or {way}"
        raise ConfigError("run_dir", str(path), "a folder without a run", way)


def _nothing_trained(path: Path) -> bool:
    """Whether all that a run wrote here is what precedes its first checkpoint.

    These files are removed where a run is started again, so each has to be a run's by more than
    its name, and the lock says that one was here.
    """
    if not was_locked(path):
        return False
    later = has_checkpoint(path) or any(os.path.lexists(path / name) for name in RESULTS)
    inside = [(name, entry) for name in _STARTED_INSIDE for entry in _names(path / name)]
    ours = all(_STARTED_INSIDE[name].fullmatch(entry) for name, entry in inside)
    config = _read(path / "config.yaml", otherwise=b"\nreplay:")
    rows = _read(path / "metrics.csv", otherwise=b"env_steps,")
    ours = ours and b"\nreplay:" in config and rows.startswith(b"env_steps,")
    return ours and not later and rows.count(b"\n") <= 1


def _read(path: Path, otherwise: bytes) -> bytes:
    """A file's bytes; none where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return otherwise
    except OSError:
        return b""


def _remove(path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        with suppress(OSError):
            (path / name).unlink()
        shutil.rmtree(path / name, ignore_errors=True)  # follows no link


def _names(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError):
        return []
