"""What other programs cost: a pixel training, idle and beside one busy process per core, in turn.

    python scripts/bench/contention.py [--quick]

Row: ``beside_busy_cores``, env steps/s of one whole training of `pixel_push_laptop_asymmetric` with
its default threads and workers, while a busy process per core runs and while none does, in turn
for `BLOCK_ROUNDS` rounds each. Of two processes that want a core each gets half of it; what is lost
beyond that is threads that wait for each other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from table import SCRATCH, main, ratio_row, say_turn
from training import SPARE_ROUNDS, compose

EXPERIMENT = "pixel_push_laptop_asymmetric"
BLOCK_ROUNDS, N_ENVS = 20, 8
TARGET = 0.35
NAMES = {"idle": False, "busy": True}
#: It ends with its parent, stopped or not.
BUSY = "import ctypes\nctypes.CDLL(None).prctl(1, 9)\nwhile True: pass"


class Alternation:
    """Stops and wakes the busy processes after every block of rounds that learn.

    Args:
        pids: the busy processes, stopped.
        pairs: of blocks, idle and busy; two more blocks before them warm up.
    """

    def __init__(self, pids: list[int], pairs: int) -> None:
        self._pids, self._blocks = pids, 2 * (pairs + 1)
        self.rates: dict[bool, list[float]] = {False: [], True: []}
        self._rounds, self._began = 0, 0.0

    @property
    def _done(self) -> int:
        return sum(map(len, self.rates.values()))

    def round(self, inner: Any, data: Any) -> Any:
        """Count a round; the first one comes before the clock."""
        if data.collector.learning and self._done < self._blocks:
            if self._rounds % BLOCK_ROUNDS == 0:
                self._turn(data)
            self._rounds += 1
        return inner(data)

    def _turn(self, data: Any) -> None:
        data.settle()
        now, busy = time.perf_counter(), self._done % 2 == 1
        if self._rounds:
            self.rates[busy].append(BLOCK_ROUNDS * N_ENVS / (now - self._began))
            if busy:
                figures = {name: self.rates[key][-1] for name, key in NAMES.items()}
                say_turn(len(self.rates[True]) - 1, self._blocks // 2 - 1, figures, "env steps/s")
        wake = self._done % 2 == 1
        for pid in self._pids:
            os.kill(pid, signal.SIGCONT if wake else signal.SIGSTOP)
        self._began = time.perf_counter()


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[list[int]]:
    """So many processes that want a core each, stopped for now."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        time.sleep(0.5)  # they have begun: a stop comes after their `prctl`
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def bench(quick: bool) -> None:
    """Print the row."""
    from fetchlab import entry

    entry.sleep_while_waiting()
    from fetchlab.callbacks.evaluation import Evaluation
    from fetchlab.collect.datamodule import ReplayDataModule
    from fetchlab.run import start

    pairs = 3 if quick else 10
    rounds = 2 * (pairs + 1) * BLOCK_ROUNDS + SPARE_ROUNDS
    inner = ReplayDataModule.round
    with (
        tempfile.TemporaryDirectory(dir=SCRATCH) as folder,
        busy_processes(len(os.sched_getaffinity(0))) as pids,
    ):
        cfg = compose(EXPERIMENT, f"run_dir={folder}/run", f"collect.n_envs={N_ENVS}")
        cfg["total_env_steps"] = cfg["collect"]["learning_starts"] + N_ENVS * rounds
        alternation = Alternation(pids, pairs)
        with (
            mock.patch.object(
                ReplayDataModule, "round", lambda data: alternation.round(inner, data)
            ),
            mock.patch.object(Evaluation, "on_train_epoch_end", lambda *_: None),
        ):
            start(cfg)
    idle, busy = (alternation.rates[key][1:] for key in NAMES.values())
    ratio_row("beside_busy_cores", busy, idle, at_least=TARGET)


if __name__ == "__main__":
    main(__doc__, bench)
