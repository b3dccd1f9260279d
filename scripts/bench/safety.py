"""What safety costs: checkpoints and finite checks, as a share of a run's time; a 1M checkpoint.

    python scripts/bench/safety.py [--quick]

Rows: ``safety_share`` trains the same short runs (`state_push`, its own checkpoint interval) with
and without checkpoints and finite checks, alternately in one process, and compares medians.
``checkpoint_1m_s`` and ``checkpoint_1m_bytes`` commit a pixel run of 1M transitions after one
evaluation interval's worth of rows became dirty; they allocate 23 GB of disk (``--quick``: 100k).
Progress goes to stderr, one JSON line per row to stdout.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

SHARE_TARGET, SECONDS_TARGET, BYTES_TARGET = 0.02, 5.0, 100e6
INTERVAL_STEPS = 10_000  # callbacks.evaluation.every_env_steps


def row(name: str, value: float, reference: float, ratio: float, target: float) -> None:
    """One line of the table; ``ok`` when the ratio does not exceed the target."""
    line = {"name": name, "value": value, "reference": reference, "ratio": ratio}
    print(json.dumps({**line, "target": target, "ok": ratio <= target}), flush=True)


def compose(run_dir: Path, steps: int) -> dict[str, Any]:
    """`state_push` of ``steps`` env steps without evaluations but with a checkpoint at its end."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

    overrides = [
        "experiment=state_push",
        f"total_env_steps={steps}",
        f"run_dir={run_dir}",
        "callbacks.evaluation.episodes=1",
        "callbacks.evaluation.n_envs=1",
        "callbacks.evaluation.workers=1",
    ]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        cfg = hydra_compose("train", overrides, return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return plain


@contextlib.contextmanager
def without_safety() -> Iterator[None]:
    """No checkpoint is committed and no loss or gradient is looked at."""
    from fetchlab.callbacks.checkpoints import Checkpoints
    from fetchlab.learn.sac_module import SACModule

    def step(self: Any, optimizer: Any, loss: Any, name: str, params: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        self.manual_backward(loss, inputs=params)
        optimizer.step()

    with (
        mock.patch.object(Checkpoints, "save", lambda self, trainer: None),
        mock.patch("fetchlab.callbacks.checkpoints.write_best", lambda *_: None),
        mock.patch.object(SACModule, "_step", step),
    ):
        yield


def seconds_of_training(steps: int) -> float:
    """Time of one run's fit, from its first round to its last checkpoint."""
    from fetchlab.run import start

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        return float(start(compose(Path(folder) / "run", steps))["wall_time_s"])


def safety_share(steps: int, repetitions: int) -> None:
    """Alternate with and without; the first pair warms up."""
    times: dict[str, list[float]] = {"with": [], "without": []}
    for repetition in range(repetitions + 1):
        for name in times:
            with without_safety() if name == "without" else contextlib.nullcontext():
                seconds = seconds_of_training(steps)
            print(f"{name:8s} safety: {seconds:.2f} s for {steps} env steps", file=sys.stderr)
            if repetition:
                times[name].append(seconds)
    safe, bare = statistics.median(times["with"]), statistics.median(times["without"])
    row("safety_share", safe, bare, safe / bare - 1, SHARE_TARGET)


def checkpoint_of(transitions: int) -> None:
    """Commit a full pixel replay's window, after `INTERVAL_STEPS` new rows."""
    from fetchlab.checkpoint.torch_io import write_payload
    from fetchlab.replay.layout import ReplaySize, RowSpec
    from fetchlab.replay.storage import EpisodeStorage

    n_envs, length = 4, 50
    with tempfile.TemporaryDirectory(dir=ROOT / "logs") as folder:
        size = ReplaySize(n_envs, length, transitions, 2 * transitions, 2 * INTERVAL_STEPS)
        storage = EpisodeStorage(
            Path(folder), RowSpec(25, 4, (3, 84, 84)), size, 4, torch.device("cpu"), 1
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
        print(f"checkpoint of {transitions:,}: {seconds:.2f} s, {used:,} bytes", file=sys.stderr)
    row("checkpoint_1m_s", seconds, SECONDS_TARGET, seconds / SECONDS_TARGET, 1.0)
    row("checkpoint_1m_bytes", used, BYTES_TARGET, used / BYTES_TARGET, 1.0)


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under 60 s")
    quick = parser.parse_args().quick
    checkpoint_of(100_000 if quick else 1_000_000)
    safety_share(*((3_000, 1) if quick else (10_000, 5)))


if __name__ == "__main__":
    main()
