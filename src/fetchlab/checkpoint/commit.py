"""Commit a checkpoint so that a crash at any moment leaves the old one, the new one, or both.

The order carries the proof. Everything is written and synced under a dot name beside the target
(so on the same filesystem: ``TMPDIR`` plays no part), the manifest last; only then does one rename
give the folder its final name, a name that nothing had before. So a folder with a final name is
complete, and no valid checkpoint is ever modified. Removal starts with the opposite rename.

One process at a time may commit to a folder: hold `fetchlab.checkpoint.run_lock.RunLock`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from fetchlab.checkpoint.find import REMOVED, TEMPORARY, kind_of, next_serial, survey
from fetchlab.checkpoint.manifest import (
    MANIFEST,
    CheckpointError,
    FileEntry,
    Manifest,
    check_file_name,
)
from fetchlab.durable import fsync_directory
from fetchlab.errors import require

_WRITE_BYTES = 1 << 22
#: Limits that free space on the disk says nothing about.
_REMEDIES = {
    errno.EDQUOT: "free some of your quota or have it raised",
    errno.EFBIG: "raise the limit on a file's size (ulimit -f)",
}


def write_checkpoint(
    folder: Path, name: str, files: Mapping[str, bytes | memoryview], env_steps: int
) -> Path:
    """Commit ``files`` as a new checkpoint.

    Memory maps that the checkpoint refers to (the replay's) must have been synced before.

    Args:
        folder: where the checkpoints of the run are; created if missing.
        name: from `fetchlab.checkpoint.find.checkpoint_name`; gets a suffix if it is taken.
        files: content by plain file name.
        env_steps: environment steps done so far.

    Raises:
        CheckpointError: it could not be written; every earlier checkpoint is untouched.
    """
    known = kind_of(Path(name)) is not None and Path(name).name == name
    require(known, "name", name, "step_ or best_ and 9 digits", "use checkpoint_name()")
    for file_name in files:
        check_file_name(folder / name, file_name)
    try:
        _make_folder(folder)
        clean(folder)
        entries = {
            file_name: FileEntry(memoryview(data).nbytes, hashlib.sha256(data).hexdigest())
            for file_name, data in files.items()
        }
        manifest = Manifest(env_steps, next_serial(folder), entries)
        content = {**files, MANIFEST: manifest.encode()}  # the manifest is written last
        _check_space(folder, _bytes(content))
        temporary = folder / f"{TEMPORARY}{name}"
        try:
            _write_folder(temporary, content)
            target = _unused(folder, name)
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # gives the space back at once
            raise
        fsync_directory(folder)
    except OSError as error:
        raise CheckpointError(folder, _explain(folder, name, _bytes(files), error)) from error
    return target


def prune(folder: Path, kind: str, keep: int) -> list[Path]:
    """Remove valid checkpoints older than the ``keep`` newest valid ones.

    Of those at the same env steps only the newest counts, and stays. Damaged ones are neither
    counted nor removed: they are evidence.

    Args:
        folder: a run's ``checkpoints`` folder.
        kind: ``step`` or ``best``.
        keep: at least 2 for ``step`` (one may turn out damaged), at least 1 for ``best``.

    Returns:
        The folders removed.
    """
    least = 2 if kind == "step" else 1
    require(keep >= least, "keep", keep, f"at least {least}", "keep more checkpoints")
    newest: dict[int, Path] = {}
    valid = survey(folder, kind, limit=None).valid  # newest first
    for path, manifest in valid:
        newest.setdefault(manifest.env_steps, path)
    kept = list(newest.values())[:keep]
    outdated = [path for path, _ in valid if path not in kept]
    for path in outdated:
        remove(path)
    return outdated


def remove(path: Path) -> None:
    """Remove one checkpoint; a crash midway leaves a dot-named rest for the next `clean`.

    Raises:
        CheckpointError: ``path`` is not a checkpoint's folder, or cannot be removed.
    """
    if kind_of(path) is None or path.is_symlink() or not path.is_dir():
        raise CheckpointError(path, "not removed: it is not a checkpoint's folder")
    try:
        clean(path.parent)
        rest = path.with_name(REMOVED + path.name)
        path.rename(rest)
        shutil.rmtree(rest)
    except OSError as error:
        raise CheckpointError(path, f"not removed: {error}") from error


def clean(folder: Path) -> None:
    """Remove what commits and removals that never ended left behind in ``folder``."""
    for path in list(folder.iterdir()):
        if path.name.startswith((TEMPORARY, REMOVED)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _write_folder(path: Path, content: Mapping[str, bytes | memoryview]) -> None:
    path.mkdir()
    for name, data in content.items():
        fd = os.open(path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            rest = memoryview(data).cast("B")
            while rest:
                rest = rest[os.write(fd, rest[:_WRITE_BYTES]) :]
            os.fsync(fd)
        finally:
            os.close(fd)
    fsync_directory(path)


def _unused(folder: Path, name: str) -> Path:
    target, suffix = folder / name, 0
    while os.path.lexists(target):
        suffix += 1
        target = folder / f"{name}_{suffix}"
    return target


def _make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents durably: a new name is safe once its parent is synced."""
    if folder.is_symlink():
        raise CheckpointError(folder, "a symbolic link: link the run folder instead")
    if not folder.is_dir():
        if not folder.parent.exists():
            _make_folder(folder.parent)
        folder.mkdir()
        fsync_directory(folder.parent)


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def _bytes(files: Mapping[str, bytes | memoryview]) -> int:
    return sum(memoryview(data).nbytes for data in files.values())


def _check_space(folder: Path, needed: int) -> None:
    if needed > _free_bytes(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _explain(folder: Path, name: str, needed: int, e: OSError) -> str:
    where = f" ({e.filename})" if e.filename else ""
    remedy = _REMEDIES.get(e.errno or 0, "free space or make the folder writable")
    return (
        f"cannot write {name}: {e.strerror or e}{where}; {needed} bytes needed,"
        f" {_free_bytes(folder)} bytes free; earlier checkpoints are untouched: {remedy}, then"
        " resume"
    )
