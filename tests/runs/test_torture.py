"""The fault table against real short runs: the short version here, the long one in `test-full`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture.py"


@pytest.mark.parametrize(
    "options", [["--short"], pytest.param(["--full", "--kills", "5"], marks=pytest.mark.full)]
)
def test_fault_table(options):
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)
    rows = [line.rsplit(" | ", 1) for line in done.stdout.splitlines()[1:]]
    assert [text for text, verdict in rows if verdict not in ("pass", "not tried")] == []
    assert done.returncode == 0, done.stderr
    assert len(rows) >= 15
