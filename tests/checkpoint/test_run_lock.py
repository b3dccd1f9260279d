"""One process per run folder; dead holders hold nothing; children keep nothing alive."""

import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from fetchlab.checkpoint import run_lock
from fetchlab.checkpoint.run_lock import RunLock, RunLockedError, was_locked
from fetchlab.errors import ConfigError

HOLD = """
import subprocess, sys, time
from pathlib import Path
from fetchlab.checkpoint.run_lock import RunLock
RunLock(Path(sys.argv[1])).acquire()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_second_start_is_refused_until_the_holder_is_killed(tmp_path):
    (tmp_path / "metrics.csv").write_text("env_steps\n")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(holder.stdout.readline())
    try:
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(RunLockedError) as caught:
            RunLock(tmp_path).acquire()
        assert f"process {holder.pid} since 20" in str(caught.value)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)  # the worker outlives its parent, without the lock
        began = time.monotonic()
        with RunLock(tmp_path):
            assert time.monotonic() - began < 1
            assert f"pid {os.getpid()} " in (tmp_path / ".lock").read_text()
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        os.kill(child, signal.SIGKILL)


def test_same_process_and_reuse(tmp_path):
    with RunLock(tmp_path):
        with pytest.raises(RunLockedError, match=str(os.getpid())), RunLock(tmp_path):
            pass
        with pytest.raises(RunLockedError):  # the refused attempt took nothing away
            RunLock(tmp_path).acquire()
    lock = RunLock(tmp_path)
    for _ in range(2):
        lock.acquire()
        lock.release()
    lock.release()


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            lock.release()  # a child's clean-up must not free its parent's lock
            os.write(writer, b"x")
            time.sleep(60)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b"x"
        with pytest.raises(RunLockedError):
            RunLock(tmp_path).acquire()
        os.close(lock._fd)  # what the kernel does when the holder dies: no unlock, only a close
        RunLock(tmp_path).acquire()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)


def test_a_linked_lock_file_is_refused(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(outside)
    with pytest.raises(ConfigError, match="run_dir="):
        RunLock(tmp_path / "run").acquire()
    assert outside.read_text() == "precious"


def test_unusable_folders_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "run" / ".lock").mkdir(parents=True)
    for folder in (tmp_path / "absent", tmp_path / "file", tmp_path / "run"):
        with pytest.raises(ConfigError, match=re.escape(str(folder))):
            RunLock(folder).acquire()
    (tmp_path / "run" / ".lock").rmdir()
    os.mkfifo(tmp_path / "run" / ".lock")
    with pytest.raises(ConfigError, match="not a regular file"):
        RunLock(tmp_path / "run").acquire()


def test_what_the_lock_file_says_is_not_trusted(tmp_path):
    holder = RunLock(tmp_path)
    holder.acquire()
    (tmp_path / ".lock").write_bytes(b"\x1b[31m rm -rf\n\xff")
    with pytest.raises(RunLockedError, match="in use by another process"):
        RunLock(tmp_path).acquire()
    holder.release()


ELSEWHERE = "pid 7 since 2026-01-02T03:04:05+00:00 on othernode\n"


def test_a_dead_machine_loses_its_folder_after_the_lease(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "LEASE_S", 0.5)
    (tmp_path / ".lock").write_text(ELSEWHERE)
    assert was_locked(tmp_path)
    began = time.monotonic()
    with RunLock(tmp_path):
        assert time.monotonic() - began >= 0.5
        assert f" on {run_lock.HOST}\n" in (tmp_path / ".lock").read_text()
    (tmp_path / ".lock").write_text(f"{ELSEWHERE}released\n")
    monkeypatch.setattr(run_lock, "LEASE_S", 600.0)
    for _ in range(2):  # released, by another machine and by this one
        with RunLock(tmp_path):
            pass
    assert was_locked(tmp_path)


def test_a_living_machine_keeps_its_folder_where_flock_holds_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "LEASE_S", 60.0)
    path = tmp_path / ".lock"
    path.write_text(ELSEWHERE)
    touch = threading.Timer(0.2, lambda: os.utime(path))
    touch.start()
    with pytest.raises(RunLockedError, match=r"process 7 since 2026.* on othernode: expected one"):
        RunLock(tmp_path).acquire()
    touch.join()
    assert path.read_text() == ELSEWHERE


def test_a_holder_gives_signs_of_life_and_ends_when_another_machine_took_the_folder(tmp_path):
    beats = HOLD.replace("RunLock(Path", "run_lock.BEAT_S = 0.05\nRunLock(Path")
    holder = subprocess.Popen(
        [sys.executable, "-c", f"from fetchlab.checkpoint import run_lock\n{beats}", tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child = int(holder.stdout.readline())
    try:
        path = tmp_path / ".lock"
        seen = path.stat().st_mtime_ns
        while path.stat().st_mtime_ns == seen:
            time.sleep(0.01)
        path.write_text(ELSEWHERE)
        assert holder.wait(timeout=30) == 1
        assert "was taken over by othernode" in holder.stderr.readline()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.kill()
        holder.communicate()
