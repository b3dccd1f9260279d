"""What safety costs: checkpoints and finite checks, as a share of a run's time; a 1M checkpoint.

    python scripts/bench/safety.py [--quick]

Rows: ``safety_share`` runs one training (`state_push`, its own checkpoint interval) in which the
finite checks are on and off in turn for `BLOCK_ROUNDS` rounds each, so that a machine whose speed
drifts drifts for both; the share is the median over neighbouring blocks, plus what one checkpoint
takes of the interval between two. ``checkpoint_1m_s`` and ``checkpoint_1m_bytes`` commit a pixel
run of 1M transitions after one evaluation interval's worth of rows became dirty; they allocate
23 GB of disk (``--quick``: 100k). Progress goes to stderr, one JSON line per row to stdout.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from table import SCRATCH, main, print_row, say
from training import compose

SHARE_TARGET, SECONDS_TARGET, BYTES_TARGET = 0.02, 5.0, 100e6
INTERVAL_STEPS = 10_000  # callbacks.evaluation.every_env_steps
BLOCK_ROUNDS, N_ENVS = 25, 8
SHORT_EVALUATIONS = tuple(
    f"callbacks.evaluation.{key}=1" for key in ("episodes", "n_envs", "workers")
)


class Alternation:
    """Switches the finite checks every `BLOCK_ROUNDS` rounds and keeps the time of each block."""

    def __init__(self) -> None:
        self.checked, self.blocks = True, {True: [], False: []}
        self.commits: list[float] = []
        self._rounds, self._began = 0, 0.0

    def step(self, inner: Any, steps: Any, name: str, loss: Any, held: Any) -> None:
        """Step the optimizers, without a look at loss and gradients while the checks are off."""
        if self.checked:
            inner(steps, name, loss, held)
            return
        optimizers = [steps._optimizers[owner] for owner in held]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        steps._backward(loss, inputs=[param for group in held.values() for param in group])
        for optimizer in optimizers:
            optimizer.step()

    def round(self, inner: Any, data: Any) -> Any:
        """Count rounds that learn; the first block warms up."""
        if data.collector.learning:
            if self._rounds % BLOCK_ROUNDS == 0:
                now = time.perf_counter()
                if self._rounds > BLOCK_ROUNDS:
                    self.blocks[self.checked].append(now - self._began)
                self._began, self.checked = now, not self.checked
            self._rounds += 1
        return inner(data)

    def save(self, inner: Any, checkpoints: Any, trainer: Any) -> None:
        """Time a commit, and leave it out of its block."""
        trainer.datamodule.settle()  # waiting for the simulators is no part of a commit
        began = time.perf_counter()
        inner(checkpoints, trainer)
        self.commits.append(time.perf_counter() - began)
        self._began += self.commits[-1]

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Put this between the run and the three places."""
        from fetchlab.algos.steps import CheckedSteps
        from fetchlab.callbacks.checkpoints import Checkpoints
        from fetchlab.collect.datamodule import ReplayDataModule

        with contextlib.ExitStack() as stack:
            for owner, name, wrapper in (
                (CheckedSteps, "__call__", self.step),
                (ReplayDataModule, "round", self.round),
                (Checkpoints, "save", self.save),
            ):
                inner = getattr(owner, name)

                def patch(*args: Any, inner: Any = inner, wrapper: Any = wrapper) -> Any:
                    return wrapper(inner, *args)

                stack.enter_context(mock.patch.object(owner, name, patch))
            yield


def safety_share(steps: int) -> None:
    """One run of ``steps`` env steps, a checkpoint at its start, end and every interval."""
    from fetchlab.run import start

    alternation = Alternation()
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder, alternation.patched():
        run_dir = Path(folder) / "run"
        sizes = (f"total_env_steps={steps}", f"run_dir={run_dir}")
        start(compose("state_push", *sizes, *SHORT_EVALUATIONS))
    pairs = list(zip(alternation.blocks[True], alternation.blocks[False], strict=False))
    share = statistics.median(on / off - 1 for on, off in pairs)
    block = statistics.median(off for _, off in pairs)
    interval = block * INTERVAL_STEPS / (BLOCK_ROUNDS * N_ENVS)
    commit = statistics.median(alternation.commits)
    say(
        f"finite checks {share:.2%} (median of {len(pairs)} pairs of blocks of {block:.2f} s), "
        f"a checkpoint {commit * 1000:.0f} ms every {interval:.0f} s: {commit / interval:.2%}"
    )
    whole = interval * (1 + share) + commit
    ratio = whole / interval - 1
    print_row("safety_share", whole, interval, ratio, SHARE_TARGET, ratio <= SHARE_TARGET)


def checkpoint_of(transitions: int) -> None:
    """Commit a full pixel replay's window, after `INTERVAL_STEPS` new rows."""
    from fetchlab.checkpoint.torch_io import write_payload
    from fetchlab.replay.layout import ReplaySize, RowSpec
    from fetchlab.replay.storage import EpisodeStorage

    n_envs, length = 4, 50
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        size = ReplaySize(n_envs, length, transitions, 2 * transitions, 2 * INTERVAL_STEPS)
        storage = EpisodeStorage(
            Path(folder), RowSpec(25, 3, 4, False, (3, 84, 84)), size, 4, torch.device("cpu"), 1
        )
        for episode in range(transitions // n_envs // length):
            for env in range(n_envs):
                storage.window.append(env, episode * (length + 1), length, checksum=episode)
        rows = storage.files.arrays["pixels"]
        rows[: INTERVAL_STEPS * (length + 1) // length] = np.random.randint(0, 256, rows.shape[1:])
        began = time.perf_counter()
        storage.flush()
        state = storage.state_dict()
        path = write_payload(Path(folder), "step_001000000", {"replay": state}, transitions)
        seconds = time.perf_counter() - began
        used = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        say(f"checkpoint of {transitions:,}: {seconds:.2f} s, {used:,} bytes")
    for name, value, limit in (
        ("checkpoint_1m_s", seconds, SECONDS_TARGET),
        ("checkpoint_1m_bytes", used, BYTES_TARGET),
    ):
        print_row(name, value, limit, value / limit, limit, value <= limit)


def bench(quick: bool) -> None:
    """Print the rows."""
    checkpoint_of(100_000 if quick else 1_000_000)
    safety_share(6_000 if quick else 30_000)


if __name__ == "__main__":
    main(__doc__, bench)
