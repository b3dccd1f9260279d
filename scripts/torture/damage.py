"""Rows 7 to 9: run folders whose files are damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from torture.bench import Bench, Result

KIB = 1024
FLIPS = 40  # random bytes tried in each file of a checkpoint, in the full version


def newest_checkpoint(run_dir: Path) -> Path:
    """The newest valid one, found by the project."""
    from fetchlab.checkpoint.find import newest_valid

    return newest_valid(run_dir / "checkpoints")


def truncated_checkpoint(bench: Bench, part: int) -> Result:
    """Row 7: every KiB of each file; then a real resume falls back."""
    run_dir = bench.copy_half()
    newest = newest_checkpoint(run_dir)
    cuts, accepted = 0, 0
    for path in sorted(newest.iterdir()):
        data = path.read_bytes()
        for size in range(0, len(data), KIB):
            path.write_bytes(data[:size])
            cuts += 1
            accepted += newest_checkpoint(run_dir) == newest
        path.write_bytes(data)
    seen = f"{accepted} of {cuts} cuts accepted"
    if not bench.full:
        return Result(accepted == 0, seen)
    os.truncate(newest / "checkpoint.pt", KIB)
    done = bench.resume(run_dir).wait()
    named = f"refused: {newest}: checkpoint.pt has {KIB} bytes" in done.text
    same = _h(run_dir) == bench.h
    ok = accepted == 0 and done.rc == 0 and named and same
    return Result(ok, f"{seen}; previous one resumed, {'same' if same else 'ANOTHER'} H")


def _h(run_dir: Path) -> str:
    from run_hash import run_hash

    return run_hash(run_dir)["H"]


def flipped_byte(bench: Bench, part: int) -> Result:
    """Row 8: one byte in each file of a checkpoint, one in every array of every stored episode."""
    run_dir = bench.copy_half()
    newest = newest_checkpoint(run_dir)
    tried, found = 0, 0
    for path in sorted(newest.iterdir()):
        size = path.stat().st_size
        for _ in range(FLIPS if bench.full else 5):
            place = bench.rng.randrange(size)
            _flip(path, place)
            tried, found = tried + 1, found + (newest_checkpoint(run_dir) != newest)
            _flip(path, place)
    rows_tried, rows_found, last = _flip_rows(bench, run_dir, newest)
    _flip(*last)
    done = bench.resume(run_dir).wait()
    named = done.rc == 1 and "checksum error in 1 episodes" in done.error
    ok = tried == found and rows_tried == rows_found > 0 and named
    seen = f"{found}/{tried} in checkpoints, {rows_found}/{rows_tried} in episodes found; "
    return Result(ok, seen + bench.show(done.error))


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 0x20]))


def _flip_rows(bench: Bench, run_dir: Path, newest: Path) -> tuple[int, int, tuple[Path, int]]:
    """Flip a byte in each array of each episode; how many were tried, how many found, the last."""
    from fetchlab.checkpoint.torch_io import read_payload

    state = read_payload(newest)["ReplayDataModule"]["replay"]["_storage"]
    layout = json.loads((run_dir / "replay" / "layout.json").read_text())
    storage = _storage(run_dir / "replay", layout)
    storage.load_state_dict(state)
    tried, found, last = 0, 0, (run_dir, 0)
    for env, start, length in _stored(state):
        for array in layout["arrays"].values():
            row = (start + bench.rng.randrange(length)) % layout["rows"] + env * layout["rows"]
            width = int(np.prod(array["shape"], dtype=int)) * np.dtype(array["dtype"]).itemsize
            last = run_dir / "replay" / array["file"], row * width + bench.rng.randrange(width)
            _flip(*last)
            tried, found = tried + 1, found + (len(storage.verify("full").env) == 1)
            _flip(*last)
    if len(storage.verify("full").env):
        raise RuntimeError("the rows were damaged before")
    return tried, found, last


def _stored(state: dict[str, Any]) -> list[tuple[int, int, int]]:
    """(env, first row, transitions) of the episodes in the window and of those in progress."""
    found = []
    for kind in ("episode", "unfinished"):
        columns = (state[f"{kind}_{name}"].tolist() for name in ("env", "start", "length"))
        found += [one for one in zip(*columns, strict=True) if one[2] > 0]
    return found


def _storage(folder: Path, layout: dict[str, Any]) -> Any:
    import torch

    from fetchlab.replay.layout import ReplaySize, RowSpec
    from fetchlab.replay.storage import EpisodeStorage

    arrays = layout["arrays"]
    pixels = tuple(arrays["pixels"]["shape"]) if "pixels" in arrays else None
    row = RowSpec(arrays["state"]["shape"][0], 3, arrays["action"]["shape"][0], False, pixels)
    size = ReplaySize(layout["n_envs"], layout["max_episode_steps"], 100, 840, 2)
    return EpisodeStorage(folder, row, size, 1, torch.device("cpu"), 1)


def shortened_replay(bench: Bench, part: int) -> Result:
    """Row 9."""
    run_dir = bench.copy_half()
    os.truncate(run_dir / "replay" / "state.bin", 4096)
    done = bench.resume(run_dir).wait()
    ok = done.rc == 1 and "state.bin" in done.error and "bytes expected, 4,096 found" in done.error
    return Result(ok, f"exit {done.rc}: {bench.show(done.error)}")
