"""What each choice of how to see costs or saves: updates per second of CPU time, one thread.

    python scripts/bench/choices.py [--quick]

Rows ``seeing_<choice>``: `SAC.learn` of `pixel_push_laptop_asymmetric` on a batch of 256
(``--quick``: 64) with one choice changed, against the experiment as it is, in turn in one process.
For information, so without targets. CPU time is what an update takes alone on its core, also where
other processes are on it; caches that they share move all sides alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from table import alternate, main, ratio_row, say
from training import compose
from update import our_update

EXPERIMENT = "pixel_push_laptop_asymmetric"
#: By its row's name: overrides, and whether fresh memory is filled, which is no choice of a run.
CHOICES = {
    "contiguous": (["trainer.channels_last=false"], False),
    "float32": (["trainer.precision=float32"], False),
    "compiled": (["trainer.compile=true"], False),
    "auxiliary_every_2": (["algo.auxiliary_every=2"], False),
    "one_encoder": (["algo.target_encoder=false"], False),
    "filled_memory": ([], True),
}
PERIOD = 2  # updates, of the longest of them


def bench(quick: bool) -> None:
    """Print the rows."""
    from fetchlab.preflight.numerics import reuse_memory

    reuse_memory()  # as every run does
    batch_size, repetitions = (64, 5) if quick else (256, 15)

    def side(overrides: list[str], fill: bool) -> Callable[[], float]:
        cfg = compose(EXPERIMENT, "trainer=cpu", "trainer.threads=1", *overrides)
        return our_update(cfg, batch_size, time.process_time, fill, PERIOD)

    sides = {"as it is": side([], False), **{name: side(*one) for name, one in CHOICES.items()}}
    say(f"batch of {batch_size}, 1 thread; the first turn compiles")
    seconds = alternate(sides, repetitions, "s")
    rates = {name: [1 / one for one in values] for name, values in seconds.items()}
    for name in CHOICES:
        ratio_row(f"seeing_{name}", rates[name], rates["as it is"])


if __name__ == "__main__":
    main(__doc__, bench)
