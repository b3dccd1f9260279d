"""An evaluation that is killed or stopped loses nothing: the resume makes up for it, exactly.

The victims run under everything that a scheduler or launcher may put into the environment; the run
that they are compared with does not.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import simulators

from fetchlab.run import resume, start

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

#: Two evaluations of 40 waves: long enough to be met by a signal.
SETTINGS = (
    *("total_env_steps=400", "collect.n_envs=4", "collect.workers=1", "trainer=cpu"),
    *("collect.learning_starts=100", "callbacks.log_every_env_steps=100"),
    *("callbacks.evaluation.every_env_steps=200", "callbacks.evaluation.episodes=480"),
    *("task.max_episode_steps=10",),
)
#: SLURM, torchelastic, LSF and MPI, each of another rank and with more than one process.
CLUSTER = dict(
    word.split("=")
    for word in [
        "SLURM_JOB_ID=7",
        "SLURM_JOB_NAME=train",
        "SLURM_NTASKS=2",
        "SLURM_NODEID=1",
        "SLURM_PROCID=3",
        "SLURM_LOCALID=1",
        "TORCHELASTIC_RUN_ID=x",
        "RANK=5",
        "LOCAL_RANK=1",
        "GROUP_RANK=1",
        "NODE_RANK=1",
        "WORLD_SIZE=8",
        "MASTER_ADDR=nowhere",
        "MASTER_PORT=1",
        "LSB_JOBID=1",
        "LSB_DJOB_RANKFILE=/x",
        "JSM_NAMESPACE_SIZE=4",
        "JSM_NAMESPACE_LOCAL_RANK=1",
        "JSM_NAMESPACE_RANK=2",
        "OMPI_COMM_WORLD_RANK=2",
        "KUBERNETES_PORT=tcp://nowhere",
    ]
)


class Victim:
    """A real `src/train.py` in a session of its own, under a scheduler's variables."""

    def __init__(self, folder: Path, *args: str) -> None:
        self._log = folder / "log"
        command = folder / "srun"  # Lightning advises it where it is installed
        command.write_text("#!/bin/sh\n")
        command.chmod(0o755)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "src/train.py", *args],
                cwd=ROOT,
                env={**os.environ, **CLUSTER, "PATH": path},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def evaluating(self, env_steps: int, run_dir: Path) -> list[int]:
        """Wait until it plays that evaluation; its workers, those of the evaluation last."""
        unevaluated = run_dir / "checkpoints" / f"step_{env_steps:09d}_0"
        deadline = time.monotonic() + 60.0
        while not unevaluated.exists() or len(found := self.workers()) < 2:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)  # within the 120 waves
        return found

    def workers(self) -> list[int]:
        """Process ids of its simulator workers that have loaded MuJoCo, oldest first."""
        found = []
        for pid in simulators(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if "libmujoco" in Path(f"/proc/{pid}/maps").read_text():
                    found.append(pid)
        return found

    def end(self) -> tuple[int, str]:
        """Wait for its end: exit code, what it printed."""
        return self._process.wait(timeout=60.0), self._log.read_text()


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as stream:
        return [int(row["env_steps"]) for row in csv.DictReader(stream)]


def evaluations(run_dir):
    path = run_dir / "evaluation.json"
    entries = json.loads(path.read_text()) if path.exists() else []
    return [entry["env_steps"] for entry in entries]


def checkpoints(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_evaluation_killed_or_stopped_is_made_up_for_exactly(compose_run, tmp_path):
    from run_hash import run_hash

    args = ("debug=default", *SETTINGS)
    start(compose_run("state_reach", *args, f"run_dir={tmp_path / 'whole'}"))
    run_dir = tmp_path / "run"

    victim = Victim(tmp_path, "experiment=state_reach", *args, f"run_dir={run_dir}")
    os.kill(victim.evaluating(200, run_dir)[-1], signal.SIGKILL)
    code, text = victim.end()
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    assert code == 1, text
    assert len(errors) == 1
    assert "was killed by SIGKILL" in errors[0]
    assert f"resume={run_dir}" in errors[0]
    assert "srun" not in text
    assert "Traceback" not in text
    assert (rows(run_dir), evaluations(run_dir)) == ([100], [])
    assert checkpoints(run_dir) == ["step_000000000", "step_000000200_0"]

    # Makes up for the evaluation at 200, learns on, and is stopped in the last one.
    victim = Victim(tmp_path, f"resume={run_dir}")
    workers = victim.evaluating(400, run_dir)
    environment = Path(f"/proc/{workers[0]}/environ").read_bytes().split(b"\0")
    assert b"OMP_WAIT_POLICY=passive" in environment  # torch threads do not spin
    asked = time.monotonic()
    os.killpg(victim.pid, signal.SIGUSR1)
    code, text = victim.end()
    assert time.monotonic() - asked < 5.0
    assert code == 128 + signal.SIGUSR1, text
    assert "stopped by SIGUSR1 at 400 env steps" in text
    assert "srun" not in text
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert (rows(run_dir), evaluations(run_dir)) == ([100, 200, 300], [200])
    assert json.loads((run_dir / "summary.json").read_text())["status"] == "stopped"
    assert "step_000000400_0" in checkpoints(run_dir)
    assert "step_000000200" in checkpoints(run_dir)

    # Has all its steps: only the last evaluation is missing.
    assert resume(run_dir, {}, force=False)["status"] == "finished"
    assert (rows(run_dir), evaluations(run_dir)) == ([100, 200, 300, 400], [200, 400])
    assert run_hash(run_dir) == run_hash(tmp_path / "whole")
    assert checkpoints(run_dir) == checkpoints(tmp_path / "whole")
