"""What whole-run tests share: composed configurations and short real runs."""

from __future__ import annotations

import os

import pytest

from fetchlab.config import compose
from fetchlab.preflight.renderer import choose_renderer

choose_renderer()  # before any test imports mujoco
# Tensors of a few numbers, and a process for each core: a second thread is only waited for.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """The longest tests first, so that parallel workers end together."""
    longest = ("test_torture", "[mypy]", "test_evaluation_faults")
    items.sort(key=lambda item: not any(name in item.nodeid for name in longest))


@pytest.fixture(scope="session")
def compose_run():
    return compose
