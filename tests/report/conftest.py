"""Run folders that the tests of the report read."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def cells(compose_run):
    """Configurations of the study's cells A to D."""
    names = {"A": "nodrq", "B": "nodrq_noss", "C": "noss"}
    return {letter: compose_run(f"pixel_push_{name}") for letter, name in names.items()} | {
        "D": compose_run("pixel_push")
    }
