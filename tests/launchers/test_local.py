"""Several commands at a time on this machine: bounded, told apart, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import gone

from fetchlab.checkpoint.signals import StopFlag
from fetchlab.launchers import OUTPUT, Job
from fetchlab.launchers.local import Local

GB = 10**9
#: Writes when it began, ended, and what it may use. Where jobs lie in the folder "together", it
#: stays until another one has begun, too.
STAY = """
import json, os, sys, time
from pathlib import Path
began, here = time.monotonic(), Path(sys.argv[1]).parent
(here / "began").touch()
time.sleep(0.3)
while here.parent.name == "together" and len(list(here.parent.glob("*/began"))) < 2:
    assert time.monotonic() < began + 20
    time.sleep(0.01)
seen = [began, time.monotonic(), sorted(os.sched_getaffinity(0)), os.environ.get("SLURM_JOB_ID")]
seen += [os.environ.get("CUDA_VISIBLE_DEVICES")]
open(sys.argv[1], "w").write(repr(seen))
"""


def job(folder, code=STAY, cores=1, memory_bytes=1, gpu=False):
    command = (sys.executable, "-S", "-c", code, str(folder / "seen"))
    return Job(folder, command, cores, memory_bytes, gpu)


def seen(jobs):
    return [eval((one.folder / "seen").read_text()) for one in jobs]


def most_at_once(times):
    return max(sum(a <= began < b for a, b, *_ in times) for began, *_ in times)


def codes(launcher, jobs):
    return {one.folder.name: code for one, code in launcher.launch(jobs, StopFlag())}


@pytest.mark.parametrize(
    ("needs", "at_once", "most"),
    [
        ({"cores": 1}, None, 2),
        ({"cores": 2}, None, 1),
        ({"cores": 9}, None, 1),  # more than there are: alone, and its own preflight answers
        ({"memory_bytes": 3 * GB}, None, 1),
        ({}, 1, 1),
    ],
    ids=str,
)
def test_as_many_run_as_cores_and_memory_hold(tmp_path, monkeypatch, needs, at_once, most):
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        pytest.skip("one core")
    monkeypatch.setattr("fetchlab.launchers.local.usable_cores", lambda: 2)
    monkeypatch.setattr("fetchlab.launchers.local.available_memory_bytes", lambda: 5 * GB)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    root = tmp_path / ("together" if most > 1 else "alone")
    jobs = [job(root / str(n), **needs) for n in range(4)]
    assert codes(Local(None, at_once, 1), jobs) == dict.fromkeys("0123", 0)
    assert most_at_once(seen(jobs)) == most
    own = [one[2] for one in seen(jobs)]
    assert all(len(one) == min(needs.get("cores", 1), 2) and {*one} <= {*cores} for one in own)
    assert {one[3] for one in seen(jobs)} == {None}  # a run does not requeue what it shares


def test_gpus_are_shared_out(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setattr("fetchlab.launchers.local.usable_cores", lambda: 2)
    jobs = [job(tmp_path / str(n), gpu=True, cores=1) for n in range(4)]
    assert set(codes(Local(None, None, 1), jobs).values()) == {0}
    assert {one[4] for one in seen(jobs)} == {"3", "5"}


def test_a_failure_and_a_kill_are_told_and_the_others_go_on(tmp_path):
    kill = "import os; os.kill(os.getpid(), 9)"
    fail = "import sys; print('said'); sys.exit('error: by design')"
    jobs = [job(tmp_path / "killed", kill), job(tmp_path / "failed", fail), job(tmp_path / "well")]
    assert codes(Local(None, None, 1), jobs) == {"killed": -9, "failed": 1, "well": 0}
    assert (tmp_path / "failed" / OUTPUT).read_text() == "said\nerror: by design\n"


def test_a_stop_lets_running_jobs_commit_and_starts_no_more(tmp_path):
    commit = """
import signal, sys, time
def stop(*_):
    open(sys.argv[1], "w").write("committed")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
open(sys.argv[1], "w").write("ready")
time.sleep(60)
"""
    jobs = [job(tmp_path / str(n), commit) for n in range(2)]
    flag, ended = StopFlag(), []

    class Asked(StopFlag):  # once the first is ready
        @property
        def stop(self):
            file = tmp_path / "0" / "seen"
            return file.exists() and file.read_text() != ""

        @stop.setter
        def stop(self, value):
            pass

    flag = Asked()
    ended = list(Local(None, 1, 1).launch(jobs, flag))
    assert ended == [(jobs[0], 143)]
    assert (tmp_path / "0" / "seen").read_text() == "committed"
    assert not (tmp_path / "1").exists()


def test_a_job_is_asked_for_when_there_is_room_and_one_that_is_unwanted_ends(tmp_path):
    stay = "import sys, time; open(sys.argv[1], 'w').write('there'); time.sleep(60)"
    ended, asked = [], []

    def jobs():
        for name, code in (("first", STAY), ("unwanted", stay), ("last", STAY)):
            asked.append((name, [*ended]))
            yield job(tmp_path / name, code)

    def unwanted(one):
        return one.folder.name == "unwanted" and (one.folder / "seen").exists()

    for one, code in Local(None, 1, 1).launch(jobs(), StopFlag(), unwanted):
        ended.append((one.folder.name, code))
    assert ended == [("first", 0), ("unwanted", -15), ("last", 0)]
    assert asked == [("first", []), ("unwanted", ended[:1]), ("last", ended[:2])]


def test_a_launcher_that_is_killed_takes_its_jobs_with_it(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_local import *
stay = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(60)"
list(Local(None, None, 1).launch([job(Path({str(tmp_path)!r}) / "run", stay)], StopFlag()))
"""
    path = os.pathsep.join(sys.path)
    launcher = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}
    )
    file = tmp_path / "run" / "seen"
    while not (file.exists() and file.read_text()):
        assert launcher.poll() is None
        time.sleep(0.02)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    assert gone([int(file.read_text())])
