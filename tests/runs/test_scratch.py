"""The replay on another disk: found through the run's folder, carried along, or plainly lost."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from fetchlab import run
from fetchlab.algos.sac import SAC
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.errors import ConfigError
from fetchlab.run import resume, start, start_or_resume

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from run_hash import run_hash

SHORT = (
    *("debug=default", "trainer=cpu", "total_env_steps=80", "task.max_episode_steps=10"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=20"),
    *("callbacks.evaluation.every_env_steps=80", "callbacks.evaluation.episodes=2"),
)


def test_a_replay_on_scratch_is_carried_where_it_can_be_read_and_plainly_lost_where_not(
    compose_run, tmp_path, monkeypatch
):
    start(compose_run("state_reach", *SHORT, f"run_dir={tmp_path / 'whole'}"))
    run_dir, first, second = (tmp_path / name for name in ("run", "first", "second"))
    cfg = compose_run("state_reach", *SHORT, f"run_dir={run_dir}")
    monkeypatch.setenv("NODE_DISK", str(first))
    explore, calls = SAC.explore, []

    def interrupted(self, *given):
        calls.append(None)
        if len(calls) in (10, 20):
            os.kill(os.getpid(), signal.SIGTERM)
        return explore(self, *given)

    monkeypatch.setattr(SAC, "explore", interrupted)
    with pytest.raises(ConfigError, match=r"paths.scratch='\$NO_SUCH': expected a folder whose"):
        start_or_resume(cfg, False, "$NO_SUCH")
    assert start_or_resume(cfg, False, "$NODE_DISK")["status"] == "stopped"
    (rows,) = first.iterdir()
    assert (run_dir / "replay").readlink() == rows and (rows / "state.bin").exists()
    assert start_or_resume(cfg, False, str(second))["status"] == "stopped"
    assert list(first.iterdir()) == []
    second.rename(away := tmp_path / "away")  # another machine's disk
    for use in (lambda: start_or_resume(cfg, False), lambda: resume(run_dir, {}, False)):
        with pytest.raises(ConfigError, match="lies on another one's disk; go on where") as caught:
            use()
        assert "give force_resume=true" in str(caught.value) and "\n" not in str(caught.value)
    away.rename(second)
    assert start_or_resume(cfg, False)["status"] == "finished"
    assert run_hash(run_dir)["H"] == run_hash(tmp_path / "whole")["H"]
    second.rename(away)
    longer = {**cfg, "total_env_steps": 120}
    assert start_or_resume(longer, True, str(first))["status"] == "finished"
    payload = read_payload(newest_valid(run_dir / "checkpoints"))
    assert payload["record"]["forced"] == [f"replay: {second / rows.name} -> empty"]
    assert len(payload["ReplayDataModule"]["replay"]["_storage"]["episode_env"]) == 4
    even_longer = {**cfg, "total_env_steps": 140}  # from then on exactly, and not forced
    assert start_or_resume(even_longer, False, str(first))["status"] == "finished"


@pytest.mark.parametrize("kept", [(), ("theirs",)])
def test_a_start_that_fails_leaves_nothing_on_scratch(kept, compose_run, tmp_path, monkeypatch):
    scratch = tmp_path / "disk" / "scratch"
    for name in kept:
        (scratch / name).mkdir(parents=True)
    load, found = run._load_weights, []

    def seen(*given):
        found.extend(scratch.glob("run_*/state.bin"))
        load(*given)

    monkeypatch.setattr(run, "_load_weights", seen)
    cfg = compose_run("state_reach", *SHORT, f"run_dir={tmp_path / 'run'}", "ckpt_path=none")
    with pytest.raises(ConfigError, match="ckpt_path='none'"):
        start(cfg, str(scratch))
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["disk"] * len(kept)
    assert not kept or [path.name for path in scratch.iterdir()] == [*kept]
