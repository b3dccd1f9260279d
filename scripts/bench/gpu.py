"""One CUDA GPU: pixel updates, whole training, what graphs and determinism change.

    python scripts/bench/gpu.py [--quick] [--rehearse]

All rows run `pixel_push_nodrq_gpu`: rows ``gpu_updates_per_s`` (sampling on the device included),
``gpu_train_env_steps_per_s`` (evaluations left out), ``gpu_utilisation`` (a share, over the same
training), ``gpu_graphs_loss_difference`` (critic loss with CUDA graphs against without, largest
relative difference over `COMPARED_ROUNDS`), ``gpu_deterministic_cost`` (updates/s without over
with deterministic algorithms; for information). Without a CUDA device every row says so.
``--rehearse`` runs the same code at toy size on whatever device there is; its figures mean nothing.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from table import SCRATCH, alternate, main, missing_row, print_row, say
from training import compose, env_steps_per_s

EXPERIMENT = "pixel_push_nodrq_gpu"
DRQV2_UPDATES_PER_S = 24.0  # published, on a V100
STUDY_ENV_STEPS_PER_S = 37.0  # its best
COMPARED_ROUNDS = 10
TARGETS = {
    "gpu_updates_per_s": 600.0,
    "gpu_train_env_steps_per_s": 2000.0,
    "gpu_utilisation": 0.8,
    "gpu_graphs_loss_difference": 0.05,  # bfloat16 has 8 bits: 0.4 % an operation, and it adds up
    "gpu_deterministic_cost": None,
}
REHEARSAL = (
    "debug=default",
    "algo.batch_size=4",
    "algo.utd_ratio=0.5",
    "collect.n_envs=4",
    "obs.pixels.image_size=32",
)


@dataclass(frozen=True)
class Size:
    """How much to measure.

    Args:
        overrides: of the experiment.
        transitions: in the replay that updates are drawn from.
        rounds: of one measurement.
        train_steps: env steps of the whole training.
        repetitions: measurements that count.
    """

    overrides: tuple[str, ...]
    transitions: int
    rounds: int
    train_steps: int
    repetitions: int


def synchronize() -> None:
    """Wait for the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Learner:
    """A run's module on its device, with a replay full of random rows there.

    Args:
        folder: for the replay's files.
        size: how much.
        more: overrides beside the size's.
    """

    def __init__(self, folder: Path, size: Size, *more: str) -> None:
        import torch

        from fetchlab.build import build_parts
        from fetchlab.preflight.renderer import choose_renderer

        choose_renderer()
        length = f"total_env_steps={size.transitions}"
        cfg = compose(EXPERIMENT, *size.overrides, length, "replay.margin_env_steps=3200", *more)
        folder.mkdir()
        parts = build_parts(cfg, folder)
        parts.env.close()
        self.batch_size, self.replay = cfg["algo"]["batch_size"], parts.data.replay
        self.per_round = max(1, round(cfg["algo"]["utd_ratio"] * cfg["collect"]["n_envs"]))
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.module = parts.module.to(device)
        optimizers = self.module.configure_optimizers()
        self.module.optimizers = lambda *_: optimizers
        self.module.manual_backward = lambda loss, **options: loss.backward(**options)
        storage = self.replay._storage
        rng = np.random.default_rng(0)
        for array in storage.files.arrays.values():
            random = rng.integers(0, 256, array.nbytes, np.uint8)
            array[:] = (
                random.reshape(array.shape)
                if array.dtype == np.uint8 and array.ndim > 1
                else (random[: array.size].reshape(array.shape) > 255).astype(array.dtype)
            )
        storage.reader.push_all()
        layout = storage.layout
        longest = layout.max_episode_steps
        for episode in range(layout.window_steps // longest):
            for env in range(layout.n_envs):
                storage.window.append(env, episode * (longest + 1), longest, checksum=episode)

    def round(self) -> None:
        """Sample and run a round's updates."""
        batch = self.replay.draw(self.per_round * self.batch_size, env_steps=0)
        self.module.update(*batch.split(self.batch_size))

    def updates_per_s(self, rounds: int) -> float:
        """Rate over so many rounds."""
        synchronize()
        began = time.perf_counter()
        for _ in range(rounds):
            self.round()
        synchronize()
        self.module.raise_if_failed()
        return rounds * self.per_round / (time.perf_counter() - began)

    def losses(self, rounds: int) -> list[float]:
        """Mean critic loss of each of the next rounds."""
        return [self._loss() for _ in range(rounds)]

    def _loss(self) -> float:
        self.round()
        return self.module.pop_metrics()["train/critic_loss"]


def update_rows(size: Size, folder: Path) -> None:
    """Updates per second, and what deterministic algorithms cost of them."""
    import torch

    plain = Learner(folder / "plain", size)
    exact = Learner(folder / "exact", size, "trainer.deterministic=true")

    def deterministic() -> float:
        torch.use_deterministic_algorithms(True)
        try:
            return exact.updates_per_s(size.rounds)
        finally:
            torch.use_deterministic_algorithms(False)

    measured = alternate(
        {"default": lambda: plain.updates_per_s(size.rounds), "deterministic": deterministic},
        size.repetitions,
        "updates/s",
    )
    ours, slow = (statistics.median(values) for values in measured.values())
    at_least("gpu_updates_per_s", ours, DRQV2_UPDATES_PER_S)
    print_row("gpu_deterministic_cost", ours, slow, ours / slow, None, None)


def graphs_row(size: Size, folder: Path) -> None:
    """The same rounds with and without graphs, from the same weights and seeds."""
    graphs = Learner(folder / "graphs", size).losses(COMPARED_ROUNDS)
    eager = Learner(folder / "eager", size, "trainer.cuda_graphs=false").losses(COMPARED_ROUNDS)
    worst = max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(graphs, eager, strict=True))
    target = TARGETS["gpu_graphs_loss_difference"]
    print_row("gpu_graphs_loss_difference", worst, 0.0, worst, target, worst <= target)


class Utilisation(threading.Thread):
    """Reads the device's utilisation twice a second until told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.values: list[float] = []
        self.stop = threading.Event()

    def run(self) -> None:
        """Read."""
        import torch

        while not self.stop.wait(0.5):
            with contextlib.suppress(Exception):  # needs the driver's management library
                self.values.append(torch.cuda.utilization() / 100)


def training_rows(size: Size, folder: Path) -> None:
    """The whole of it: simulators, rendering, replay, updates, logs."""
    run_dir, length = folder / "training", f"total_env_steps={size.train_steps}"
    cfg = compose(EXPERIMENT, *size.overrides, length, f"run_dir={run_dir}")
    watch = Utilisation()
    watch.start()
    rate = env_steps_per_s(cfg)
    watch.stop.set()
    watch.join()
    at_least("gpu_train_env_steps_per_s", rate, STUDY_ENV_STEPS_PER_S)
    if watch.values:
        busy = statistics.mean(watch.values[len(watch.values) // 5 :])
        at_least("gpu_utilisation", busy, 1.0)
    else:
        missing_row("gpu_utilisation", TARGETS["gpu_utilisation"], "the driver does not tell")


def at_least(name: str, value: float, reference: float) -> None:
    """A row whose value has a least one."""
    target = TARGETS[name]
    ok = None if target is None else value >= target
    print_row(name, value, reference, value / reference, target, ok)


def bench(quick: bool, rehearse: bool) -> None:
    """Print the rows."""
    import torch

    if not (torch.cuda.is_available() or rehearse):
        for name, target in TARGETS.items():
            missing_row(name, target, "no CUDA device")
        return
    if rehearse:
        size = Size(REHEARSAL, 800, 3, 800, 1)
    else:
        size = Size((), 100_000, 125, 40_000 if quick else 200_000, 3 if quick else 7)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        update_rows(size, Path(folder))
        graphs_row(size, Path(folder))
        training_rows(size, Path(folder))
    say("done")


if __name__ == "__main__":
    main(__doc__, bench, rehearse="toy size, on a CPU too; the figures mean nothing")
