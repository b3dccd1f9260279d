"""Lightning's own callbacks, and a user's, in real short runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from fetchlab.callbacks.log_points import LogPoints
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.errors import ConfigError
from fetchlab.run import resume, start

SHORT = (
    *("debug=default", "trainer=cpu", "total_env_steps=400", "task.max_episode_steps=10"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=40"),
    *("callbacks.log_every_env_steps=60", "callbacks.evaluation.every_env_steps=60"),
    *("callbacks.evaluation.episodes=2", "replay.capacity=400", "replay.margin_env_steps=100"),
)
EARLY, MONITOR = "EarlyStopping{'monitor': 'eval/success_rate', 'mode': 'max'}", "eval/success_rate"


class Mine(pl.Callback):
    """Logs in both of Lightning's ways, and looks at what Lightning counts."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def on_train_epoch_end(self, trainer, pl_module):
        pl_module.log("mine/epoch", float(trainer.datamodule.env_steps))
        self.seen.append((trainer.global_step, 2 * pl_module.grad_updates))

    def on_validation_end(self, trainer, pl_module):
        steps = trainer.datamodule.env_steps
        trainer.logger.log_metrics({"mine/evaluation": trainer.callback_metrics[MONITOR]}, steps)

    def on_train_end(self, trainer, pl_module):
        if trainer.datamodule.done:
            assert self.seen
            assert all(counted == steps for counted, steps in self.seen)


def rows(run_dir):
    with (run_dir / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def patience(run_dir):
    return read_payload(newest_valid(run_dir / "checkpoints"))["callbacks"][EARLY]["wait_count"]


@pytest.mark.parametrize("at_epoch_end", ["null", "true"])
def test_early_stopping_stops_with_a_checkpoint_and_resumes_exactly(
    compose_run, tmp_path, at_epoch_end
):
    """Nothing succeeds in 10 steps: the first evaluation is the best, two in turn are no better."""
    given = (
        *SHORT,
        "callbacks/extra=[early_stopping]",
        "callbacks.extra.early_stopping.patience=2",
        f"+callbacks.extra.early_stopping.check_on_train_epoch_end={at_epoch_end}",
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    summary = start(compose_run("state_reach", *given, f"run_dir={whole}"))
    assert (summary["status"], summary["env_steps"]) == ("stopped", 180)
    assert summary["stop_reason"].startswith("callback EarlyStopping: Monitored metric eval/")
    assert patience(whole) == 2
    # In two processes it stops at the same place.
    start(compose_run("state_reach", *given, "total_env_steps=120", f"run_dir={cut}"))
    assert patience(cut) == 1
    stopped = resume(cut, {"total_env_steps": 400}, force=False)
    assert (stopped["status"], stopped["env_steps"]) == ("stopped", 180)
    assert patience(cut) == 2
    assert json.loads((cut / "evaluation.json").read_text()) == json.loads(
        (whole / "evaluation.json").read_text()
    )


def test_a_stop_inside_the_first_epoch_is_no_check(compose_run, tmp_path):
    short = "callbacks.disk_watch.min_free_bytes=1_000_000_000_000_000_000"
    more = (short, "callbacks/extra=[early_stopping]", f"run_dir={tmp_path / 'run'}")
    checked = "+callbacks.extra.early_stopping.check_on_train_epoch_end=true"
    summary = start(compose_run("state_reach", *SHORT, *more, checked))
    assert summary["stop_reason"].startswith("short disk space")
    assert 0 < summary["env_steps"] < 60
    assert patience(tmp_path / "run") == 0


def test_a_users_callback_logs_new_names_beside_a_model_checkpoint(
    compose_run, tmp_path, monkeypatch
):
    run_dir, written = tmp_path / "run", []
    inner = LogPoints.write
    monkeypatch.setattr(LogPoints, "write", lambda *given: (written.append(1), inner(*given)))
    cfg = compose_run(
        *("state_reach", *SHORT, "total_env_steps=180", f"run_dir={run_dir}"),
        "callbacks/extra=[model_checkpoint]",
        f"+callbacks.extra.mine={{_target_: {__name__}.Mine}}",
        f"trusted_modules=[{__name__}]",
    )
    assert start(cfg)["status"] == "finished"
    found = rows(run_dir)
    assert [row["env_steps"] for row in found] == ["60", "120", "180"]
    assert [row["mine/epoch"] for row in found] == ["60.0", "120.0", "180.0"]
    assert [row["mine/evaluation"] for row in found] == [row[MONITOR] for row in found]
    assert len(written) == len(found)  # nothing is logged every round
    (kept,) = (run_dir / "checkpoints").glob("*.ckpt")
    weights = torch.load(kept, weights_only=True)["state_dict"]
    whole = read_payload(newest_valid(run_dir / "checkpoints"))["state_dict"]
    assert weights.keys() == whole.keys()
    with pytest.raises(ConfigError, match="trusted_modules"):
        resume(run_dir, {"total_env_steps": 240}, force=False)
    more = {"total_env_steps": 240, "trusted_modules": [__name__]}
    assert resume(run_dir, more, force=False)["status"] == "finished"
    assert [row["mine/epoch"] for row in rows(run_dir)] == ["60.0", "120.0", "180.0", "240.0"]


@pytest.mark.parametrize(
    "name", ["disk_watch", "phases", "milestones", "progress", "time_estimate"]
)
def test_what_a_run_can_do_without_may_be_null(compose_run, name):
    from fetchlab import build, config

    run = config.check(compose_run("state_reach", f"callbacks.{name}=null"))
    assert len(build._callbacks(run.callbacks)) == 8


def test_a_run_without_an_evaluation_says_so(compose_run, tmp_path):
    other = {"_target_": "fetchlab.callbacks.stopping.Stopping"}
    cfg = compose_run("state_reach", *SHORT, f"run_dir={tmp_path / 'run'}")
    cfg["callbacks"]["log_points"] = other
    with pytest.raises(ConfigError, match="expected a LogPoints among them"):
        start(cfg)
    assert not Path(tmp_path / "run").exists()


def test_what_a_stock_callback_refuses_is_one_line():
    from fetchlab import build

    node = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": MONITOR}
    with pytest.raises(ConfigError, match=r"EarlyStopping=.*'mode': 'foo'.*`mode` can be") as said:
        build.swap_in({**node, "mode": "foo"})
    assert "\n" not in str(said.value)
