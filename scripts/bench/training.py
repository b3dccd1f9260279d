"""Our training, as the benchmarks need it: in turn with a reference, or without a Trainer."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from table import say_turn

from fetchlab.config import compose

#: Rounds of a run beyond the last block: the step in flight, and the one that ends the block.
SPARE_ROUNDS = 4
MEASURABLE_ROUNDS = 10


@dataclass
class Turns:
    """One whole training that hands over to a reference after every block of rounds.

    The clock runs from the first round that learns. At the end of a block the outstanding step is
    received, so that nothing of ours runs during the reference; logging points and checkpoints are
    part of a block, evaluations are left out of the run. The first turn warms up.

    Args:
        block_rounds: rounds of a block.
        repetitions: turns that count.
        reference: its own block; takes our module, returns what it measured.
        figure: what to make of the seconds of our block.
        unit: of both figures.
    """

    block_rounds: int
    repetitions: int
    reference: Callable[[Any], float]
    figure: Callable[[float], float]
    unit: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    _rounds: int = 0
    _began: float | None = None

    def run(self, experiment: str, run_dir: Path, *overrides: str) -> None:
        """Train for as long as the turns take; `ours` and `theirs` then have their figures."""
        from fetchlab.callbacks.evaluation import Evaluation
        from fetchlab.collect.datamodule import ReplayDataModule
        from fetchlab.run import start

        cfg = compose(experiment, *overrides)
        collect = cfg["collect"]
        rounds = self.block_rounds * (self.repetitions + 1) + SPARE_ROUNDS
        cfg["total_env_steps"] = collect["learning_starts"] + collect["n_envs"] * rounds
        cfg["run_dir"] = str(run_dir)
        inner = ReplayDataModule.round
        with (
            mock.patch.object(ReplayDataModule, "round", lambda data: self._round(inner, data)),
            mock.patch.object(Evaluation, "on_train_epoch_end", lambda *_: None),
        ):
            start(cfg)
        self.ours, self.theirs = self.ours[1:], self.theirs[1:]

    def _round(self, inner: Callable[[Any], Any], data: Any) -> Any:
        if data.collector.learning and len(self.ours) <= self.repetitions:
            if self._began is None:
                data.settle()
                self._began = time.perf_counter()
            elif self._rounds == self.block_rounds:
                self._turn(data)
            self._rounds += 1
        return inner(data)

    def _turn(self, data: Any) -> None:
        data.settle()
        assert self._began is not None
        self.ours.append(self.figure(time.perf_counter() - self._began))
        self.theirs.append(self.reference(data.collector.policy))
        figures = {"ours": self.ours[-1], "reference": self.theirs[-1]}
        say_turn(len(self.ours) - 1, self.repetitions, figures, self.unit)
        self._rounds, self._began = 0, time.perf_counter()


class Rates(NamedTuple):
    """Of a whole training."""

    env_steps_per_s: float
    updates_per_s: float


def training_rates(cfg: Mapping[str, Any], until: float = math.inf) -> Rates:
    """Rates of a whole training once it updates, its first fifth and its evaluations left out.

    Args:
        cfg: resolved, plain.
        until: `time.perf_counter` at which it is stopped as by a scheduler, if it still runs.

    Raises:
        RuntimeError: it ended before there was anything to measure.
    """
    from fetchlab.callbacks.evaluation import Evaluation
    from fetchlab.collect.datamodule import ReplayDataModule
    from fetchlab.run import start

    inner, seen, stopped = ReplayDataModule.round, [], False

    def timed(data: Any) -> Any:
        nonlocal stopped
        batch, now = inner(data), time.perf_counter()
        if data.collector.learning and len(data.replay):
            seen.append((now, data.env_steps, data.collector.policy.grad_updates))
        if now > until and not stopped:
            stopped = True
            os.kill(os.getpid(), signal.SIGTERM)
        return batch

    with (
        mock.patch.object(ReplayDataModule, "round", timed),
        mock.patch.object(Evaluation, "on_train_epoch_end", lambda *_: None),
    ):
        start(cfg)
    if len(seen) < MEASURABLE_ROUNDS:
        raise RuntimeError(f"it learned for {len(seen)} rounds: too few to measure")
    first, last = seen[len(seen) // 5], seen[-1]
    seconds, *counts = (b - a for a, b in zip(first, last, strict=True))
    return Rates(*(count / seconds for count in counts))


@contextlib.contextmanager
def torch_settings(threads: int, deterministic: bool, fill: bool = False) -> Iterator[None]:
    """Threads and determinism of one side of a comparison; the other side's come back.

    ``fill``: fresh memory, in deterministic mode; no run does.
    """
    import torch
    import torch.utils.deterministic

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])


def without_trainer(module: Any) -> Any:
    """Give a `SAC` its optimizers and its backward pass without Lightning, and return it."""
    optimizers = module.configure_optimizers()
    module.optimizers = lambda *_: optimizers
    module.manual_backward = lambda loss, **options: loss.backward(**options)
    return module


class Entries(dict[str, Any]):
    """A plain dict with the two methods of a TensorDict that learner and replay call."""

    def to(self, device: Any) -> Entries:
        """Itself: everything here is on the CPU."""
        return self


def threads_of(cfg: Mapping[str, Any]) -> int:
    """Torch threads of a run: the trainer's, or the cores that no worker uses."""
    from fetchlab.config import typed
    from fetchlab.preflight.sizes import learner_threads

    return learner_threads(typed(cfg))
