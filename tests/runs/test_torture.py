"""The fault table against real short runs: the short version here, the long one in `test-full`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "torture.py"


#: Rows that no test of a part covers: what happens to whole runs and their processes.
WHOLE_RUNS = "2,3,5,9,11,14,15,17,19,22,32"


@pytest.mark.parametrize(
    ("options", "least"),
    [
        (["--short", "--rows", WHOLE_RUNS], 12),
        pytest.param(["--full", "--kills", "5"], 36, marks=pytest.mark.full),
    ],
)
def test_fault_table(options, least):
    done = subprocess.run([sys.executable, SCRIPT, *options], capture_output=True, text=True)
    rows = [line.rsplit(" | ", 1) for line in done.stdout.splitlines()[1:]]
    assert [text for text, verdict in rows if verdict not in ("pass", "not tried")] == []
    assert done.returncode == 0, done.stderr
    assert len(rows) >= least
