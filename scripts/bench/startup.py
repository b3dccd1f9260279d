"""Seconds from the start of `python src/train.py` to its first gradient update.

    python scripts/bench/startup.py [--quick]

Rows: ``startup_state_s`` and ``startup_pixels_s``. Updates cannot begin before an episode has
finished, so `collect.learning_starts` is one episode of every environment: 400 env steps of
`state_push`, 200 of `pixel_push_nodrq`, which also renders them; they count. ``reference`` is what
the three frameworks' imports alone take, measured in the same turns.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from table import ROOT, SCRATCH, alternate, main, print_row, ratios, say

TARGET_S = 15.0
MODULE = "fetchlab.algos.off_policy"  # where `OffPolicy.learn` is
IMPORTS = "import hydra, lightning, torchrl"
SHORT = ("total_env_steps=2000", "trainer=cpu")
RUNS = {
    "startup_state_s": ("experiment=state_push", "collect.learning_starts=400"),
    "startup_pixels_s": ("experiment=pixel_push_nodrq", "collect.learning_starts=200"),
}
CHILD = "--child"


class FirstUpdate(importlib.abc.MetaPathFinder):
    """Lets `OffPolicy.learn` say when it is first called, and end the process.

    The module is patched as it is imported, so the command line runs in its own order.
    """

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Find `MODULE` and patch it once it has run; leave all else to the others."""
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None and spec.loader is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_patch(module: Any) -> None:
            execute(module)
            module.OffPolicy.learn = _say_when

        loader.exec_module = execute_and_patch
        return spec


def _say_when(*_: Any) -> None:
    os.write(1, f"\n{time.monotonic()}\n".encode())  # one clock for all processes of a machine
    os._exit(0)


def train(arguments: Sequence[str]) -> None:
    """Run ``src/train.py`` in this process until its first update."""
    sys.meta_path.insert(0, FirstUpdate())
    script = ROOT / "src" / "train.py"
    sys.argv = [str(script), *arguments]
    sys.path[0] = str(script.parent)
    runpy.run_path(str(script), run_name="__main__")


def seconds_to_update(overrides: Sequence[str]) -> float:
    """Start a training and wait for its first update."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        run_dir = Path(folder) / "run"
        began = time.monotonic()
        done = _python(__file__, CHILD, *overrides, *SHORT, f"run_dir={run_dir}")
    return float(done.strip().splitlines()[-1]) - began


def seconds_of_imports() -> float:
    """Start an interpreter that only imports the frameworks."""
    began = time.monotonic()
    _python("-c", IMPORTS)
    return time.monotonic() - began


def _python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout


def bench(quick: bool) -> None:
    """Print the rows."""
    repetitions = 1 if quick else 7
    say(f"imports: {IMPORTS}")
    if quick:
        seconds_of_imports()  # a whole turn to warm up would take too long
    measures = {name: partial(seconds_to_update, run) for name, run in RUNS.items()}
    measured = alternate(
        {**measures, "imports": seconds_of_imports}, repetitions, "s", warm_up=not quick
    )
    imports = measured["imports"]
    for name in RUNS:
        value = statistics.median(measured[name])
        ratio = statistics.median(ratios(measured[name], imports))
        print_row(name, value, statistics.median(imports), ratio, TARGET_S, value <= TARGET_S)


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        train(sys.argv[2:])
    else:
        main(__doc__, bench)
