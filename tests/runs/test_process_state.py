"""A run is its configuration's: nothing of its process before reaches it, and nothing stays."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest
import torch
from omegaconf import OmegaConf
from processes import simulators
from tiny_runs import play_run

from fetchlab.algos.sac import SAC
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.errors import ConfigError, NonFiniteError, RunFailedError
from fetchlab.run import resume, start, start_or_resume

ROOT = Path(__file__).parents[2]
SHORT = (
    *("debug=default", "trainer=cpu", "total_env_steps=120", "task.max_episode_steps=10"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=40"),
    *("callbacks.log_every_env_steps=60", "callbacks.evaluation.every_env_steps=60"),
    *("callbacks.evaluation.episodes=2", "replay.capacity=100", "replay.margin_env_steps=100"),
)


def metrics(run_dir):
    rows = csv.DictReader((run_dir / "metrics.csv").open())
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


def test_settings_of_one_run_do_not_reach_the_next(compose_run, tmp_path):
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    start(compose_run("state_reach", *SHORT, "total_env_steps=160", f"run_dir={first}"))
    other = ("trainer.deterministic=false", "trainer.threads=2", "trainer.tf32=true")
    start(compose_run("state_reach", *SHORT, *other, f"run_dir={second}"))
    used = read_payload(newest_valid(second / "checkpoints"))["record"]["fingerprint"]
    assert (used["threads"], used["deterministic"], used["tf32"]) == (2, False, False)
    torch.set_default_dtype(torch.float64)  # as a notebook's cell may have done
    start(compose_run("state_reach", *SHORT, f"run_dir={third}"))
    assert metrics(third) == metrics(first)[: len(metrics(third))]
    for run_dir in (second, third):
        resume(run_dir, {"total_env_steps": 160}, force=False)
    assert metrics(third) == metrics(first)


def test_the_summary_names_the_device_that_trained(compose_run, tmp_path, monkeypatch):
    inner = SAC.on_fit_end

    def moved_elsewhere(module):
        inner(module)
        module._device = torch.device("meta")  # as Lightning moves a module back to the CPU

    monkeypatch.setattr(SAC, "on_fit_end", moved_elsewhere)
    summary = start(compose_run("state_reach", *SHORT, f"run_dir={tmp_path / 'run'}"))
    assert summary["device"] == "cpu"
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


@pytest.mark.parametrize(
    ("place", "raised", "seen", "kept"),
    [
        ("collect.datamodule.ReplayDataModule.settle", NonFiniteError("bad"), RunFailedError, 0),
        ("collect.collector.Collector.start", KeyboardInterrupt(), KeyboardInterrupt, 0),
        # After the first evaluation, which has workers of its own.
        ("callbacks.checkpoints.write_best", OSError(5, "I/O error"), RunFailedError, 1),
    ],
)
def test_a_run_that_fails_leaves_no_handler_or_process_and_no_folder_without_a_checkpoint(
    compose_run, tmp_path, place, raised, seen, kept
):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before, processes = [signal.getsignal(number) for number in numbers], {*simulators(os.getpid())}
    cfg = compose_run("state_reach", *SHORT, f"run_dir={tmp_path / 'run'}")
    with mock.patch(f"fetchlab.{place}", side_effect=raised), pytest.raises(seen):
        start(cfg)
    assert [signal.getsignal(number) for number in numbers] == before
    assert {*simulators(os.getpid())} <= processes  # an earlier test's may be there
    assert len(list(tmp_path.iterdir())) == kept


def test_a_run_in_a_thread_with_paths_as_text_and_a_config_of_omegaconf(compose_run, tmp_path):
    run_dir, done = tmp_path / "run", []
    cfg = compose_run("state_reach", *SHORT)
    cfg["run_dir"] = run_dir  # a Path, as a caller has it

    def job():
        done.append(start(OmegaConf.create(cfg))["status"])
        done.append(resume(str(run_dir), {"total_env_steps": 160}, force=False)["status"])
        newest = str(newest_valid(run_dir / "checkpoints"))
        done.append(play_run(run_dir, 1, checkpoint=newest)["env_steps"])

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert done == ["finished", "finished", 160]


OUTER = """
import sys
from pathlib import Path
import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

@hydra.main(version_base="1.3", config_path=None)
def app(cfg):
    from fetchlab.config import compose
    from fetchlab.run import start
    before = GlobalHydra.instance().hydra, HydraConfig.get().job.name, Path.cwd()
    run_dir = cfg.folder
    summary = start(compose("state_reach", *cfg.overrides, f"run_dir={run_dir}"))
    assert before == (GlobalHydra.instance().hydra, HydraConfig.get().job.name, Path.cwd())
    print(summary["status"])

if __name__ == "__main__":
    app()
"""


def test_a_run_inside_another_hydra_application(tmp_path):
    (tmp_path / "outer.py").write_text(OUTER)
    done = subprocess.run(
        [
            *(sys.executable, "outer.py", "hydra.job.chdir=true"),
            *(f"+folder={tmp_path / 'run'}", f"+overrides={[*SHORT]}"),
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("finished\n")


@pytest.mark.parametrize("given", ["", "  "])
def test_an_empty_run_dir_is_not_the_working_folder(compose_run, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    cfg = compose_run("state_reach", *SHORT)
    with pytest.raises(ConfigError, match=r"run_dir=.*expected a folder, or null"):
        start({**cfg, "run_dir": given})
    assert list(tmp_path.iterdir()) == []


def test_what_a_forced_resume_changes_is_what_it_trains_with(compose_run, tmp_path):
    run = ("state_reach", *SHORT, f"run_dir={tmp_path / 'run'}")
    start(compose_run(*run, "logger=[csv]"))
    changes = ("total_env_steps=160", "algo.lr=0.002", "algo.entropy_coefficient=0.2")
    start_or_resume(compose_run(*run, *changes, "logger=[csv,tensorboard]"), force=True)
    newest = read_payload(newest_valid(tmp_path / "run/checkpoints"))
    groups = [group for one in newest["optimizer_states"] for group in one["param_groups"]]
    assert {group["lr"] for group in groups} == {0.002}
    assert newest["state_dict"]["log_alpha"].exp().item() == pytest.approx(0.2)
    assert list((tmp_path / "run/tensorboard").iterdir())
