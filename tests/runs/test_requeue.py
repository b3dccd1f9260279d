"""What a run in a SLURM job does when its end is announced, and when restarts get nowhere."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from fetchlab.errors import ConfigError, RunFailedError
from fetchlab.launchers import OUTPUT, Job
from fetchlab.launchers.slurm import Slurm
from fetchlab.requeue import RESTARTS, requeue, require_progress

SLURM = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """SLURM's commands as far as they matter here: each writes down how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {
        "squeue": f"cat {folder}/state",
        "scontrol": "true",
        "sbatch": f"cat >{folder}/script; echo '12;two'",
    }
    for name, answer in answers.items():
        (folder / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{folder}/calls\n{answer}\n')
        (folder / name).chmod(0o755)
    (folder / "state").write_text("RUNNING\n")
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def calls(cluster, name):
    file = cluster / "calls"
    lines = file.read_text().splitlines() if file.exists() else []
    return [line for line in lines if line.startswith(name)]


@pytest.mark.parametrize(
    ("reason", "environment", "state", "again"),
    [
        ("SIGUSR1", SLURM, "RUNNING", True),
        ("SIGTERM", SLURM, "RUNNING", True),
        ("SIGTERM", SLURM, "COMPLETING", False),  # scancel, or a preemption that SLURM answers
        ("SIGTERM", SLURM, "", False),
        ("SIGINT", SLURM, "RUNNING", False),
        ("the disk is nearly full", SLURM, "RUNNING", False),
        ("SIGUSR1", {}, "RUNNING", False),
    ],
)
def test_an_announced_end_requeues_and_a_cancelled_job_does_not(
    cluster, reason, environment, state, again
):
    (cluster / "state").write_text(f"{state}\n")
    requeue(reason, environment)
    assert calls(cluster, "scontrol") == (["scontrol requeue 7"] if again else [])


def test_restarts_without_progress_end_after_two(finished, tmp_path):
    run_dir = tmp_path / "run"
    require_progress(run_dir, {"SLURM_JOB_ID": "7"})  # the first start is none
    assert not run_dir.exists()
    for _ in range(2):
        require_progress(run_dir, SLURM)
    with pytest.raises(RunFailedError, match="restarted 2 times at 0 env steps; give it more time"):
        require_progress(run_dir, SLURM)
    require_progress(run_dir, {**SLURM, "SLURM_JOB_ID": "8"})  # submitted again
    shutil.copytree(finished / "checkpoints", run_dir / "checkpoints")
    for _ in range(2):
        require_progress(run_dir, {**SLURM, "SLURM_JOB_ID": "8"})
    recorded = {"job": "8", "env_steps": [0, 800, 800]}
    assert json.loads((run_dir / RESTARTS).read_text()) == recorded
    with pytest.raises(RunFailedError, match="at 800 env steps"):
        require_progress(run_dir, {**SLURM, "SLURM_JOB_ID": "8"})
    for foreign in ("[torn", '{"job": "7", "env_steps": null}', "5"):
        (run_dir / RESTARTS).write_text(foreign)
        require_progress(run_dir, SLURM)


class Flag:
    stop = False


def slurm(**given):
    asked = {"cores_per_run": 2, "gpus_per_run": 1, "minutes": 30, "notice_s": 60}
    asked |= {"partition": "main", "options": ["--account=lab"], "poll_s": 0.01}
    return Slurm(**{**asked, **given})


def test_a_job_asks_for_what_the_run_needs_and_is_not_submitted_twice(cluster, tmp_path):
    command = ("python", "src/train.py", "run_dir='a b'", "resume=auto")
    job = Job(tmp_path / "run", command, cores=3, memory_bytes=2 * 2**30 + 1, gpu=True)
    (cluster / "state").write_text("5\n")  # somebody's other job
    assert list(slurm().launch([job], Flag())) == [(job, None)]
    (asked,) = calls(cluster, "sbatch")
    words = set(asked.split())
    assert words >= {"--requeue", "--cpus-per-task=3", "--mem=2049M", "--gpus=1", "--time=30"}
    assert words >= {"--signal=B:USR1@60", "--partition=main", "--account=lab"}
    assert f"--output={job.folder / OUTPUT}" in words
    script = (cluster / "script").read_text()
    assert script == "#!/bin/sh\nexec python src/train.py 'run_dir='\"'\"'a b'\"'\"'' resume=auto\n"
    (cluster / "state").write_text("12\n")  # it is still queued

    class Soon(Flag):
        def __init__(self):
            self.looks = 0

        @property
        def stop(self):
            self.looks += 1
            return self.looks > 2

    assert list(slurm().launch([job], Soon())) == []
    assert len(calls(cluster, "sbatch")) == 1


def test_without_slurm_and_where_sbatch_refuses_the_error_is_one_line(
    cluster, tmp_path, monkeypatch
):
    (cluster / "sbatch").write_text("#!/bin/sh\necho 'error: no such\n account' >&2; exit 1\n")
    job = Job(tmp_path / "run", ("true",), cores=1, memory_bytes=1, gpu=False)
    with pytest.raises(ConfigError, match="it says: error: no such account"):
        list(slurm().launch([job], Flag()))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="launcher='slurm': expected a machine with SLURM's"):
        slurm()
