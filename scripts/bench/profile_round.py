"""Where a round of whole training goes: the main thread's milliseconds, part by part.

    python scripts/bench/profile_round.py [--quick]

Rows for information, of `state_push` once it updates, evaluations left out: ``round_wait_ms`` (for
the simulators), ``round_receive_ms`` (TorchRL's step, input statistics, storing), ``round_act_ms``
(policy, sending), ``round_sample_ms``, ``round_update_ms`` and ``round_rest_ms`` (Lightning's loop,
callbacks, logs). ``value`` is the mean over the rounds, ``reference`` the whole round's, ``ratio``
the part's share.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

from table import SCRATCH, main, print_row
from training import compose

EXPERIMENT = "state_push"
PARTS = ("wait", "receive", "act", "sample", "update")


class RoundClock:
    """Adds up each part's seconds; a round lasts from one to the next."""

    def __init__(self) -> None:
        self.rounds: list[dict[str, float]] = []
        self._parts = dict.fromkeys(PARTS, 0.0)
        self._began: float | None = None

    def part(self, name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        """``inner``, timed as a part; the wait lies inside of `receive` and is taken out of it."""

        @functools.wraps(inner)  # Lightning reads the signature of `training_step`
        def timed(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            result = inner(*args, **options)
            seconds = time.perf_counter() - began
            self._parts[name] += seconds
            if name == "wait":
                self._parts["receive"] -= seconds
            return result

        return timed

    def round(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        """``inner``, at whose start the last round ends; those without updates do not count."""

        def timed(data: Any) -> Any:
            now = time.perf_counter()
            if self._began is not None and self._parts["sample"] > 0:
                self.rounds.append({**self._parts, "whole": now - self._began})
            self._parts, self._began = dict.fromkeys(PARTS, 0.0), now
            return inner(data)

        return timed


def bench(quick: bool) -> None:
    """Print the rows."""
    from fetchlab.algos.sac import SAC
    from fetchlab.callbacks.evaluation import Evaluation
    from fetchlab.collect.collector import Collector
    from fetchlab.collect.datamodule import ReplayDataModule
    from fetchlab.envs.pool import WorkerPool
    from fetchlab.replay.replay import HindsightReplay
    from fetchlab.run import start

    clock = RoundClock()
    patches = {
        (Evaluation, "on_train_epoch_end"): lambda *_: None,
        (ReplayDataModule, "round"): clock.round(ReplayDataModule.round),
        (WorkerPool, "receive"): clock.part("wait", WorkerPool.receive),
        (Collector, "receive"): clock.part("receive", Collector.receive),
        (Collector, "send"): clock.part("act", Collector.send),
        (HindsightReplay, "draw"): clock.part("sample", HindsightReplay.draw),
        (SAC, "training_step"): clock.part("update", SAC.training_step),
    }
    steps = 4_000 if quick else 24_000
    with contextlib.ExitStack() as stack:
        for (owner, name), patched in patches.items():
            stack.enter_context(mock.patch.object(owner, name, patched))
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir=SCRATCH))
        start(compose(EXPERIMENT, f"total_env_steps={steps}", f"run_dir={folder}/run"))
    means = {
        name: 1000 * statistics.mean(one[name] for one in clock.rounds)
        for name in (*PARTS, "whole")
    }
    rest = means["whole"] - sum(means[name] for name in PARTS)
    for name, value in (*((name, means[name]) for name in PARTS), ("rest", rest)):
        print_row(f"round_{name}_ms", value, means["whole"], value / means["whole"], None, None)


if __name__ == "__main__":
    main(__doc__, bench)
