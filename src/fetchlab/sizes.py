"""How much a run stores and holds, and whether that fits, before anything is allocated."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fetchlab.config import sees_pixels
from fetchlab.learn.sac_module import SACModule
from fetchlab.networks.agent import StateLayout
from fetchlab.preflight.budget import check_budget, largest_capacity, run_memory_bytes
from fetchlab.replay.layout import ReplaySize, RowSpec, plan_layout
from fetchlab.types import ACTION_DIM, require

CHECKPOINT_BYTES = 200_000_000  # two checkpoints, the best weights and the logs, generously
DEVICE_MEMORY_SHARE = 0.8  # of what is free there, for the replay; the rest is for the updates
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
    return worker_count(collect["workers"], collect["n_envs"], keep_core=not sees_pixels(cfg))


def evaluation_workers(cfg: Mapping[str, Any]) -> int:
    """Worker processes of the evaluation: what was asked, or as in ``collect``, where that fits.

    Raises:
        ConfigError: no environments, or more workers than environments.
    """
    key, evaluation = "callbacks.evaluation", cfg["callbacks"]["evaluation"]
    n_envs, asked = evaluation["n_envs"], evaluation["workers"]
    whole = isinstance(n_envs, int) and n_envs >= 1
    require(whole, f"{key}.n_envs", n_envs, "a positive whole number", "collect.n_envs is usual")
    require(
        asked is None or (isinstance(asked, int) and 1 <= asked <= n_envs),
        f"{key}.workers",
        asked,
        f"null, or from 1 to {key}.n_envs={n_envs}",
        "null takes as many as fit",
    )
    return asked or min(n_envs, worker_count(cfg["collect"]["workers"], n_envs))


def learner_threads(cfg: Mapping[str, Any]) -> int:
    """Torch threads: what was asked, or the cores that no worker uses; one beside a GPU.

    A thread that shares its core with a worker makes all others wait for it, in every operation.

    Raises:
        ConfigError: not a number of threads.
    """
    given = cfg["trainer"]["threads"]
    fits = given is None or (isinstance(given, int) and given >= 1)
    require(fits, "trainer.threads", given, "1 or more torch threads, or null", "1 is usual")
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
    cuda = torch.cuda.is_available() and cfg["trainer"]["accelerator"] != "cpu"
    require(
        asked != "cuda" or cuda,
        "replay.device",
        asked,
        "cpu where no CUDA device trains",
        "use replay.device=cpu or auto",
    )
    return torch.device("cuda" if cuda and asked != "cpu" else "cpu")


def row_spec(cfg: Mapping[str, Any], layout: StateLayout) -> RowSpec:
    """What one step of one environment stores."""
    shape = None
    if sees_pixels(cfg):
        size = cfg["obs"]["pixels"]["image_size"]
        shape = (3, size, size)
    return RowSpec(layout.state_dim, ACTION_DIM, shape)


def check_fits(
    cfg: Mapping[str, Any], run_dir: Path, layout: StateLayout, module: SACModule
) -> None:
    """Refuse a run that does not fit on the disk or in memory, before anything is allocated.

    Raises:
        ConfigError: with the sum, what is free, and the largest replay that fits.
    """
    row, size = row_spec(cfg, layout), replay_size(cfg)
    plan = plan_layout(row, size)
    _check_device_memory(cfg, plan.disk_bytes(), plan.bytes_per_transition())
    present = sum(file.stat().st_size for file in (run_dir / "replay").glob("*.bin"))
    check_budget(
        run_dir,
        max(plan.disk_bytes() - present, 0) + CHECKPOINT_BYTES,
        memory_bytes(cfg, module),
        min(size.capacity, size.total_env_steps),
        plan.bytes_per_transition(),
    )


def _check_device_memory(cfg: Mapping[str, Any], needed: int, per_transition: float) -> None:
    """Refuse a replay whose copy does not fit in the memory of the device that trains."""
    device = replay_device(cfg)
    if device.type == "cpu":
        return
    free = int(DEVICE_MEMORY_SHARE * torch.cuda.mem_get_info(device)[0])
    fits = largest_capacity(needed, free, cfg["replay"]["capacity"], per_transition)
    require(
        needed <= free,
        "replay.device",
        device.type,
        f"a replay of {free:,} bytes at most on that device, this one has {needed:,}",
        f"use replay.device=cpu, or replay.capacity={fits}",
    )


def memory_bytes(cfg: Mapping[str, Any], module: SACModule) -> int:
    """Estimate of what all processes of the run hold; the replay is page cache, not memory."""
    collect, algo, pixels = cfg["collect"], cfg["algo"], cfg["obs"]["pixels"]
    per_sample = 1_000
    if sees_pixels(cfg):
        frame = 3 * pixels["image_size"] ** 2
        updates = max(1, math.ceil(algo["utd_ratio"] * collect["n_envs"]))
        stack = cfg["obs"]["frame_stack"]
        per_sample = frame * (stack + 1 if algo["n_step"] == 1 else 2 * stack) * updates
        per_sample += ACTIVATION_BYTES_PER_PIXEL * pixels["image_size"] ** 2
    return run_memory_bytes(
        workers=collecting_workers(cfg) + evaluation_workers(cfg),
        n_envs=collect["n_envs"] + cfg["callbacks"]["evaluation"]["n_envs"],
        pixels=sees_pixels(cfg),
        parameter_bytes=sum(p.numel() * p.element_size() for p in module.parameters()),
        working_bytes=per_sample * algo["batch_size"],
    )
