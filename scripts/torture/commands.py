"""Rows 19, 22 to 25 and 30: what people do to a run."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

from torture import inject
from torture.bench import HALF, KINDS, Bench, Result, checkpoints, logged, reached
from torture.victims import gone


def tree(folder: Path) -> dict[str, str]:
    """Digest of every file, the lock apart, which a refused process creates where there is none."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }


def started_twice(bench: Bench, part: int) -> Result:
    """Row 19: while a run holds its folder (stopped, so that files can be compared)."""
    run_dir = bench.folder / "run"
    victim = bench.run(run_dir=run_dir)
    victim.wait_for(reached(run_dir, HALF))
    victim.signal(signal.SIGSTOP)
    before = tree(run_dir)
    again, resumed = bench.run(run_dir=run_dir).wait(), bench.resume(run_dir).wait()
    unchanged = tree(run_dir) == before
    victim.signal(signal.SIGCONT)
    ok = again.rc == 2 and resumed.rc == 1 and "is in use by process" in resumed.error and unchanged
    ok = ok and victim.wait().rc == 0
    error = bench.show(resumed.error).partition(" since ")[0]
    seen = f"exit {again.rc} and {resumed.rc}, files {'un' * unchanged}changed; {error}"
    return bench.verdict(run_dir, ok, seen)


def signals(bench: Bench, part: int) -> Result:
    """Row 22: SIGTERM; Ctrl-C; Ctrl-C twice, in a round that does not end."""
    run_dir = bench.folder / "run"
    victim = bench.run(run_dir=run_dir)
    victim.wait_for(reached(run_dir, HALF))
    workers = victim.workers()
    at = max(logged(run_dir))
    if part == 2:
        os.kill(workers[0], signal.SIGSTOP)
        time.sleep(0.2)
    number = signal.SIGTERM if part == 0 else signal.SIGINT
    victim.signal(number)
    if part == 2:
        victim.wait_for(lambda: "stopping after this round" in victim.text())
        victim.signal(signal.SIGINT)
    began = time.monotonic()
    done = victim.wait()
    seconds = time.monotonic() - began
    code = 143 if part == 0 else 130
    ok = done.rc == code and gone(workers)
    if part == 2:
        return bench.verdict(run_dir, ok and seconds < 5, f"Ctrl-C twice: exit {done.rc} at once")
    name = signal.Signals(number).name
    ok = ok and max(checkpoints(run_dir)) >= at and f"stopped by {name}" in done.text
    return bench.verdict(run_dir, ok, f"{name}: checkpoint, exit {done.rc}", always=True)


def nothing_to_resume(bench: Bench, part: int) -> Result:
    """Row 23: no folder, an empty one, one without checkpoints, one with none that is valid."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    empty = bench.folder / "empty"
    empty.mkdir()
    bare, damaged = bench.copy_half("bare"), bench.copy_half("damaged")
    shutil.rmtree(bare / "checkpoints")
    for checkpoint in (damaged / "checkpoints").glob("step_*"):
        os.truncate(checkpoint / "checkpoint.pt", 100)
    errors, ok = [], True
    for folder in (bench.folder / "missing", empty, bare, damaged):
        before = tree(folder)
        done = bench.resume(folder).wait()
        ok = ok and done.rc in (1, 2) and bool(done.error) and tree(folder) == before
        errors.append(f"exit {done.rc}")
    return Result(ok, f"{', '.join(errors)}; nothing created; last: {bench.show(done.error)}")


def other_conditions(bench: Bench, part: int) -> Result:
    """Row 24: threads, then version and renderer; forced, and on record."""
    from fetchlab.checkpoint.find import newest_valid
    from fetchlab.checkpoint.torch_io import read_payload

    run_dir = bench.folder / "run"
    victim = bench.run("trainer.threads=2", run_dir=run_dir)
    victim.wait_for(lambda: max(checkpoints(run_dir), default=0) > 0)
    victim.kill()
    one = ("trainer=cpu", "trainer.threads=1")
    threads = bench.resume(run_dir, *one).wait()
    machine = bench.resume(run_dir, fault=inject.other_machine).wait()
    forced = bench.resume(run_dir, *one, "force_resume=true").wait()
    record = read_payload(newest_valid(run_dir / "checkpoints"))["record"]["forced"]
    ok = threads.rc == 2 and "threads: 2 -> 1" in threads.error
    ok = ok and machine.rc == 2 and "another renderer" in machine.error
    ok = ok and "versions.torch: " in machine.error
    ok = ok and forced.rc == 0 and "threads: 2 -> 1" in record
    shown = bench.show(threads.error)
    return Result(ok, f"exit {threads.rc}, {machine.rc}, forced {forced.rc}: {shown}")


def changed_config(bench: Bench, part: int) -> Result:
    """Row 25."""
    run_dir = bench.copy_half()
    path = run_dir / "config.yaml"
    path.write_text(path.read_text().replace("capacity: 100\n", "capacity: 120\n"))
    done = bench.resume(run_dir).wait()
    ok = done.rc == 2 and "replay.capacity: 100 -> 120" in done.error
    return Result(ok, f"exit {done.rc}: {bench.show(done.error)}")


def bad_input(bench: Bench, part: int) -> Result:
    """Row 30: each is one line on stderr that names the value, exit code 2, no folder left."""
    state, pixel = KINDS["state"], KINDS["pixel"]
    cases = {
        "nope": ["experiment=nope"],
        "algo.utd_ratio=0": [*state, "algo.utd_ratio=0"],
        "desired_goal": [*state, "obs.actor_inputs=[state]"],
    }
    if bench.full:
        cases["collect.n_envs=-1"] = [*state, "collect.n_envs=-1"]
        cases["replay.capacity=-5"] = [*state, "replay.capacity=-5"]
        cases["image_size=3"] = [*pixel, "obs.pixels.image_size=3"]
    wrong = []
    for word, args in cases.items():
        run_dir = bench.folder / "run"
        done = bench.command([*args, f"run_dir={run_dir}"]).wait()
        one_line = done.text.count("\n") == 1 and word in done.error
        if done.rc != 2 or not one_line or run_dir.exists():
            wrong.append(f"{word}: exit {done.rc}, {bench.show(done.text)}")
    right = len(cases) - len(wrong)
    return Result(not wrong, "; ".join(wrong) or f"{right}/{len(cases)} in one line, exit 2")
