"""What the tests of the measurements share: the scripts' folder, and a few real frames."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))


@pytest.fixture(scope="session")
def pixel_push(compose_run):
    return compose_run("pixel_push")


@pytest.fixture(scope="session")
def moments(pixel_push):
    from measure.frames import collect

    return collect(pixel_push, 3)
