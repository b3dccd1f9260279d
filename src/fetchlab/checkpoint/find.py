"""Which checkpoints of a run are there, which are valid, and which is the newest of those."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fetchlab.checkpoint.manifest import (
    CheckpointError,
    Manifest,
    read_manifest,
    unlisted,
    validate,
)

_LOG = logging.getLogger(__name__)

#: Names of what is being written or removed, until it is whole or gone.
TEMPORARY, REMOVED = ".commit-", ".removed-"
_SHOWN = 5
#: ``step``: everything needed to continue a run. ``best``: weights only.
_NAME = re.compile(r"(step|best)_[0-9]{9,18}(_[0-9]{1,9})?")


class Checkpoint(NamedTuple):
    """A checkpoint and its checked manifest."""

    path: Path
    manifest: Manifest


class Survey(NamedTuple):
    """Valid checkpoints, newest first, and what was refused on the way, with the reasons."""

    valid: list[Checkpoint]
    refused: list[CheckpointError]


def checkpoint_name(kind: str, env_steps: int) -> str:
    """The name under which a checkpoint is committed, such as ``step_000120000``."""
    return f"{kind}_{env_steps:09d}"


def kind_of(path: Path) -> str | None:
    """``step`` or ``best`` by the folder's name, None when it is not a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    return match.group(1) if match else None


def survey(folder: Path, kind: str, limit: int | None) -> Survey:
    """Look through a folder's checkpoints of one kind, ``step`` or ``best``, newest commit first.

    It stops after ``limit`` valid ones; None looks at all.

    Raises:
        CheckpointError: ``folder`` is not a real folder.
    """
    # A link here would let somebody else's run folder prune checkpoints outside of it.
    if folder.is_symlink() or not folder.is_dir():
        raise CheckpointError(folder, "not a folder of checkpoints (links are not followed)")
    found = Survey([], [])
    candidates = []
    for path in sorted(folder.iterdir()):
        if kind_of(path) == kind:
            try:
                candidates.append(Checkpoint(path, read_manifest(path)))
            except CheckpointError as error:
                found.refused.append(error)
    candidates.sort(key=lambda c: (c.manifest.serial, c.path.name), reverse=True)
    for candidate in candidates:
        if limit is not None and len(found.valid) >= limit:
            break
        try:
            validate(candidate.path)
            found.valid.append(candidate)
        except CheckpointError as error:
            found.refused.append(error)
    return found


def newest_valid(folder: Path, kind: str = "step") -> Path:
    """The newest valid checkpoint; warns of every newer one that it refuses, and of strange files.

    Raises:
        CheckpointError: none is valid; the message names each one refused and why.
    """
    found = survey(folder, kind, limit=1)
    for error in found.refused:
        _LOG.warning("checkpoint refused: %s", error)
    if found.valid:
        ours = (TEMPORARY, REMOVED)
        names = [path.name for path in folder.iterdir() if not kind_of(path)]
        warn_of_strangers(folder, [name for name in names if not name.startswith(ours)])
        newest = found.valid[0].path
        warn_of_strangers(newest, unlisted(newest))
        return newest
    reasons = "; ".join(f"{error.path.name} refused, {error.reason}" for error in found.refused)
    raise CheckpointError(
        folder,
        f"no valid {kind} checkpoint ({reasons or 'the folder holds none'}): nothing to resume;"
        " start a new run in another folder",
    )


def env_steps_reached(run_dir: Path) -> int:
    """Of the checkpoint that the run will go on from; 0 where there is none."""
    try:
        return read_manifest(newest_valid(run_dir / "checkpoints")).env_steps
    except CheckpointError:
        return 0


def newest_policy(folder: Path) -> Path:
    """`newest_valid` to play: weights alone where there is nothing to resume from, not even bad."""
    kinds = {kind_of(path) for path in folder.iterdir()} if folder.is_dir() else set()
    return newest_valid(folder, "best" if kinds - {None} == {"best"} else "step")


def warn_of_strangers(folder: Path, names: list[str]) -> None:
    """Log the names of files that are no part of a run; nothing reads them."""
    if names:
        shown = ", ".join(ascii(name) for name in sorted(names)[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        _LOG.warning("%s: ignored, not a run's own: %s%s", folder, shown, more)


def next_serial(folder: Path) -> int:
    """One more than the largest serial of any readable manifest in ``folder``."""
    serials = [0]
    for path in filter(kind_of, folder.iterdir()):
        with suppress(CheckpointError):
            serials.append(read_manifest(path).serial)
    return max(serials) + 1
