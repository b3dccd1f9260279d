"""The order of a round inside Lightning, pinned: collect, update, commit, evaluate, log, commit."""

from __future__ import annotations

import csv
import time

import pytest

from fetchlab.build import build_parts, build_trainer
from fetchlab.callbacks import find
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.config import typed
from fetchlab.run import resume, start


def small(compose_run, experiment, run_dir, *overrides):
    return compose_run(
        experiment,
        "debug=default",
        f"run_dir={run_dir}",
        "collect.n_envs=2",
        "collect.workers=1",
        "collect.learning_starts=100",
        "callbacks.evaluation.episodes=2",
        *overrides,
    )


def test_collect_update_checkpoint_happen_in_this_order(compose_run, tmp_path):
    cfg = small(
        compose_run,
        "state_push_fast",
        tmp_path / "run",
        "total_env_steps=204",
        "callbacks.evaluation.every_env_steps=102",
        "callbacks.log_every_env_steps=1000",
        "algo.utd_ratio=0.5",
    )
    events: list[str] = []
    parts = build_parts(typed(cfg), tmp_path / "run")
    trainer = build_trainer(typed(cfg), tmp_path / "run", {"config": cfg}, None)
    spy(parts.data.collector, "receive", events, lambda received: received > 0)
    spy(parts.data.collector, "send", events)
    spy(parts.data.replay, "sample", events)
    spy(parts.module, "update", events)
    spy(trainer, "save_checkpoint", events)
    spy(find(trainer, Evaluation), "_evaluate", events)
    try:
        trainer.fit(parts.module, datamodule=parts.data)
    finally:
        parts.env.close()

    warm = ["send"] + ["receive", "send"] * 50
    learning = ["receive", "send", "sample", "update"]
    boundary = ["receive", "save_checkpoint", "_evaluate", "save_checkpoint"]
    # 102 steps are 51 rounds of 2; updates start when 100 steps are stored, one per 2 env steps,
    # and the round that an evaluation settles gives its update to the next round.
    first_epoch = warm + boundary
    second_epoch = ["send", "sample", "update"] + learning * 50 + boundary
    assert events[0] == "save_checkpoint"
    assert events[1:] == fixed(first_epoch, second_epoch)
    assert parts.module.grad_updates == events.count("update")
    assert parts.data.env_steps == 204


def fixed(first_epoch: list[str], second_epoch: list[str]) -> list[str]:
    """The last warm round already learns: 100 steps are stored when round 51 begins."""
    first = list(first_epoch)
    last_send = len(first) - 1 - first[::-1].index("send")
    first[last_send + 1 : last_send + 1] = ["sample", "update"]
    return first + second_epoch


def spy(owner, name, events, when=lambda result: True):
    inner = getattr(owner, name)

    def wrapper(*args, **kwargs):
        at = len(events)
        result = inner(*args, **kwargs)
        if when(result):
            events.insert(at, name)
        return result

    object.__setattr__(owner, name, wrapper)


def test_a_resumed_run_reports_the_time_and_speed_of_all_its_processes(compose_run, tmp_path):
    first = start(small(compose_run, "state_push_fast", tmp_path / "run", "total_env_steps=400"))
    saved_s = read_payload(newest_valid(tmp_path / "run" / "checkpoints"))["wall_time_s"]
    began = time.monotonic()
    whole = resume(tmp_path / "run", {"total_env_steps": 440}, force=False)
    assert 0 < saved_s < first["wall_time_s"]
    assert saved_s < whole["wall_time_s"] < saved_s + time.monotonic() - began
    # The newest row's two rates have one clock: they count what this process did, and no more.
    *_, row = csv.DictReader((tmp_path / "run" / "metrics.csv").open())
    env_steps, updates = 40, whole["grad_updates"] - first["grad_updates"]
    env_rate, update_rate = (
        float(row[f"time/{name}_per_s"]) for name in ("env_steps", "grad_updates")
    )
    assert updates > 0
    assert env_rate * updates == pytest.approx(update_rate * env_steps)
    assert whole["env_steps_per_s"] == 440 / whole["wall_time_s"]
    assert whole["grad_updates_per_s"] == whole["grad_updates"] / whole["wall_time_s"]
