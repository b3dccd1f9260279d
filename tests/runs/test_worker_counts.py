"""How many processes and threads a run takes: known, checked and counted before it starts."""

from __future__ import annotations

import os

import pytest
import torch
from known_specs import PUSH

from fetchlab.build import build_module
from fetchlab.config import typed
from fetchlab.errors import ConfigError
from fetchlab.preflight.sizes import Memory, evaluation_workers, learner_threads
from fetchlab.run import start


@pytest.fixture
def cores(monkeypatch):
    """Sets how many cores this process may use."""

    def set_to(count):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(count)))

    return set_to


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ("collect.n_envs=8 collect.workers=8 callbacks.evaluation.n_envs=4", 4),
        ("collect.n_envs=8 collect.workers=8 callbacks.evaluation.n_envs=20", 8),
        ("collect.workers=3", 3),
        ("callbacks.evaluation.workers=2", 2),
        ("collect.workers=8 callbacks.evaluation.workers=1", 1),
        ("", 6),
        ("callbacks.evaluation.n_envs=5", 5),
    ],
)
def test_an_evaluation_takes_as_many_workers_as_training_where_they_fit(
    compose_run, cores, overrides, count
):
    cores(6)
    cfg = compose_run("state_push", *overrides.split())
    assert evaluation_workers(typed(cfg)) == count


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("n_envs=4 workers=8", r"workers=8: expected null, or from 1 to .*n_envs=4; null"),
        ("workers=0", r"workers=0: expected null or a positive whole number"),
        ("workers=1.5", r"workers=1.5: expected null or a positive whole number"),
        ("n_envs=0", r"n_envs=0: expected a positive whole number"),
        ("n_envs=2.5", r"n_envs=2.5: expected a positive whole number"),
    ],
)
def test_what_an_evaluation_cannot_have_is_refused_at_launch(
    compose_run, tmp_path, overrides, message
):
    given = [f"callbacks.evaluation.{one}" for one in overrides.split()]
    cfg = compose_run("state_push", "debug=default", f"run_dir={tmp_path / 'run'}", *given)
    with pytest.raises(ConfigError, match=f"callbacks.evaluation.{message}"):
        start(cfg)
    assert not (tmp_path / "run").exists()


def test_memory_counts_the_evaluations_workers_and_environments(compose_run):
    few, many = (
        compose_run(
            "state_push",
            "collect.workers=2",
            f"callbacks.evaluation.n_envs={n}",
            f"callbacks.evaluation.workers={workers}",
        )
        for n, workers in ((1, 1), (11, 4))
    )
    module = build_module(typed(few), PUSH)
    few_bytes, many_bytes = (Memory(typed(cfg), module, 8).total_bytes() for cfg in (few, many))
    assert many_bytes - few_bytes == 3 * 120_000_000 + 10 * 25_000_000


@pytest.mark.parametrize(
    ("overrides", "available", "threads"),
    [
        ("", 2, 1),  # all cores render
        ("", 4, 1),
        ("", 16, 12),  # 4 environments: 4 workers
        ("collect.workers=2", 16, 14),
        ("collect.n_envs=16 collect.workers=16", 8, 1),
        ("trainer.threads=3", 2, 3),
    ],
)
def test_threads_that_nobody_asked_for_are_the_cores_without_a_worker(
    compose_run, cores, monkeypatch, overrides, available, threads
):
    cores(available)
    cfg = compose_run("pixel_push_nodrq", *overrides.split())
    assert learner_threads(typed(cfg)) == threads
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert learner_threads(typed(cfg)) == (threads if "threads" in overrides else 1)
    on_cpu = compose_run("pixel_push_nodrq", *overrides.split(), "trainer.accelerator=cpu")
    assert learner_threads(typed(on_cpu)) == threads
