"""How much a run stores and holds, and whether that fits, before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fetchlab.algos.off_policy import OffPolicy
from fetchlab.algos.steps import AT_ONCE
from fetchlab.config import typed
from fetchlab.entries import EnvSpec
from fetchlab.errors import require
from fetchlab.preflight.budget import (
    COPIES_OF_PARAMETERS,
    check_budget,
    largest_capacity,
    run_memory_bytes,
)
from fetchlab.replay.layout import Layout, ReplaySize, RowSpec, plan_layout

CHECKPOINT_BYTES = 200_000_000  # two checkpoints, the best weights and the logs, generously
DEVICE_MEMORY_SHARE = 0.9  # of what is free there; the rest is for libraries and the allocator
#: What a forward pass keeps for its backward pass, per pixel of the image: IMPALA's encoder, the
#: largest one here; ManipulationCNN keeps 250.
ACTIVATION_BYTES_PER_PIXEL = 450


def worker_count(asked: int | None, n_envs: int, keep_core: bool = False) -> int:
    """Worker processes: what was asked, or one per core and at most one per environment.

    Args:
        asked: ``collect.workers``.
        n_envs: environments, N.
        keep_core: leave one core to the learner. Where the learner is what a round waits for, a
            worker that the kernel puts on its core makes every round longer by its own time.
    """
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0))
    return min(n_envs, max(1, cores - 1) if keep_core else cores)


def collecting_workers(cfg: Mapping[str, Any]) -> int:
    """Worker processes beside the learner: all cores render, physics alone leaves it one."""
    collect = cfg["collect"]
    return worker_count(
        collect["workers"], collect["n_envs"], keep_core=not typed(cfg).obs.sees_pixels
    )


def evaluation_workers(cfg: Mapping[str, Any]) -> int:
    """Worker processes of the evaluation: what was asked, or as in ``collect``, where that fits.

    Raises:
        ConfigError: more workers than environments.
    """
    key, evaluation = "callbacks.evaluation", cfg["callbacks"]["evaluation"]
    n_envs, asked = evaluation["n_envs"], evaluation["workers"]
    require(
        asked is None or asked <= n_envs,
        f"{key}.workers",
        asked,
        f"null, or from 1 to {key}.n_envs={n_envs}",
        "null takes as many as fit",
    )
    return asked or min(n_envs, worker_count(cfg["collect"]["workers"], n_envs))


def learner_threads(cfg: Mapping[str, Any]) -> int:
    """Torch threads: what was asked, or the cores that no worker uses; one beside a GPU.

    A thread that shares its core with a worker makes all others wait for it, in every operation.
    """
    given = cfg["trainer"]["threads"]
    if given is not None:
        return int(given)
    if cfg["trainer"]["accelerator"] != "cpu" and torch.cuda.is_available():
        return 1
    return max(1, len(os.sched_getaffinity(0)) - collecting_workers(cfg))


def replay_size(cfg: Mapping[str, Any]) -> ReplaySize:
    """How much this run stores: min(capacity, total_env_steps) plus the margin."""
    return ReplaySize(
        n_envs=cfg["collect"]["n_envs"],
        max_episode_steps=cfg["task"]["max_episode_steps"],
        capacity=cfg["replay"]["capacity"],
        total_env_steps=cfg["total_env_steps"],
        margin_env_steps=cfg["replay"]["margin_env_steps"],
    )


def replay_device(cfg: Mapping[str, Any]) -> torch.device:
    """Where batches are drawn: ``cpu``, or ``cuda`` with all rows in the device's memory too.

    Raises:
        ConfigError: another device, or no CUDA device.
    """
    asked = cfg["replay"]["device"]
    known = asked in ("auto", "cpu", "cuda")
    require(known, "replay.device", asked, "auto, cpu or cuda", "cpu works everywhere")
    cuda = _trains_on_cuda(cfg)
    require(
        asked != "cuda" or cuda,
        "replay.device",
        asked,
        "cpu where no CUDA device trains",
        "use replay.device=cpu or auto",
    )
    return torch.device("cuda" if cuda and asked != "cpu" else "cpu")


def _trains_on_cuda(cfg: Mapping[str, Any]) -> bool:
    return torch.cuda.is_available() and cfg["trainer"]["accelerator"] != "cpu"


def row_spec(cfg: Mapping[str, Any], layout: EnvSpec) -> RowSpec:
    """What one step of one environment stores."""
    shape = None
    if typed(cfg).obs.sees_pixels:
        size = cfg["obs"]["pixels"]["image_size"]
        shape = (3, size, size)
    return RowSpec(layout.state_dim, layout.action_dim, shape)


def check_fits(cfg: Mapping[str, Any], run_dir: Path, layout: EnvSpec, module: OffPolicy) -> None:
    """Refuse a run that does not fit on the disk or in memory, before anything is allocated.

    Raises:
        ConfigError: with the sum, what is free, and the largest replay that fits.
    """
    row, size = row_spec(cfg, layout), replay_size(cfg)
    plan = plan_layout(row, size)
    if _trains_on_cuda(cfg):
        _check_device_memory(cfg, plan, module)
    present = sum(file.stat().st_size for file in (run_dir / "replay").glob("*.bin"))
    check_budget(
        run_dir,
        max(plan.disk_bytes() - present, 0) + CHECKPOINT_BYTES,
        memory_bytes(cfg, module),
        min(size.capacity, size.total_env_steps),
        plan.bytes_per_transition(),
    )


def _check_device_memory(cfg: Mapping[str, Any], plan: Layout, module: OffPolicy) -> None:
    """Refuse a run whose updates, and replay if it is there, do not fit in the GPU's memory."""
    mirrored = replay_device(cfg).type == "cuda"
    free = int(DEVICE_MEMORY_SHARE * torch.cuda.mem_get_info()[0])
    updates = _update_bytes(cfg, module) + COPIES_OF_PARAMETERS * _parameter_bytes(module)
    needed = updates + (plan.disk_bytes() if mirrored else 0)
    capacity = cfg["replay"]["capacity"]
    fits = largest_capacity(needed, free, capacity, plan.bytes_per_transition())
    smaller_replay = f"replay.capacity={fits}" if fits else "a smaller algo.batch_size"
    require(
        needed <= free,
        "replay.device" if mirrored else "algo.batch_size",
        "cuda" if mirrored else cfg["algo"]["batch_size"],
        f"at most {free:,} bytes on that device, this run has {needed:,} there, {updates:,} of "
        "them for its updates",
        f"use replay.device=cpu, or {smaller_replay}" if mirrored else "use a smaller one",
    )


def memory_bytes(cfg: Mapping[str, Any], module: OffPolicy) -> int:
    """Estimate of what all processes of the run hold; the replay is page cache, not memory."""
    collect = cfg["collect"]
    working = _update_bytes(cfg, module)
    if _trains_on_cuda(cfg):  # what is left for this side: the batches that are drawn here
        working = 0 if replay_device(cfg).type == "cuda" else _piece_bytes(cfg)
    return run_memory_bytes(
        workers=collecting_workers(cfg) + evaluation_workers(cfg),
        n_envs=collect["n_envs"] + cfg["callbacks"]["evaluation"]["n_envs"],
        pixels=typed(cfg).obs.sees_pixels,
        parameter_bytes=_parameter_bytes(module),
        working_bytes=working,
    )


def _update_bytes(cfg: Mapping[str, Any], module: OffPolicy) -> int:
    """What updates hold beside the networks: batches, twice under a graph, and activations."""
    graphs, activations = cfg["trainer"]["cuda_graphs"], 0
    if typed(cfg).obs.sees_pixels:
        image = cfg["obs"]["pixels"]["image_size"] ** 2
        activations = ACTIVATION_BYTES_PER_PIXEL * image * cfg["algo"]["batch_size"]
    if graphs and _trains_on_cuda(cfg):  # each graph keeps the memory that it was recorded with
        activations *= len(_piece_lengths(cfg))
    return _piece_bytes(cfg) * (2 if graphs else 1) + activations


def _piece_bytes(cfg: Mapping[str, Any]) -> int:
    """The batches that are in memory together: a round's, at most `AT_ONCE`."""
    per_sample = 1_000
    if typed(cfg).obs.sees_pixels:
        stack = cfg["obs"]["frame_stack"]
        frames = stack + 1 if cfg["algo"]["n_step"] == 1 else 2 * stack
        per_sample = 3 * cfg["obs"]["pixels"]["image_size"] ** 2 * frames
    return per_sample * cfg["algo"]["batch_size"] * max(_piece_lengths(cfg), default=1)


def _piece_lengths(cfg: Mapping[str, Any]) -> set[int]:
    """How many updates the pieces of a round have: one graph for each."""
    per_round = cfg["algo"]["utd_ratio"] * cfg["collect"]["n_envs"]
    lengths = set()
    for updates in {math.floor(per_round), math.ceil(per_round)}:
        lengths |= {min(updates, AT_ONCE), updates % AT_ONCE}
    return lengths - {0}


def _parameter_bytes(module: OffPolicy) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
