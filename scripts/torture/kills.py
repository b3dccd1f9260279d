"""Rows 1 to 6, 12, 20, 21 and 37: killed anywhere, a run goes on as if nothing had been."""

from __future__ import annotations

import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from run_hash import run_hash

from torture import inject
from torture.bench import (
    ARGS,
    HALF,
    KINDS,
    SHORT_PIXEL_TOTAL,
    TOTAL,
    Bench,
    Result,
    checkpoints,
    finished,
    logged,
    reached,
)
from torture.victims import ROOT, TRAIN, Victim

ROWS_PER_STEP = 51 / 50 / 2  # a final observation per episode of 50, two environments


def stop_and_resume(bench: Bench, part: int) -> Result:
    """Row 1, by the real command line in fresh processes, and the folder moved in between."""
    first, moved = bench.folder / "run", bench.folder / "elsewhere" / "moved"
    args = [*KINDS[bench.kind], f"total_env_steps={TOTAL // 2}", f"run_dir={first}"]
    for command in (args, [f"resume={moved}", f"total_env_steps={TOTAL}"]):
        done = subprocess.run(
            [sys.executable, str(TRAIN), *command], cwd=ROOT, capture_output=True, text=True
        )
        if done.returncode != 0:
            return Result(False, bench.show(done.stderr))
        if first.exists():
            moved.parent.mkdir()
            shutil.move(first, moved)
    same = run_hash(moved)["H"] == bench.h
    return Result(same, f"{'same' if same else 'ANOTHER'} H, folder moved in between")


def kill_at_random(bench: Bench, part: int) -> Result:
    """Row 2: kill -9 at a random time of the training, every third run twice; then to the end."""
    run_dir = bench.folder / "run"
    killed, seconds = 0, bench.train_s
    while not killed:  # a draw that comes after the end is drawn again
        shutil.rmtree(run_dir, ignore_errors=True)
        victim = bench.run(run_dir=run_dir)
        victim.wait_for(lambda: bool(checkpoints(run_dir)))
        killed += _killed_within(victim, seconds, bench)
        if not killed:  # the machine has become quicker
            seconds = json.loads((run_dir / "summary.json").read_text())["wall_time_s"]
    if part % 3 == 2:
        killed += _killed_within(bench.resume(run_dir), bench.resume_s + bench.train_s / 2, bench)
    same = bench.same(run_dir)
    once = rows_once(run_dir, bench.reference)
    return Result(same and once, "same H" if same else f"part {part}: ANOTHER H")


def _killed_within(victim: Victim, seconds: float, bench: Bench) -> bool:
    deadline = time.monotonic() + bench.rng.uniform(0.0, seconds)
    while time.monotonic() < deadline and not victim.ended():
        time.sleep(0.001)
    return victim.kill().rc == -signal.SIGKILL


def kill_at_each_commit_step(bench: Bench, part: int) -> Result:
    """Row 3: at one commit, die before, in and after each step on disk; resume what is left."""
    run_dir, left = bench.folder / "run", bench.folder / "left"
    modes = ["before", "torn", "after"] if bench.full else ["before"]
    fault = inject.killed_at_every_disk_step(4, run_dir, left, modes)
    done = bench.run(run_dir=run_dir, fault=fault).wait()
    if done.rc != 0 or run_hash(run_dir)["H"] != bench.h:
        return Result(False, f"the run itself ended with {done.rc}, or with another H")
    points = sorted(path for path in left.iterdir() if path.name != "before")
    valid = [_newest(point) for point in points]
    chosen = points if bench.full else []
    resumed = sum(bench.same(point) for point in chosen)
    ok = len(points) >= 14 and all(valid) and resumed == len(chosen)
    seen = f"{sum(valid)}/{len(points)} points leave a valid checkpoint"
    return Result(ok, seen + (f"; {resumed}/{len(chosen)} resumed, same H" if chosen else ""))


def _newest(run_dir: Path) -> bool:
    from fetchlab.checkpoint.find import newest_valid
    from fetchlab.checkpoint.manifest import CheckpointError

    try:
        return newest_valid(run_dir / "checkpoints").exists()
    except CheckpointError:
        return False


def kill_while_resuming(bench: Bench, part: int) -> Result:
    """Row 4: two kills of a process that is loading, then a resume."""
    run_dir, times = bench.copy_half(), []
    for _ in range(2):
        victim = bench.resume(run_dir)
        time.sleep(bench.rng.uniform(0.2, 1.0) * bench.resume_s)
        times.append(victim.kill().seconds)
    seconds = " and ".join(f"{at:.1f} s" for at in times)
    return bench.verdict(run_dir, True, f"killed {seconds} into a resume")


def torn_row(bench: Bench, part: int) -> Result:
    """Row 5: die between two arrays of one row; the resume compares every row it can sample."""
    run_dir, call = bench.folder / "run", bench.rng.randint(100, TOTAL // 2 - 1)
    killed = bench.run(run_dir=run_dir, fault=inject.torn_row(call)).wait()
    same = bench.same(run_dir)
    ok = killed.rc == -signal.SIGKILL and same
    return Result(ok, f"0 torn rows among those sampled, {'same' if same else 'ANOTHER'} H")


def kill_after_wraps(bench: Bench, part: int) -> Result:
    """Row 6."""
    run_dir = bench.folder / "run"
    victim = bench.run(run_dir=run_dir)
    victim.wait_for(reached(run_dir, 720))
    victim.kill()
    layout = json.loads((run_dir / "replay" / "layout.json").read_text())
    wraps = max(logged(run_dir)) * ROWS_PER_STEP / layout["rows"]
    return bench.verdict(run_dir, wraps >= 3, f"killed after {wraps:.1f} wraps")


def other_tmpdir(bench: Bench, part: int) -> Result:
    """Row 12: the temporary folder lies on another filesystem."""
    run_dir = bench.folder / "run"
    victim = bench.run(run_dir=run_dir, environment={"TMPDIR": "/dev/shm"})
    victim.wait_for(reached(run_dir, HALF))
    victim.kill()
    return bench.verdict(run_dir, _newest(run_dir), "the newest checkpoint loads")


def stale_lock(bench: Bench, part: int) -> Result:
    """Row 20."""
    from fetchlab.checkpoint.run_lock import RunLock, RunLockedError

    run_dir = bench.folder / "run"
    victim = bench.run(run_dir=run_dir)
    victim.wait_for(reached(run_dir, HALF))
    try:
        with RunLock(run_dir):
            return Result(False, "the lock of a living run was free")
    except RunLockedError:
        pass
    victim.kill()
    began = time.monotonic()
    while time.monotonic() < began + 10:
        try:
            with RunLock(run_dir):
                break
        except RunLockedError:
            time.sleep(0.001)
    seconds = time.monotonic() - began
    return bench.verdict(run_dir, seconds < 1, f"free {seconds:.3f} s after the death")


def duplicate_rows(bench: Bench, part: int) -> Result:
    """Row 21: killed when rows are logged that no checkpoint has."""
    run_dir = bench.folder / "run"
    victim = bench.run(run_dir=run_dir)
    victim.wait_for(
        lambda: max(logged(run_dir), default=0) > max([HALF, *checkpoints(run_dir)[-1:]])
    )
    victim.kill()
    extra = [step for step in logged(run_dir) if step > max(checkpoints(run_dir))]
    same = bench.same(run_dir)
    unique = rows_once(run_dir, bench.reference)
    seen = f"{len(extra)} rows logged after the checkpoint; each once in CSV and TensorBoard"
    return Result(bool(extra) and same and unique, seen if unique else "DUPLICATE ROWS")


def kill_of_small_images(bench: Bench, part: int) -> Result:
    """Row 37: images of 16 x 16, averaged from 32 x 32, against a run of their own."""
    small = ("obs.pixels.image_size=16", "obs.pixels.supersample=2")
    reference, run_dir = bench.folder / "reference", bench.folder / "run"
    finished(bench.run(*small, run_dir=reference))
    victim = bench.run(*small, run_dir=run_dir)
    victim.wait_for(reached(run_dir, bench.rng.randrange(120, HALF, 60)))
    killed = victim.kill()
    ok = killed.rc == -signal.SIGKILL
    same = replace(bench, h=run_hash(reference)["H"]).same(run_dir)
    return Result(
        ok and same, f"killed after {killed.seconds:.1f} s; {'same' if same else 'ANOTHER'} H"
    )


def rows_once(run_dir: Path, reference: Path) -> bool:
    """Whether both logs hold exactly the reference's logging points, in order, once."""
    steps, events = logged(run_dir), event_steps(run_dir)
    # A callback may add an event of its own at an evaluation: then the reference has it, too.
    once = steps == logged(reference) == sorted(set(steps)) == sorted(set(events))
    return once and events == event_steps(reference)


def event_steps(run_dir: Path) -> list[int]:
    """The step of each TensorBoard event, file by file."""
    from tensorboard.compat.proto.event_pb2 import Event

    steps = []
    for path in sorted((run_dir / "tensorboard").iterdir()):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            steps += [event.step] if event.summary.value else []
            at += 16 + length
    return steps


def student_without_teacher(bench: Bench, part: int) -> Result:
    """Row 37: a student is killed anywhere, and its teacher's folder is gone when it goes on."""
    teacher, whole, killed = (bench.folder / name for name in ("teacher", "whole", "killed"))
    finished(bench.command(["experiment=vector_push", *ARGS, f"run_dir={teacher}"]))
    small = ("algo.batch_size=4", "encoder.filters=8", f"total_env_steps={SHORT_PIXEL_TOTAL}")
    args = ["experiment=pixel_push_laptop_student", *ARGS, *small, f"teacher={teacher}"]
    finished(bench.command([*args, f"run_dir={whole}"]))
    victim = bench.command([*args, f"run_dir={killed}"])
    victim.wait_for(reached(killed, bench.rng.choice([120, 180, 240, 300, 360])))
    time.sleep(bench.rng.uniform(0.0, 0.1))
    rc = victim.kill().rc
    shutil.rmtree(teacher)
    at, done = max(checkpoints(killed)), bench.resume(killed).wait()
    same = done.rc == 0 and run_hash(killed)["H"] == run_hash(whole)["H"]
    seen = f"killed after {at} env steps, {'same' if same else 'ANOTHER'} H without the teacher"
    return Result(same and rc == -signal.SIGKILL, seen)
