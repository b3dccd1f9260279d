"""A large block that was freed is there again without the kernel's help."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
if sys.argv[1] == "reuse":
    from fetchlab.preflight.numerics import reuse_memory
    assert reuse_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    before = faults()
    torch.zeros(64_000_000, dtype=torch.uint8).add_(1)
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_used_again():
    faults, path = {}, {"PYTHONPATH": os.pathsep.join(sys.path)}
    for mode in ("reuse", "default"):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, mode],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **path, "MALLOC_MMAP_THRESHOLD_": "33554432"},
        )
        faults[mode] = int(done.stdout)
    assert faults["default"] > 10_000  # 64 MB in pages of 4 kB
    assert faults["reuse"] < 100
