"""Rows 26 to 28: run folders made by somebody who means harm."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

from torture.bench import Bench, Result
from torture.damage import newest_checkpoint
from torture.victims import copy


class Bomb:
    """A pickle of it makes whoever loads it create ``sentinel``."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        """What unpickling calls."""
        return (os.system, (f"touch {self.sentinel}",))


def malicious_checkpoint(bench: Bench, part: int) -> Result:
    """Row 26: pickles in every file of a run folder, and one under a manifest that fits."""
    sentinel = bench.folder / "sentinel"
    bench.folder.mkdir(parents=True, exist_ok=True)
    bomb = pickle.dumps(Bomb(sentinel))
    pickle.loads(pickle.dumps(Bomb(bench.folder / "control")))
    if not (bench.folder / "control").exists():
        raise RuntimeError("the bomb is a dud")
    run_dir = bench.copy_half()
    names = [path.relative_to(run_dir) for path in sorted(run_dir.rglob("*")) if path.is_file()]
    if not bench.full:
        names = [name for name in names if name.name in ("config.yaml", "layout.json")]
    codes = []
    for name in names:
        run_dir = bench.copy_half()
        (run_dir / name).write_bytes(bomb)
        codes.append(bench.resume(run_dir).wait().rc)
    run_dir = bench.copy_half()
    _sign(newest_checkpoint(run_dir), sentinel)
    done = bench.resume(run_dir).wait()
    rejected = done.rc == 1 and "is not plain data" in done.error
    seen = f"sentinel {'PRESENT' if sentinel.exists() else 'absent'} after {len(names)} files"
    return Result(rejected and not sentinel.exists(), f"{seen}; {bench.show(done.error)}")


def _sign(checkpoint: Path, sentinel: Path) -> None:
    """A checkpoint whose payload is a bomb and whose manifest is sound."""
    import torch

    torch.save({"env_steps": Bomb(sentinel)}, checkpoint / "checkpoint.pt")
    _write_manifest(checkpoint, ["checkpoint.pt"])


def _write_manifest(checkpoint: Path, names: list[str]) -> None:
    from fetchlab.checkpoint.manifest import MANIFEST, FileEntry, Manifest

    old = json.loads((checkpoint / MANIFEST).read_text())
    files = {}
    for name in names:
        data = (checkpoint / name).read_bytes()
        files[name] = FileEntry(len(data), hashlib.sha256(data).hexdigest())
    manifest = Manifest(old["env_steps"], old["serial"], files)
    (checkpoint / MANIFEST).write_bytes(manifest.encode())


def malicious_config(bench: Bench, part: int) -> Result:
    """Row 27."""
    sentinel = bench.folder / "sentinel"
    keep = "fetchlab.augment.NoAugment"
    texts = {
        "os.system": (keep, "os.system"),
        "torch.load": (keep, "torch.load"),
        "prefix": (keep, f"{keep}.__init__.__globals__"),
        "nested": ("fetchlab.algos.adam.FusedAdam", "subprocess.call"),
        "tag": ("seed: 0", f"seed: !!python/object/apply:os.system ['touch {sentinel}']"),
        "environment": ("seed: 0", "seed: ${oc.env:HOME}"),
    }
    rejected = 0
    for old, new in texts.values():
        run_dir = bench.copy_half()
        config = run_dir / "config.yaml"
        text = config.read_text()
        if old not in text:
            raise RuntimeError(f"{old} is not in config.yaml")
        config.write_text(text.replace(old, new, 1))
        done = bench.resume(run_dir).wait()
        rejected += done.rc == 2 and done.error.count("\n") == 0
    ok = rejected == len(texts) and not sentinel.exists()
    seen = f"{rejected}/{len(texts)} rejected, sentinel "
    return Result(ok, seen + ("PRESENT" if sentinel.exists() else "absent"))


def manifest_leads_outside(bench: Bench, part: int) -> Result:
    """Row 28: names with ``..``, links to files and folders; each is refused, and a run resumed."""
    outside = bench.folder / "outside"
    refused = 0
    crafts = ("parent", "link", "folder", "checkpoints")
    for craft in crafts:
        run_dir = bench.copy_half()
        newest = newest_checkpoint(run_dir)
        outside.mkdir(exist_ok=True)
        victim = outside / "victim.txt"
        victim.write_text("precious\n")
        copy(newest, outside / newest.name)
        before = _tree(outside)
        if craft == "parent":
            manifest = json.loads((newest / "manifest.json").read_text())
            manifest["files"][f"../../../outside/{victim.name}"] = {"bytes": 9, "sha256": "0" * 64}
            (newest / "manifest.json").write_text(json.dumps(manifest))
        elif craft == "link":
            (newest / "checkpoint.pt").unlink()
            (newest / "checkpoint.pt").symlink_to(outside / newest.name / "checkpoint.pt")
        elif craft == "folder":
            shutil.rmtree(newest)
            newest.symlink_to(outside / newest.name)
        else:
            shutil.rmtree(run_dir / "checkpoints")
            (run_dir / "checkpoints").symlink_to(outside)
        done = bench.resume(run_dir).wait()
        fell_back = done.rc == 0 and "checkpoint refused" in done.text
        refused += (fell_back or (craft == "checkpoints" and done.rc == 1)) and (
            _tree(outside) == before
        )
    seen = f"{refused}/{len(crafts)} refused, files outside unchanged"
    return Result(refused == len(crafts), seen)


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
