"""How many processes and threads a run takes: known, checked and counted before it starts."""

from __future__ import annotations

import os
from functools import cache

import pytest
import torch
from known_specs import PUSH

from fetchlab import config
from fetchlab.build import build_module
from fetchlab.config import typed
from fetchlab.errors import ConfigError
from fetchlab.preflight.sizes import (
    Memory,
    collecting_workers,
    evaluation_workers,
    learner_threads,
)
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
    ("overrides", "available", "on_cpu", "beside_a_gpu"),
    [
        ("", 1, (1, 1), (1, 1)),  # more than there are: one of each is the least
        ("", 2, (1, 1), (1, 1)),
        ("", 4, (3, 1), (1, 3)),
        ("", 16, (12, 4), (1, 4)),
        ("collect.n_envs=3", 16, (13, 3), (1, 3)),
        ("collect.n_envs=64", 16, (12, 4), (1, 15)),
        ("collect.workers=2", 16, (14, 2), (1, 2)),
        ("collect.n_envs=16 collect.workers=16", 8, (1, 16), (1, 16)),
        ("trainer.threads=3", 2, (3, 1), (3, 1)),
        ("trainer.threads=3", 6, (3, 3), (3, 3)),
        ("trainer.threads=1 collect.n_envs=64", 16, (1, 15), (1, 15)),
        ("trainer.threads=2 collect.workers=2", 2, (2, 2), (2, 2)),
    ],
)
def test_what_nobody_asked_for_are_the_cores_that_the_other_leaves(
    compose_run, cores, monkeypatch, overrides, available, on_cpu, beside_a_gpu
):
    cores(available)
    run = typed(compose_run("pixel_push_nodrq", *overrides.split()))
    assert (learner_threads(run), collecting_workers(run)) == on_cpu
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert (learner_threads(run), collecting_workers(run)) == beside_a_gpu
    cpu = typed(compose_run("pixel_push_nodrq", *overrides.split(), "trainer.accelerator=cpu"))
    assert (learner_threads(cpu), collecting_workers(cpu)) == on_cpu


@pytest.mark.parametrize("available", [2, 3, 4, 16, 64])
def test_no_experiment_takes_more_processes_and_threads_than_cores(
    compose_run, cores, monkeypatch, available
):
    cores(available)
    for cuda in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        for name, run in every_experiment(compose_run).items():
            threads, workers = learner_threads(run), collecting_workers(run)
            assert threads + workers <= available, name
            # The number that sums depend on moves with the cores only where its file says null.
            assert threads == (run.trainer.threads or threads), name


@cache
def every_experiment(compose_run):
    return {name: typed(compose_run(name)) for name in config.names("experiment")}
