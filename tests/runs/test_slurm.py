"""A real SLURM of two nodes: a killed node and a requeued job change nothing of a sweep."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.full
@pytest.mark.skipif(not shutil.which("slurmctld"), reason="SLURM (slurm-wlm) is not installed")
@pytest.mark.skipif(os.geteuid() != 0, reason="a SLURM of its own needs root")
def test_a_sweep_on_two_nodes_outlives_one_of_them(tmp_path):
    done = subprocess.run(
        ["bash", ROOT / "scripts/slurm_check.sh", tmp_path],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count('"H"') == 4
    outputs = [path.read_text() for path in tmp_path.glob("cluster/*/output.log")]
    assert any(text.count("\nlength ") > 1 for text in outputs)  # one was started again
