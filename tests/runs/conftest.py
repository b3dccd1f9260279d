"""One finished run that the tests of entries and run folders look at and copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fetchlab.run import start

D = ("debug=default", "trainer=cpu")


@pytest.fixture(scope="session")
def finished(compose_run, tmp_path_factory) -> Path:
    """`experiment=state_reach debug=default`: 800 env steps. Not to be changed; see `copied`."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    start(compose_run("state_reach", *D, f"run_dir={run_dir}"))
    return run_dir


@pytest.fixture(scope="session")
def teacher(compose_run, tmp_path_factory) -> Path:
    """A short `experiment=vector_push`, of which a student can learn. Not to be changed."""
    run_dir = tmp_path_factory.mktemp("teacher") / "run"
    small = ("task.max_episode_steps=10", "total_env_steps=120", "collect.learning_starts=40")
    small += ("callbacks.evaluation.every_env_steps=80", "callbacks.evaluation.n_envs=1")
    start(compose_run("vector_push", *D, *small, f"run_dir={run_dir}"))
    return run_dir


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of `finished`, to be damaged or continued."""
    left_out = shutil.ignore_patterns("evaluations")  # which tests on `finished` may have added
    return Path(shutil.copytree(finished, tmp_path / "run", ignore=left_out))
