"""What whole-run tests share: composed configurations and short real runs."""

from __future__ import annotations

import pytest

from fetchlab.config import compose
from fetchlab.preflight.renderer import choose_renderer

choose_renderer()  # before any test imports mujoco


def pytest_collection_modifyitems(items):
    """The longest tests first, so that parallel workers end together."""
    longest = ("test_torture", "[mypy]", "test_evaluation_faults")
    items.sort(key=lambda item: not any(name in item.nodeid for name in longest))


@pytest.fixture(scope="session")
def compose_run():
    return compose
