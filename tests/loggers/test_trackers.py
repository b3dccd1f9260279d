"""Weights & Biases and MLflow with their real packages, offline: one id over a resume."""

from __future__ import annotations

import sqlite3
import sys

import pytest

from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.errors import ConfigError
from fetchlab.run import resume, start

SHORT = (
    *("debug=default", "trainer=cpu", "total_env_steps=120", "task.max_episode_steps=10"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=40"),
    *("callbacks.log_every_env_steps=60", "callbacks.evaluation.every_env_steps=60"),
    *("callbacks.evaluation.episodes=2", "replay.capacity=100", "replay.margin_env_steps=100"),
)


def logged(run_dir):
    return read_payload(newest_valid(run_dir / "checkpoints"))["loggers"]


def test_wandb_offline_keeps_its_id_over_a_resume_and_the_next_run_has_its_own(
    compose_run, tmp_path, monkeypatch
):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    given = ("logger=[csv,wandb]", "logger.wandb.offline=true")
    ids = []
    for name in ("one", "two"):
        start(compose_run("state_reach", *SHORT, *given, f"run_dir={tmp_path / name}"))
        assert wandb.run is None
        ids.append(logged(tmp_path / name)["wandb"]["version"])
    assert ids[0] != ids[1]
    resume(tmp_path / "one", {"total_env_steps": 180}, force=False)
    assert logged(tmp_path / "one")["wandb"] == {"version": ids[0]}
    folders = sorted((tmp_path / "one" / "wandb").glob("offline-run-*"))
    assert [folder.name.rpartition("-")[2] for folder in folders] == [ids[0]] * 2


def test_mlflow_keeps_its_id_over_a_resume_and_has_the_metrics_by_env_steps(compose_run, tmp_path):
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    run_dir, database = tmp_path / "run", tmp_path / "mlflow.db"
    given = ("logger=[csv,mlflow]", f"logger.mlflow.tracking_uri=sqlite:///{database}")
    start(compose_run("state_reach", *SHORT, *given, f"run_dir={run_dir}"))
    before = logged(run_dir)["mlflow"]
    resume(run_dir, {"total_env_steps": 180}, force=False)
    assert logged(run_dir)["mlflow"] == before
    with sqlite3.connect(database) as table:
        assert table.execute("select run_uuid, status from runs").fetchall() == [
            (before["version"], "FINISHED")
        ]
        wanted = "select step from metrics where key = 'eval/success_rate' order by step"
        assert table.execute(wanted).fetchall() == [(60,), (120,), (180,)]
        wanted = "select value from params where key = 'algo/batch_size'"
        assert table.execute(wanted).fetchall() == [("8",)]


def test_a_tracker_that_is_not_installed_is_one_line(compose_run, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    cfg = compose_run("state_reach", *SHORT, "logger=[wandb]", f"run_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=r"logger='wandb': expected .*pip install") as caught:
        start(cfg)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
