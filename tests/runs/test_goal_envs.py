"""Runs on environments that are no Fetch task, through the whole of the code."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import TWO_EVALUATIONS

from fetchlab.errors import ConfigError
from fetchlab.run import resume, start

sys.path.append(str(Path(__file__).parents[1] / "envs"))
TOY = (
    "task.env_id=toy_goal_env:Toy-v0",
    "trusted_modules=[toy_goal_env]",
    "task.reward_range=[-1,0]",
)


def arrays(run_dir):
    return set(json.loads((run_dir / "replay" / "layout.json").read_text())["arrays"])


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as file:
        table = list(csv.DictReader(file))
    return [{key: row[key] for key in row if not key.startswith("time/")} for row in table]


@pytest.mark.parametrize(("task", "stored"), [("ant_maze", True), ("hand_reach", False)])
def test_a_task_of_another_family_runs(compose_run, tmp_path, task, stored):
    summary = start(
        compose_run(
            "state_push_fast",
            *TWO_EVALUATIONS,
            "symmetry=none",  # of FetchPush: another task's is refused
            "algo.q_bounds=false",
            f"task={task}",
            "task.max_episode_steps=10",
            f"run_dir={tmp_path}",
        )
    )
    assert summary["status"] == "finished"
    assert summary["grad_updates"] >= 2
    assert ("achieved_goal" in arrays(tmp_path)) == stored


@pytest.mark.parametrize("flaw", ["ends", "unsaved"])
def test_a_users_own_environment_resumes(compose_run, tmp_path, capsys, flaw):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    own = (*TWO_EVALUATIONS, *TOY, f"+task.kwargs.flaw={flaw}")
    start(compose_run("state_push", *own, f"run_dir={whole}"))
    assert ("this environment cannot save its state" in capsys.readouterr().out) == (
        flaw == "unsaved"
    )
    start(compose_run("state_push", *own, "total_env_steps=28", f"run_dir={parts}"))
    more = {"total_env_steps": 56, "trusted_modules": ["toy_goal_env"]}
    summary = resume(parts, more, force=False)
    assert summary["status"] == "finished"
    assert (rows(parts) == rows(whole)) == (flaw == "ends")
    if flaw == "unsaved":  # at step 28 of 2 environments 4 of 10 steps were in progress: forgotten
        newest = max((parts / "checkpoints").glob("step_*")) / "checkpoint.pt"
        state = torch.load(newest, weights_only=True)["ReplayDataModule"]["replay"]["_storage"]
        assert state["episode_start"].tolist() == [0, 11] * 2


def test_a_module_that_only_a_run_folder_names_is_refused(compose_run, tmp_path):
    config = compose_run("state_push", *TWO_EVALUATIONS, *TOY, f"run_dir={tmp_path}")
    with pytest.raises(ConfigError, match=r"task.env_id='toy_goal_env:Toy-v0': expected a module"):
        start(config | {"trusted_modules": []})
