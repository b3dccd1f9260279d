"""One pixel update on the CPU: against its bare convolutions and other memory formats, seconds.

    python scripts/bench/update.py [--quick]

Row ``pixel_update``: `SAC.learn` with the networks of `pixel_push_nodrq` on a batch of 256
(``--quick``: 64) against PyTorch's bare convolutions: the same four layers, one pass forward and
backward and two forward, on all cores and nothing else. The bare stack is tried with contiguous and
with channels-last memory in every turn; the better of the two is the reference.

Row ``pixel_update_vs_contiguous``: the same update against itself with contiguous float32
convolutions (``trainer.channels_last=false trainer.precision=float32``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from table import alternate, main, ratio_row, say
from training import compose, threads_of, torch_settings, without_trainer

EXPERIMENT = "pixel_push_nodrq"
TARGET, CONTIGUOUS_TARGET = 1.3, 0.6
CONTIGUOUS = ("trainer.channels_last=false", "trainer.precision=float32")
STRIDES = (2, 1, 1, 2)  # of `ManipulationCNN`, written down again: the reference imports nothing
NO_GRAD_PASSES = 2  # next observation, by the online and the target encoder


def our_update(
    cfg: Mapping[str, Any],
    batch_size: int,
    clock: Callable[[], float] = time.perf_counter,
    fill: bool = False,
    updates: int = 1,
) -> Callable[[], float]:
    """Seconds of one update, the mean of several on the same random batch."""
    from fetchlab.build import build_module
    from fetchlab.config import typed

    layout = layout_of(cfg)
    module = without_trainer(build_module(typed(cfg), layout))
    batch = random_batch(cfg, batch_size, layout.state_dim)

    def seconds() -> float:
        with torch_settings(threads_of(cfg), cfg["trainer"]["deterministic"], fill):
            began = clock()
            for _ in range(updates):
                module.learn(batch)
            return (clock() - began) / updates

    return seconds


def bare_convolutions(
    cfg: Mapping[str, Any], batch_size: int, memory_format: Any
) -> Callable[[], float]:
    """Seconds of the convolutions of one update."""
    import torch
    from torch import nn

    channels, filters = 3 * cfg["obs"]["frame_stack"], cfg["encoder"]["filters"]
    size = cfg["obs"]["pixels"]["image_size"]
    layers: list[nn.Module] = []
    for stride in STRIDES:
        layers += [nn.Conv2d(channels, filters, 3, stride, padding=1), nn.ReLU(inplace=True)]
        channels = filters
    stack = nn.Sequential(*layers).to(memory_format=memory_format)
    pixels = torch.rand(batch_size, 3 * cfg["obs"]["frame_stack"], size, size)
    pixels = pixels.to(memory_format=memory_format)
    gradient = torch.ones_like(stack(pixels))

    def seconds() -> float:
        with torch_settings(threads_of(cfg), deterministic=False):
            stack.zero_grad(set_to_none=True)
            began = time.perf_counter()
            stack(pixels).backward(gradient)
            with torch.no_grad():
                for _ in range(NO_GRAD_PASSES):
                    stack(pixels)
            return time.perf_counter() - began

    return seconds


def layout_of(cfg: Mapping[str, Any]) -> Any:
    """Where the entries lie in the task's state, from one environment without a camera."""
    from fetchlab.build import task_spec
    from fetchlab.config import typed
    from fetchlab.envs.fetch import FetchEnv

    env = FetchEnv(task_spec(typed(cfg), render=False))
    env.close()
    return env.env_spec


def random_batch(cfg: Mapping[str, Any], n: int, state_dim: int) -> Any:
    """A batch [n] as the replay gives it, of random numbers."""
    import torch
    from tensordict import TensorDict

    rng = torch.Generator().manual_seed(0)
    size, frames = cfg["obs"]["pixels"]["image_size"], cfg["obs"]["frame_stack"] + 1
    following = {
        "state": torch.randn(n, state_dim, generator=rng),
        "reward": -torch.ones(n),
        "terminated": torch.zeros(n, dtype=torch.bool),
    }
    entries = {
        "state": torch.randn(n, state_dim, generator=rng),
        "desired_goal": torch.randn(n, 3, generator=rng),
        "action": torch.rand(n, 4, generator=rng) * 2 - 1,
        "pixels": torch.randint(
            0, 256, (n, frames, 3, size, size), dtype=torch.uint8, generator=rng
        ),
    }
    return TensorDict({**entries, "next": TensorDict(following, [n])}, [n])


def bench(quick: bool) -> None:
    """Print the rows."""
    import torch

    from fetchlab.preflight.numerics import reuse_memory

    reuse_memory()  # as every run does; the reference gains too
    cfg = compose(EXPERIMENT)
    batch_size, repetitions = (64, 3) if quick else (cfg["algo"]["batch_size"], 7)
    say(f"batch of {batch_size}, {threads_of(cfg)} threads")
    formats = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}
    bare = partial(bare_convolutions, cfg, batch_size)
    measured = alternate(
        {
            "ours": our_update(cfg, batch_size),
            "contiguous": our_update(compose(EXPERIMENT, *CONTIGUOUS), batch_size),
            **{f"bare, {name}": bare(layout) for name, layout in formats.items()},
        },
        repetitions,
        "s",
    )
    best = min(formats, key=lambda name: statistics.median(measured[f"bare, {name}"]))
    say(f"reference: {best} memory")
    ratio_row("pixel_update", measured["ours"], measured[f"bare, {best}"], at_most=TARGET)
    ours, contiguous = measured["ours"], measured["contiguous"]
    ratio_row("pixel_update_vs_contiguous", ours, contiguous, at_most=CONTIGUOUS_TARGET)


if __name__ == "__main__":
    main(__doc__, bench)
