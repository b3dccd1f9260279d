"""H, the identity of a run: `python scripts/run_hash.py RUN_DIR` prints it, part by part.

Two runs with the same H have the same weights, targets, optimizers, random states, simulators,
counters, evaluations and metrics (wall-clock columns apart), and the same content in every replay
row that can be sampled or continued. It reads the run's files on its own and imports nothing of the
project, so a mistake there cannot hide here.

Left out is what depends on *when* checkpoints were committed or processes started, and never on
what was learned: see ``VOLATILE``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: Checkpoint entries, by dotted key, that may differ between equal runs.
VOLATILE = (
    "epoch",  # Lightning's counters begin anew in every process
    "global_step",
    "loops",
    "pytorch-lightning_version",
    "wall_time_s",
    "record",  # configuration and machine: a moved run has another folder
    "loggers",  # sizes of the log files, whose wall-clock columns vary in width
    "ReplayDataModule.replay._storage.previous_start",  # what the commit before this one protects
    "ReplayDataModule.replay._storage.previous_cursor",
)
STORAGE = ("ReplayDataModule", "replay", "_storage")
NOT_OPEN = -1


def run_hash(run_dir: Path) -> dict[str, str]:
    """Digest of each part of the run, and of all of them as ``H``.

    Args:
        run_dir: a run's folder; its newest checkpoint is taken, whatever its name.
    """
    checkpoint = newest(run_dir / "checkpoints")
    payload = torch.load(checkpoint / "checkpoint.pt", map_location="cpu", weights_only=True)
    parts: dict[str, Any] = {}
    for key, value in leaves(payload):
        if not any(key == name or key.startswith(f"{name}.") for name in VOLATILE):
            part = "weights" if key.startswith("state_dict.") else key.partition(".")[0]
            parts.setdefault(part, hashlib.sha256()).update(key.encode() + b"\0" + encode(value))
    parts["rows"] = rows_digest(run_dir / "replay", payload)
    parts["metrics"] = metrics_digest(run_dir / "metrics.csv")
    parts["evaluations"] = hashlib.sha256((run_dir / "evaluation.json").read_bytes())
    digests = {name: digest.hexdigest() for name, digest in sorted(parts.items())}
    whole = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    return {"H": whole, **digests}


def newest(folder: Path) -> Path:
    """The checkpoint with the largest serial whose payload has the SHA-256 of its manifest."""
    found = []
    for path in folder.glob("step_*"):
        manifest = json.loads((path / "manifest.json").read_text())
        found.append((manifest["serial"], path, manifest["files"]["checkpoint.pt"]["sha256"]))
    for _, path, expected in sorted(found, reverse=True):
        if hashlib.sha256((path / "checkpoint.pt").read_bytes()).hexdigest() == expected:
            return path
    raise SystemExit(f"error: {folder} holds no whole checkpoint")


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts, lists and tuples with its dotted key, keys sorted."""
    if isinstance(value, dict):
        for name in sorted(value, key=str):
            yield from leaves(value[name], f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        yield f"{key}.#", len(value)
        for index, item in enumerate(value):
            yield from leaves(item, f"{key}.{index}")
    else:
        yield key, value


def encode(value: Any) -> bytes:
    """Bytes that two values share only if they are equal bit for bit."""
    if isinstance(value, torch.Tensor):
        array = np.ascontiguousarray(value.numpy())
        return f"{array.dtype}{array.shape}".encode() + array.tobytes()
    if isinstance(value, float):
        return b"f" + struct.pack("<d", value)
    return f"{type(value).__name__}:{value!r}".encode()


def rows_digest(folder: Path, payload: dict[str, Any]) -> Any:
    """Content of all rows that the checkpoint can sample or continue, in logical order.

    Absolute row ``a`` of environment ``i`` lies at ``i * rows + a % rows`` of each file. An episode
    of T transitions has T + 1 observations and T goals, actions and flags.
    """
    layout = json.loads((folder / "layout.json").read_text())
    state: Any = payload
    for name in STORAGE:
        state = state[name]
    arrays = {}
    for name, array in layout["arrays"].items():
        shape = (layout["n_envs"], layout["rows"], *array["shape"])
        arrays[name] = np.fromfile(folder / array["file"], array["dtype"]).reshape(shape)
    digest = hashlib.sha256()
    for env, start, length in episodes(state):
        digest.update(struct.pack("<qq", env, length))
        for name in sorted(arrays):
            count = length + (name in ("pixels", "state", "achieved_goal"))
            places = np.arange(start, start + count) % layout["rows"]
            digest.update(np.ascontiguousarray(arrays[name][env, places]).tobytes())
    return digest


def episodes(state: dict[str, torch.Tensor]) -> Iterator[tuple[int, int, int]]:
    """(env, first absolute row, transitions) of finished episodes, then of those in progress."""
    columns = (state["episode_env"], state["episode_start"], state["episode_length"])
    yield from zip(*(column.tolist() for column in columns), strict=True)
    opened = zip(state["open_start"].tolist(), state["cursor"].tolist(), strict=True)
    for env, (start, cursor) in enumerate(opened):
        if start != NOT_OPEN:
            yield env, start, cursor - start


def metrics_digest(path: Path) -> Any:
    """The table without its ``time/`` columns and those without a value, by the columns' names."""
    names, *rows = csv.reader(io.StringIO(path.read_text()))
    columns = sorted(zip(names, *rows, strict=True))
    keep = [one for one in columns if not one[0].startswith("time/") and any(one[1:])]
    return hashlib.sha256(json.dumps(keep).encode())


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    print(json.dumps(run_hash(arguments.parse_args().run_dir), indent=1))
