"""What a run holds in memory and on the device, against sums by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from known_specs import PUSH

from fetchlab.build import build_module, replay_size, row_spec
from fetchlab.config import typed
from fetchlab.errors import ConfigError
from fetchlab.preflight import sizes
from fetchlab.replay.layout import plan_layout

#: 256 blocks of 5 frames of 84 x 84, and what 256 images leave for the backward pass.
BATCH, ACTIVATIONS = 256 * 5 * 3 * 84 * 84, 256 * 450 * 84 * 84
assert (BATCH, ACTIVATIONS) == (27_095_040, 812_851_200)


@pytest.fixture
def cuda(monkeypatch):
    """Pretend that a CUDA device has so much free memory."""

    def pretend(free):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (free, 2 * free))

    return pretend


def run(compose_run, *overrides):
    cfg = compose_run("pixel_push_nodrq_gpu", "collect.workers=1", *overrides)
    module = build_module(typed(cfg), PUSH)
    parameters = sum(p.numel() for p in module.parameters()) * 4
    return typed(cfg), sizes.Memory(typed(cfg), module, at_once=8), parameters


def held_by_processes(n_envs, rendered_side=84):
    """The learner, a worker of training and one of evaluation, and as many environments in each."""
    an_env = 45_000_000 + 70 * rendered_side**2
    return 600_000_000 + 2 * (195_000_000 + n_envs * an_env)


@pytest.mark.parametrize(
    ("n_envs", "utd_ratio", "updates"), [(4, 0.25, 1), (12, 0.25, 3), (32, 0.25, 8), (64, 4.0, 8)]
)
def test_memory_holds_one_piece_of_a_rounds_batches(compose_run, n_envs, utd_ratio, updates):
    overrides = (f"collect.n_envs={n_envs}", f"algo.utd_ratio={utd_ratio}")
    _, memory, parameters = run(compose_run, *overrides, "trainer.cuda_graphs=false")
    processes = held_by_processes(n_envs) + 5 * parameters
    assert memory.total_bytes() == processes + updates * BATCH + ACTIVATIONS
    # The path of CUDA graphs has a static copy of each batch, on a CPU too.
    _, memory, _ = run(compose_run, *overrides)
    assert memory.total_bytes() == processes + 2 * updates * BATCH + ACTIVATIONS


def test_pictures_that_are_averaged_take_memory_where_they_are_rendered(compose_run):
    small = ("obs.pixels.image_size=32", "trainer.cuda_graphs=false", "algo.utd_ratio=0.25")
    totals = [
        run(compose_run, *small, f"obs.pixels.supersample={k}")[1].total_bytes() for k in (1, 4)
    ]
    assert totals[1] - totals[0] == held_by_processes(32, 128) - held_by_processes(32, 32)


def test_pictures_take_memory_by_their_quality(compose_run):
    sharp = run(compose_run, "obs.pixels.quality=reference")[1].total_bytes()
    assert sharp - run(compose_run)[1].total_bytes() == 2 * 32 * 70_000_000


def test_memory_without_pictures(compose_run):
    cfg = typed(compose_run("state_push", "collect.workers=1", "collect.n_envs=8"))
    module = build_module(cfg, PUSH)
    memory = sizes.Memory(cfg, module, at_once=8).total_bytes()
    evaluated = cfg.callbacks.evaluation.n_envs
    # 600 MB, 2 workers of 120 MB, environments of 25 MB, batches of 1 kB a transition
    processes = 600_000_000 + 2 * 120_000_000 + (8 + evaluated) * 25_000_000
    parameters = sum(p.nbytes for p in module.parameters())
    updates = min(8, -(-8 * cfg.algo.utd_ratio // 1))
    assert memory == processes + 5 * parameters + 1_000 * cfg.algo.batch_size * updates


@pytest.mark.parametrize(("replay", "here"), [("cuda", 0), ("cpu", 8 * BATCH)])
def test_memory_of_a_run_on_cuda_holds_what_is_drawn_here(compose_run, cuda, replay, here):
    cuda(80 << 30)
    _, memory, parameters = run(compose_run, f"replay.device={replay}")
    processes = held_by_processes(32) + 5 * parameters
    assert memory.total_bytes() == processes + here


@pytest.mark.parametrize(
    ("overrides", "replay", "working"),
    [
        # 8 updates a round: blocks, static batches, one graph's memory.
        ((), True, 16 * BATCH + ACTIVATIONS),
        # 10 and 11 updates a round: pieces of 8, 2 and 3, a graph for each.
        (("algo.utd_ratio=0.328125",), True, 16 * BATCH + 3 * ACTIVATIONS),
        # Updates of four kinds: a graph for each.
        (
            ("auxiliary=[goal_prediction]", "algo.auxiliary_every=4"),
            True,
            16 * BATCH + 4 * ACTIVATIONS,
        ),
        (("trainer.cuda_graphs=false",), True, 8 * BATCH + ACTIVATIONS),
        (("replay.device=cpu",), False, 16 * BATCH + ACTIVATIONS),
    ],
)
def test_a_device_must_hold_replay_batches_and_updates(
    compose_run, cuda, tmp_path, monkeypatch, overrides, replay, working
):
    monkeypatch.setattr(sizes, "check_budget", lambda *_: None)
    cfg, memory, parameters = run(compose_run, "replay.capacity=100000", *overrides)
    plan = plan_layout(row_spec(cfg, PUSH), replay_size(cfg))
    needed = working + 5 * parameters + (plan.disk_bytes() if replay else 0)
    per_transition = plan.bytes_per_transition()
    fits = partial(sizes.check_fits, cfg, tmp_path, plan.disk_bytes(), per_transition, memory)
    cuda(-(-needed * 10 // 9) + 10)
    fits()
    cuda(needed * 10 // 9 - 10)
    with pytest.raises(ConfigError, match="on that device") as error:
        fits()
    assert f"this run has {needed:,} there" in str(error.value)
    assert ("replay.capacity=99999" in str(error.value)) == replay
