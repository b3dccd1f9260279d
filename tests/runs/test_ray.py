"""A real Ray cluster of two raylets: a killed one changes nothing of a sweep."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.full
@pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="Ray is not installed")
def test_a_sweep_on_two_raylets_outlives_one_of_them(tmp_path):
    done = subprocess.run(
        ["bash", ROOT / "scripts/ray_check.sh", tmp_path],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"H"') == 3
    assert "\nlost " in done.stdout and "3 runs in" in done.stdout
    outputs = [path.read_text() for path in tmp_path.glob("cluster/*/output.log")]
    assert any(text.count("\nlength ") > 1 for text in outputs)  # one was started again
