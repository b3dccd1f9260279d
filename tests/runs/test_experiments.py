"""Every experiment file runs: composed, built, two epochs of the real thing in seconds."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from known_specs import PUSH
from tiny_runs import TWO_EVALUATIONS

from fetchlab import config
from fetchlab.build import build_module, build_parts
from fetchlab.config import typed
from fetchlab.errors import ConfigError
from fetchlab.run import resume, start

CONFIGS = Path(__file__).parents[2] / "configs"
FILES_BY_NAME = {file.stem: file for file in sorted((CONFIGS / "experiment").glob("*.yaml"))}
FILES = ("config.yaml", "evaluation.json", "metrics.csv", "summary.json")
FOLDERS = ("checkpoints", "replay", "tensorboard")
TAUGHT = ("pixel_push_laptop_student",)


def experiments():
    """All by name; whole runs of those that others build upon are long: theirs cover them."""
    defaults = [
        yaml.safe_load(file.read_text()).get("defaults", []) for file in FILES_BY_NAME.values()
    ]
    parents = {one for listed in defaults for one in listed if isinstance(one, str)}
    for name in FILES_BY_NAME:
        yield pytest.param(name, marks=[pytest.mark.full] if name in parents else [])


def run(compose_run, experiment, run_dir, *overrides):
    return start(compose_run(experiment, *TWO_EVALUATIONS, f"run_dir={run_dir}", *overrides))


@pytest.mark.parametrize(
    ("experiment", "changes"),
    [
        ("pixel_push_laptop_critic", {"obs.pixels.camera.azimuth": 240.0}),
        ("pixel_push_laptop", {"task.env_id": "FetchPickAndPlace-v4"}),
    ],
)
def test_a_policy_plays_where_its_symmetry_would_not_fit(compose_run, experiment, changes):
    cfg, spec = compose_run(experiment), replace(PUSH, symmetries=("mirror_y", "mirrors"))
    with pytest.raises(ConfigError, match="symmetry"):
        build_module(typed(config.changed(cfg, changes)), spec)
    build_module(typed(config.changed(config.to_play(cfg), changes)), spec)


@pytest.mark.parametrize("experiment", experiments())
def test_experiment_runs(compose_run, teacher, tmp_path, capsys, experiment):
    run_dir = tmp_path / "run"
    given = (f"teacher={teacher}",) if experiment in TAUGHT else ()
    summary = run(compose_run, experiment, run_dir, *given)
    assert summary["status"] == "finished"
    assert summary["experiment"] == experiment
    assert summary["env_steps"] == 56
    assert summary["grad_updates"] >= 2
    watch = f"; watch it: python src/evaluate.py run={run_dir} video=true"
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert re.search(r"^success \d+% of 2 .* after 56 env steps \(\d+% after 28\) in ", last_line)
    assert last_line.endswith(watch)
    assert 0.0 <= summary["success_rate"] <= summary["best_success_rate"] <= 1.0
    for name in FILES:
        assert (run_dir / name).stat().st_size > 0
    for name in FOLDERS:
        assert any((run_dir / name).iterdir())
    assert json.loads((run_dir / "summary.json").read_text()) == summary
    steps = [line.split(",")[0] for line in (run_dir / "metrics.csv").read_text().splitlines()]
    assert steps == ["env_steps", "20", "28", "40", "56"]
    assert len(json.loads((run_dir / "evaluation.json").read_text())) == 2
    cfg = yaml.safe_load((run_dir / "config.yaml").read_text())
    if (moved := encoder_moved(cfg, run_dir)) is not None:
        assert moved


def encoder_moved(cfg, run_dir):
    """Whether the newest checkpoint's encoder differs from the seed's; None without an encoder."""
    prefix = "agent.encoder."
    newest = max((run_dir / "checkpoints").glob("step_*"))
    trained = torch.load(newest / "checkpoint.pt", weights_only=True)["state_dict"]
    initial = build_module(typed(cfg), PUSH).state_dict() if "pixel" in cfg["experiment"] else {}
    keys = [key for key in initial if key.startswith(prefix)]
    return any(not torch.equal(initial[k], trained[k]) for k in keys) if keys else None


@pytest.mark.parametrize("experiment", FILES_BY_NAME)
def test_experiment_file_is_a_small_difference_and_builds(compose_run, experiment):
    assert len(FILES_BY_NAME[experiment].read_text().splitlines()) <= 25
    cfg = compose_run(experiment, *TWO_EVALUATIONS)
    if experiment in TAUGHT:
        cfg["teacher"] = compose_run("vector_push", *TWO_EVALUATIONS)
    build_module(config.check(cfg), PUSH)


def test_pixel_replay_takes_an_eighth_of_two_stacks(compose_run, tmp_path):
    whole_episodes = ("task.max_episode_steps=50", "replay.capacity=200", "total_env_steps=204")
    parts = build_parts(
        config.check(compose_run("pixel_push_nodrq", *TWO_EVALUATIONS, *whole_episodes)), tmp_path
    )
    parts.env.close()
    assert parts.data.replay.storage.layout.bytes_per_transition() <= 22_500


def test_a_resumed_run_equals_an_uninterrupted_one(compose_run, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    # Everything that has a state of its own, or depends on how far the run is.
    more = ("algo.her_k={from: 8, to: 1, over_env_steps: 50}", "feature_norm=running")
    more += ("augment=random_shift_shared", "algo.ensemble=3", "algo.target_subset=2")
    more += ("algo.n_step=2", "auxiliary=[goal_prediction]", "routing=joint")
    run(compose_run, "pixel_push", whole, *more)
    run(compose_run, "pixel_push", parts, "total_env_steps=28", *more)
    resume(parts, {"total_env_steps": 56}, force=False)
    assert metrics(parts) == metrics(whole)
    assert (parts / "evaluation.json").read_text() == (whole / "evaluation.json").read_text()


@pytest.mark.full
def test_a_resumed_run_equals_an_uninterrupted_one_with_a_compiled_encoder(compose_run, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = ("trainer.compile=true", "algo.target_encoder=false", "algo.auxiliary_every=2")
    run(compose_run, "pixel_push_laptop_asymmetric", whole, *more)
    run(compose_run, "pixel_push_laptop_asymmetric", parts, "total_env_steps=28", *more)
    with pytest.raises(ConfigError, match="compiler: "):
        resume(parts, {"total_env_steps": 56, "trainer.compile": False}, force=False)
    resume(parts, {"total_env_steps": 56}, force=False)
    assert metrics(parts) == metrics(whole)
    assert (parts / "evaluation.json").read_text() == (whole / "evaluation.json").read_text()


def metrics(run_dir):
    lines = [line.split(",") for line in (run_dir / "metrics.csv").read_text().splitlines()]
    keep = [index for index, name in enumerate(lines[0]) if not name.startswith("time/")]
    return [[line[index] for index in keep] for line in lines]


def test_a_new_run_can_start_from_stored_weights(compose_run, finished, tmp_path):
    best = next((finished / "checkpoints").glob("best_*"))
    summary = run(compose_run, "state_reach", tmp_path / "run", f"ckpt_path={best}")
    assert summary["status"] == "finished"
