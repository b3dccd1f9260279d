"""Checkpoints of tensors under the commit protocol, alone and as Lightning's `CheckpointIO`.

Reading never runs code: ``torch.load(weights_only=True)`` on verified bytes, with no class added to
its allow-list. Lightning's own plugin writes through ``$TMPDIR`` and overwrites its target, which
can destroy the previous checkpoint; this one cannot.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO, TorchCheckpointIO
from torch import nn

from fetchlab.checkpoint.commit import prune, remove, write_checkpoint
from fetchlab.checkpoint.find import checkpoint_name, kind_of
from fetchlab.checkpoint.manifest import CheckpointError, read_checkpoint
from fetchlab.checkpoint.plain import to_plain
from fetchlab.errors import ConfigError, require

PAYLOAD = "checkpoint.pt"


def write_payload(folder: Path, name: str, payload: Mapping[str, Any], env_steps: int) -> Path:
    """Commit ``payload`` (made plain by `to_plain`) as the checkpoint ``folder / name``.

    It is serialised in memory first: its size is then known before the disk is touched, and a
    full disk cannot leave torch's archive writer half way.

    Raises:
        TypeError: it holds something that is not plain data.
        CheckpointError: it could not be written.
    """
    buffer = io.BytesIO()
    torch.save(to_plain(dict(payload)), buffer)
    return write_checkpoint(folder, name, {PAYLOAD: buffer.getbuffer()}, env_steps)


def read_payload(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Verify the checkpoint ``path`` and load what `write_payload` wrote.

    Raises:
        CheckpointError: damaged, or it holds more than tensors and plain Python.
    """
    contents = read_checkpoint(path)[1]
    if PAYLOAD not in contents:
        raise CheckpointError(path, f"{PAYLOAD} is missing")
    try:
        stream = io.BytesIO(contents[PAYLOAD])
        payload = torch.load(stream, map_location=map_location, weights_only=True)
    except Exception as error:  # whatever crafted bytes make the unpickler raise
        culprit = re.search(r"GLOBAL \S+", str(error))
        detail = culprit.group() if culprit else type(error).__name__
        raise CheckpointError(path, f"{PAYLOAD} is not plain data ({detail}); rejected") from error
    if not isinstance(payload, dict):
        raise CheckpointError(path, f"{PAYLOAD} holds a {type(payload).__name__}, expected a dict")
    return payload


def load_weights(module: nn.Module, path: Path) -> dict[str, Any]:
    """Put the weights of the checkpoint ``path`` into ``module``; returns all that it holds.

    Raises:
        CheckpointError: as `read_payload`, or it is a checkpoint of other networks.
    """
    payload = read_payload(path)
    try:
        module.load_state_dict(payload["state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(path, f"weights of other networks ({reason})") from error
    return payload


def write_best(folder: Path, weights: Mapping[str, Any], env_steps: int) -> Path:
    """Commit the best weights so far to ``folder``, then remove the ones they replace.

    ``weights`` are what evaluation needs, and nothing of the optimizers or the replay.
    """
    path = write_payload(folder, checkpoint_name("best", env_steps), weights, env_steps)
    prune(folder, "best", keep=1)
    return path


class CommitCheckpointIO(CheckpointIO):
    """Lightning's `Trainer.save_checkpoint` and ``ckpt_path=`` on committed checkpoint folders.

    Args:
        keep: checkpoints kept, the newest valid ones; at least 2.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Commit ``checkpoint`` with its int ``env_steps`` to ``path``, then prune.

        Under another name than ``checkpoints / checkpoint_name("step", env_steps)`` it is no
        checkpoint of the run's, such as `ModelCheckpoint`'s, and becomes a plain file.

        Raises:
            CheckpointError: it could not be written; earlier checkpoints are untouched.
            ConfigError: no ``env_steps``.
            TypeError: an entry is not plain data.
        """
        path = Path(path)
        require(storage_options is None, "storage_options", storage_options, "None", "drop it")
        if kind_of(path) != "step":
            TorchCheckpointIO().save_checkpoint(checkpoint, path)
            return
        env_steps = checkpoint.get("env_steps")
        if not isinstance(env_steps, int):
            remedy = "set it in the module's on_save_checkpoint"
            raise ConfigError("checkpoint['env_steps']", env_steps, "an int", remedy)
        write_payload(path.parent, path.name, checkpoint, env_steps)
        prune(path.parent, "step", self.keep)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Verify and load; there is no unsafe way in, so ``weights_only=False`` is refused."""
        require(weights_only is not False, "weights_only", weights_only, "True", "leave it out")
        return read_payload(Path(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove one checkpoint."""
        path = Path(path)
        if path.is_file():
            path.unlink()
        else:
            remove(path)
