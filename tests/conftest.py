"""What whole-run tests share: composed configurations and short real runs."""

from __future__ import annotations

import pytest

from fetchlab.config import compose
from fetchlab.preflight.renderer import choose_gl_backend

choose_gl_backend()  # before any test imports mujoco


def pytest_collection_modifyitems(items):
    """The longest test first, so that parallel workers end together."""
    items.sort(key=lambda item: "test_torture" not in item.nodeid)


@pytest.fixture(scope="session")
def compose_run():
    return compose
