"""Rows about updates alone: speed, profile, captured against eager, determinism, variants."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_learner import REHEARSAL, Asked, Learner, filled_replay, numerics, synchronize
from table import alternate, say
from torch import nn
from torch.autograd import DeviceType
from torch.nn import functional
from torch.profiler import ProfilerActivity
from torch.profiler import profile as torch_profiler

DRQV2_UPDATES_PER_S = 24.0  # published, on a V100
UPDATES_TARGET = 600.0
COMPARED_ROUNDS = 10
LOSS_TARGET = 0.05  # bfloat16 has 8 bits: 0.4 % an operation, and it adds up
WEIGHTS_TARGET = 1e-5  # float32 and deterministic: the same kernels in the same order
TOY = (*REHEARSAL, "trainer.precision=float32", "trainer.deterministic=true")
TOP_KERNELS = 20


def learner(asked: Asked, folder: Path, *more: str) -> Learner:
    """The asked experiment's, with more overrides and a replay of its own."""
    cfg = asked.cfg(*more)
    return Learner(filled_replay(folder, cfg, asked.transitions), cfg)


# ------------------------------------------------------------------------------ captured and eager


def toy_row(asked: Asked, folder: Path) -> None:
    """Captured updates against eager ones from the same weights and seeds: their weights."""
    weights = []
    with numerics(deterministic=True):
        for graphs in ("true", "false"):
            cfg = asked.cfg(*TOY, f"trainer.cuda_graphs={graphs}")
            one = Learner(filled_replay(folder / graphs, cfg, 800), cfg)
            for _ in range(COMPARED_ROUNDS):
                one.round()
            one.module.raise_if_failed()
            weights.append({name: w.cpu() for name, w in one.module.state_dict().items()})
    captured, eager = weights
    worst = max(_difference(captured[name], eager[name]) for name in eager)
    details = {"rounds": COMPARED_ROUNDS, "updates_of_a_round": one.per_round}
    asked.row(
        "gpu_toy_weight_difference", worst, None, WEIGHTS_TARGET, worst <= WEIGHTS_TARGET, **details
    )


def _difference(a: Any, b: Any) -> float:
    """Largest difference of two tensors over the second one's largest entry."""
    return float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-12))


def graphs_row(asked: Asked, folder: Path) -> None:
    """The experiment's own rounds with and without graphs: their critic losses."""
    losses = []
    with numerics():
        for graphs in ("true", "false"):
            one = learner(asked, folder / graphs, f"trainer.cuda_graphs={graphs}")
            losses.append([_critic_loss(one) for _ in range(COMPARED_ROUNDS)])
    worst = max(abs(a - b) / max(abs(b), 1e-6) for a, b in zip(*losses, strict=True))
    asked.row("gpu_graphs_loss_difference", worst, None, LOSS_TARGET, worst <= LOSS_TARGET)


def _critic_loss(one: Learner) -> float:
    one.round()
    loss: float = one.module.pop_metrics()["train/critic_loss"]
    return loss


# -------------------------------------------------------------------------------------- its profile


def updates_rows(asked: Asked, folder: Path) -> None:
    """Updates per second with and without graphs, and where the device's time goes."""
    for name, graphs in (("gpu_updates_per_s", "true"), ("gpu_eager_updates_per_s", "false")):
        with numerics():
            one = learner(asked, folder / graphs, f"trainer.cuda_graphs={graphs}")
            one.warm_up()
            rates = [one.updates_per_s(asked.window_s) for _ in range(asked.repetitions)]
            rate, memory = statistics.median(rates), 0
            if torch.cuda.is_available():
                memory = torch.cuda.max_memory_allocated()
            target = UPDATES_TARGET if graphs == "true" else None
            details = {"updates_of_a_round": one.per_round, "device_bytes": memory}
            details |= profile(one)
        ok = None if target is None else rate >= target
        asked.row(name, rate, DRQV2_UPDATES_PER_S, target, ok, **details)


def profile(one: Learner) -> dict[str, Any]:
    """What a round's kernels (on a CPU: operators) take of an update, the longest first."""
    cuda = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with torch_profiler(activities=activities) as watch:
        one.round()
        synchronize()
    events = watch.key_averages()
    say(events.table(sort_by=f"self_{'cuda' if cuda else 'cpu'}_time_total", row_limit=40))
    if cuda:
        spent = [
            (e.key, e.self_device_time_total, e.count)
            for e in events
            if e.device_type != DeviceType.CPU and not e.is_user_annotation
        ]
    else:
        spent = [(e.key, e.self_cpu_time_total, e.count) for e in events]
    spent.sort(key=lambda kernel: -kernel[1])
    ms = 1e-3 / one.per_round  # of microseconds of a round
    return {
        "kernel_ms_per_update": round(sum(us for _, us, _ in spent) * ms, 4),
        "kernels_per_update": round(sum(count for *_, count in spent) / one.per_round),
        "top_kernels_ms": [[name[:100], round(us * ms, 4)] for name, us, _ in spent[:TOP_KERNELS]],
    }


# ---------------------------------------------------------------------------- determinism, variants


def determinism_row(asked: Asked, folder: Path) -> None:
    """Updates per second without over with deterministic algorithms."""
    with numerics(deterministic=True):
        exact = learner(asked, folder / "exact", "trainer.deterministic=true")
        exact.warm_up()
    with numerics():
        plain = learner(asked, folder / "plain")
        plain.warm_up()

    def deterministic() -> float:
        with numerics(deterministic=True):
            return exact.updates_per_s(asked.window_s)

    default = partial(plain.updates_per_s, asked.window_s)
    sides = {"default": default, "deterministic": deterministic}
    measured = alternate(sides, asked.repetitions, "updates/s")
    ours, slow = (statistics.median(values) for values in measured.values())
    asked.row("gpu_deterministic_cost", ours, slow)


@dataclass(frozen=True)
class Variant:
    """A way to run the same update.

    Args:
        name: of its row.
        overrides: of the experiment.
        settings: of `numerics`.
        wrap: makes another network of the encoder's convolutions; None: as they are.
        takes_s: seconds that it may take, with which it is begun.
    """

    name: str
    overrides: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    wrap: Callable[[Any], Any] | None = None
    takes_s: float = 10.0


class PaddedTo16(nn.Module):
    """The same convolutions of 16 channels, the added ones zero: tensor cores take eights."""

    def __init__(self, cnn: Any) -> None:
        super().__init__()
        narrow = cnn[0]
        sizes = (narrow.kernel_size, narrow.stride, narrow.padding)
        wide = nn.Conv2d(16, narrow.out_channels, *sizes)
        self.added = 16 - narrow.in_channels
        with torch.no_grad():
            wide.weight.copy_(functional.pad(narrow.weight, (0, 0, 0, 0, 0, self.added)))
            wide.bias.copy_(narrow.bias)
        wide.requires_grad_(narrow.weight.requires_grad)
        cnn[0] = wide.to(memory_format=torch.channels_last)
        self.cnn = cnn

    def forward(self, pixels: Any) -> Any:
        """Maps of pixels (B, C, H, W) with up to 16 channels."""
        return self.cnn(functional.pad(pixels, (0, 0, 0, 0, 0, self.added)))


#: The slowest to prepare last: a deadline takes those.
VARIANTS = (
    Variant("cudnn.benchmark", settings=("benchmark",)),
    Variant("channels_last=false", ("trainer.channels_last=false",)),
    Variant("padded to 16 channels", wrap=PaddedTo16),
    Variant("padded, cudnn.benchmark", settings=("benchmark",), wrap=PaddedTo16),
    Variant("float32", ("trainer.precision=float32",)),
    Variant("float32, tf32", ("trainer.precision=float32",), ("tf32",)),
    Variant(
        "float32, tf32, cudnn.benchmark", ("trainer.precision=float32",), ("tf32", "benchmark")
    ),
    Variant("torch.compile", ("trainer.compile=true",), takes_s=40.0),
    Variant(
        "torch.compile, cudnn.benchmark", ("trainer.compile=true",), ("benchmark",), takes_s=40.0
    ),
)


def variants_rows(asked: Asked, folder: Path) -> None:
    """Updates per second of each variant and, in turn with it, of the update as it is."""
    with numerics():
        plain = learner(asked, folder / "plain")
        plain.warm_up()
    for variant in VARIANTS:
        details = {"variant": variant.name}
        if asked.seconds_left() < variant.takes_s:
            asked.missing("gpu_variant", None, "no time left", **details)
            continue
        try:
            theirs, ours = against(asked, plain, variant)
        except Exception as error:  # what a host cannot do is a result too
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            asked.missing("gpu_variant", None, reason, **details)
        else:
            asked.row("gpu_variant", theirs, ours, **details)


def against(asked: Asked, plain: Learner, variant: Variant) -> tuple[float, float]:
    """Updates per second of a variant and, in turn with it, of the update as it is."""
    other = prepared(asked, plain.replay, variant)
    sides = {variant.name: other.updates_per_s, "plain": plain.updates_per_s}
    measures = {name: partial(rate, asked.window_s) for name, rate in sides.items()}
    measured = alternate(measures, asked.repetitions, "updates/s", warm_up=False)
    theirs, ours = (statistics.median(values) for values in measured.values())
    return theirs, ours


def prepared(asked: Asked, replay: Any, variant: Variant) -> Learner:
    """A variant's learner after its first updates, which use its settings and record its graphs."""
    with numerics(**dict.fromkeys(variant.settings, True)):
        one = Learner(replay, asked.cfg(*variant.overrides), variant.wrap)
        one.warm_up()
    return one
