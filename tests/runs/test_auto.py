"""`resume=auto`: one call that starts, continues or returns, whatever the run's folder holds."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

import train as entry
from fetchlab import run as runs
from fetchlab.algos.sac import SAC
from fetchlab.errors import ConfigError, RunFailedError
from fetchlab.run import start, start_or_resume

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from run_hash import run_hash

D = ("debug=default", "trainer=cpu")
SHORT = (
    *(*D, "total_env_steps=60", "task.max_episode_steps=10"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=40"),
    *("callbacks.evaluation.every_env_steps=60", "callbacks.evaluation.episodes=2"),
)


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_call_starts_continues_and_returns(compose_run, tmp_path, monkeypatch, capsys):
    """A crashed start, a signal in mid-run, a lost newest checkpoint, and the end."""
    whole = start(compose_run("state_reach", *SHORT, f"run_dir={tmp_path / 'whole'}"))
    run_dir = tmp_path / "run"
    (run_dir / "replay").mkdir(parents=True)  # of a start that was killed
    (run_dir / "replay" / "state.bin").write_bytes(b"left over")
    (run_dir / ".lock").write_text("pid 12345 since 2026-01-02T03:04:05+00:00\n")
    (run_dir / "notes.txt").write_text("mine")
    cfg = compose_run("state_reach", *SHORT, f"run_dir={run_dir}")
    explore, calls = SAC.explore, []

    def interrupted(self, *given):
        calls.append(None)
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGUSR1)
        return explore(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(SAC, "explore", interrupted)
        stopped = start_or_resume(cfg, force=False)
    assert (stopped["status"], stopped["stop_reason"]) == ("stopped", "SIGUSR1")
    assert 40 < stopped["env_steps"] < 60
    newest = max((run_dir / "checkpoints").glob("step_*"))
    (newest / "checkpoint.pt").write_bytes(b"torn")
    # Milestones decide nothing: an experiment that has got some since goes on.
    more = ("callbacks.milestones_of=state_push", f"run_dir={run_dir}")
    finished = start_or_resume(compose_run("state_reach", *SHORT, *more), force=False)
    assert finished["success_rate"] == whole["success_rate"]
    assert run_hash(run_dir)["H"] == run_hash(tmp_path / "whole")["H"]
    assert (run_dir / "notes.txt").read_text() == "mine"
    before = tree(run_dir)
    capsys.readouterr()
    monkeypatch.setattr(runs, "build_parts", lambda *_: pytest.fail("built the run"))
    assert start_or_resume(cfg, force=False) == finished
    assert capsys.readouterr().out.startswith("finished at 60 env steps")
    assert {**tree(run_dir), run_dir / ".lock": b""} == {**before, run_dir / ".lock": b""}


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        ("seed=1", "seed: 0 -> 1"),
        ("algo.discount=0.5", "algo.discount: 0.95 -> 0.5"),
        ("trainer.precision=bfloat16", "trainer.precision: float32 -> bfloat16"),
        ("experiment=state_push", "experiment: state_reach -> state_push"),
    ],
)
def test_a_folder_of_another_configuration_is_refused_and_unchanged(
    compose_run, finished, other, difference
):
    experiment = other.partition("=")[2] if other.startswith("experiment") else "state_reach"
    more = () if other.startswith("experiment") else (other,)
    cfg = compose_run(experiment, *D, f"run_dir={finished}", *more)
    before = {path: data for path, data in tree(finished).items() if path.name != ".lock"}
    with pytest.raises(ConfigError, match="or with one of this configuration") as caught:
        start_or_resume(cfg, force=False)
    assert difference in str(caught.value) and "\n" not in str(caught.value)
    after = {path: data for path, data in tree(finished).items() if path.name != ".lock"}
    assert after == before


def test_what_a_callback_ended_is_left_alone(compose_run, copied, monkeypatch):
    summary = json.loads((copied / "summary.json").read_text())
    summary |= {"status": "stopped", "stop_reason": "callback EarlyStopping: enough"}
    (copied / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(runs, "build_parts", lambda *_: pytest.fail("built the run"))
    assert start_or_resume(compose_run("state_reach", *D, f"run_dir={copied}"), False) == summary


def test_it_never_starts_over_what_was_trained(compose_run, copied):
    cfg = compose_run("state_reach", *D, f"run_dir={copied}", "total_env_steps=804")
    for checkpoint in (copied / "checkpoints").glob("step_*"):
        (checkpoint / "checkpoint.pt").write_bytes(b"torn")
    before = tree(copied / "checkpoints")
    with pytest.raises(RunFailedError, match="no valid step checkpoint"):
        start_or_resume(cfg, force=False)
    assert tree(copied / "checkpoints") == before
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(ConfigError, match="expected a folder without a run"):
        start_or_resume(cfg, force=False)


def test_a_folder_that_depends_on_the_time_is_refused(compose_run):
    with pytest.raises(ConfigError, match="resume='auto': expected the run's folder; give run_dir"):
        start_or_resume(compose_run("state_reach", *D), force=False)


def test_the_command_line_reaches_it(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "fetchlab.run.start_or_resume", lambda *given: seen.append(given) or {"status": "finished"}
    )
    args = ["experiment=state_reach", "run_dir=R", "resume=auto", "force_resume=true"]
    monkeypatch.setattr(sys, "argv", ["train.py", *args])
    entry.main()
    ((cfg, force, scratch),) = seen
    assert (cfg["experiment"], cfg["run_dir"], force) == ("state_reach", "R", True)
    assert scratch is None
    assert not {"resume", "force_resume", "launcher", "paths"} & cfg.keys()
