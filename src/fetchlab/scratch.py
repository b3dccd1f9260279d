"""Where a run's replay lies: in its folder, or on a disk that is faster and one machine's alone.

The replay is what a run reads at random and writes all the time; checkpoints are small and have to
outlive the machine. With ``paths.scratch`` the run's ``replay`` is a link to a folder there, named
after the run, so everything that looks into a run's folder finds it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fetchlab.errors import ConfigError
from fetchlab.replay.files import LAYOUT_FILE
from fetchlab.run_folder import has_checkpoint, missing, quoted, remove_empty, require_writable

REPLAY = "replay"


def place_replay(run_dir: Path, scratch: str | None) -> None:
    """Have a run begin with no replay, in ``scratch`` where one is given."""
    link = run_dir / REPLAY
    if link.is_symlink():
        link.unlink()
    if scratch is not None:
        folder = _folder(run_dir, scratch)
        shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
        require_writable("paths.scratch", folder, "choose another")
        link.symlink_to(folder)


@contextmanager
def placed_replay(run_dir: Path, scratch: str | None) -> Iterator[None]:
    """`place_replay`, which is taken back where the run ends without a checkpoint."""
    folder = None if scratch is None else _folder(run_dir, scratch)
    made = [] if folder is None else missing(folder)
    try:
        place_replay(run_dir, scratch)
        yield
    except BaseException:
        if folder is not None and not has_checkpoint(run_dir):
            shutil.rmtree(folder, ignore_errors=True)
            remove_empty(made)
        raise


def carry_replay(run_dir: Path, scratch: str | None) -> None:
    """Bring the replay of a run that goes on to this machine's ``scratch``, if it can be read.

    A kill at any moment leaves the link on a whole replay. One in the run's own folder stays there.
    """
    link = run_dir / REPLAY
    if scratch is None or not link.is_symlink() or not (link / LAYOUT_FILE).is_file():
        return
    here, there = _folder(run_dir, scratch), link.resolve()
    if here == there:
        return
    print(f"replay    carried from {there} to {here}", flush=True)
    shutil.rmtree(here, ignore_errors=True)
    require_writable("paths.scratch", here.parent, "choose another")
    shutil.copytree(there, here)
    for file in here.iterdir():
        with file.open("rb") as copied:
            os.fsync(copied.fileno())
    new = run_dir / f".{REPLAY}.link"
    new.unlink(missing_ok=True)
    new.symlink_to(here)
    new.replace(link)
    if there.name == here.name:  # else the link was not made for this run: it may lead anywhere
        shutil.rmtree(there, ignore_errors=True)


def lost_replay(run_dir: Path, force: bool) -> str | None:
    """Where a replay lay that this machine cannot reach; None where it is at hand.

    Raises:
        ConfigError: it is lost, and going on without it was not forced.
    """
    link = run_dir / REPLAY
    if not link.is_symlink() or link.exists():
        return None
    there = str(link.readlink())
    if not force:
        expected = "a replay that this machine can reach, and it lies on another one's disk"
        way = (
            f"go on where {quoted(Path(there))} is, or give force_resume=true: with the weights "
            "and an empty replay, not exactly, and recorded"
        )
        raise ConfigError("resume", str(run_dir), expected, way)
    return there


def _folder(run_dir: Path, scratch: str) -> Path:
    """``$VARIABLES`` are this machine's: a scheduler names a job's disk by one."""
    root = Path(os.path.expandvars(scratch)).expanduser()
    if "$" in str(root):
        says = "a folder whose variables are set on this machine"
        raise ConfigError("paths.scratch", scratch, says, "set them, or give a path")
    place = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:8]
    return root.resolve() / f"{run_dir.name}_{place}"
