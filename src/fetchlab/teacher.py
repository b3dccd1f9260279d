"""The teacher of a student's run: its configuration takes the place of its folder in the student's.

So a run that has begun never needs that folder again: the networks are built from what its own
configuration says of the teacher, and its checkpoints hold the teacher's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fetchlab import config
from fetchlab.checkpoint.find import kind_of, newest_policy
from fetchlab.checkpoint.manifest import CheckpointError, validate
from fetchlab.errors import ConfigError, require
from fetchlab.run_folder import is_run, require_run


def with_teacher(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A new run's configuration in which ``teacher`` is that run's, ``ckpt_path`` its checkpoint.

    Args:
        cfg: plain; ``teacher`` is a run's folder, of which the newest valid checkpoint is taken
            (the best weights of a published run, which has no other), or a checkpoint in one.

    Raises:
        ConfigError: no run, no valid checkpoint, a teacher with a camera, or of another task; or a
            configuration that cannot work.
    """
    given = cfg.get("teacher")
    if not isinstance(given, str):
        return dict(cfg)
    student = config.check(cfg)
    run_dir, checkpoint = _found(given)
    stored = config.stored(run_dir, student.trusted_modules)
    teacher, remedy = config.typed(stored), "give a run of experiment=vector_push"
    blind, expected = not teacher.obs.sees_pixels, "a run without pixels, which knows the state"
    require(blind, "teacher", given, expected, remedy)
    for key in ("env_id", "kwargs", "proprio"):
        theirs, ours = getattr(teacher.task, key), getattr(student.task, key)
        expected = f"a run with the student's task.{key}={ours!r}, and its own is {theirs!r}"
        require(theirs == ours, "teacher", given, expected, "give another, or the task of this one")
    return {**cfg, "teacher": {**config.to_play(stored), "ckpt_path": str(checkpoint.resolve())}}


def taught_by(own: Mapping[str, Any], cfg: Mapping[str, Any]) -> bool:
    """Whether a run that has begun learns from the folder that ``cfg`` names as ``teacher``."""
    learned, given = own.get("teacher"), cfg.get("teacher")
    if not isinstance(learned, Mapping) or not isinstance(given, str):
        return False
    checkpoint = Path(str(learned.get("ckpt_path"))).resolve()
    return Path(given).resolve() in (checkpoint, checkpoint.parent.parent)


def teacher_as_path(own: Mapping[str, Any], cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The run's configuration as ``cfg`` is given: with a path for a teacher where that has one."""
    learned, given = own.get("teacher"), cfg.get("teacher")
    if not isinstance(learned, Mapping) or isinstance(given, Mapping):
        return dict(own)
    return {**own, "teacher": learned.get("ckpt_path")}


def _found(given: str) -> tuple[Path, Path]:
    """The teacher's run, and its checkpoint to take."""
    path = Path(given)
    inside = kind_of(path) is not None and is_run(path.parent.parent)
    run_dir = path.parent.parent if inside else path
    require_run("teacher", run_dir)
    try:
        checkpoint = path if inside else newest_policy(run_dir / "checkpoints")
        validate(checkpoint)
    except CheckpointError as error:
        raise ConfigError("teacher", given, "a valid checkpoint", str(error)) from error
    return run_dir, checkpoint
