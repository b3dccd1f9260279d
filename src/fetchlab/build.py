"""From a configuration to parts, in the order of the data flow: the one place where they meet."""

from __future__ import annotations

import fetchlab.envs.without_gl  # noqa: F401  before torchrl, which imports mujoco

# isort: split
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchrl.envs import TransformedEnv

from fetchlab.collect.collector import Collector
from fetchlab.config import sees_pixels
from fetchlab.envs.batched import make_env
from fetchlab.envs.specs import CameraSpec, FetchSpec, PixelSpec
from fetchlab.learn.datamodule import ReplayDataModule
from fetchlab.learn.sac_module import SACModule
from fetchlab.learner import build_module, seed_for, swap_in
from fetchlab.networks.agent import StateLayout
from fetchlab.replay.replay import make_replay
from fetchlab.sizes import (
    check_fits,
    collecting_workers,
    evaluation_workers,
    replay_device,
    replay_size,
    row_spec,
    worker_count,
)


@dataclass
class Parts:
    """A run's learner and data, before a Trainer joins them."""

    module: SACModule
    data: ReplayDataModule
    env: TransformedEnv


def fetch_spec(cfg: Mapping[str, Any], render: bool | None = None) -> FetchSpec:
    """What each environment simulates and renders; ``render`` overrides whether it does."""
    pixels = None
    if sees_pixels(cfg) if render is None else render:
        image = dict(cfg["obs"]["pixels"] or {})
        camera = image.pop("camera", None)
        image = {"image_size": 84, "show_goal": True, "quality": "fast", **image}
        pixels = PixelSpec(camera=None if camera is None else CameraSpec(**camera), **image)
    return FetchSpec(cfg["task"]["env_id"], cfg["task"]["max_episode_steps"], pixels)


def build_env(
    cfg: Mapping[str, Any], n_envs: int, workers: int | None, render: bool | None = None
) -> TransformedEnv:
    """The batched environment, for training or evaluation."""
    return make_env(
        fetch_spec(cfg, render),
        n_envs=n_envs,
        workers=worker_count(workers, n_envs),
        frame_stack=cfg["obs"]["frame_stack"],
        timeout_s=cfg["collect"]["timeout_s"],
    )


def state_layout(env: TransformedEnv) -> StateLayout:
    """Where the derived entries lie in this task's ``state``."""
    base = env.base_env
    return StateLayout(base.state_dim, tuple(base.proprio_indices), base.goal_slice)


def build_parts(cfg: Mapping[str, Any], run_dir: Path) -> Parts:
    """Everything that learns and collects, on the run's replay files.

    Raises:
        ConfigError: for the first value that cannot work.
    """
    collect, algo = cfg["collect"], cfg["algo"]
    n_envs, device = collect["n_envs"], replay_device(cfg)
    evaluation_workers(cfg)  # a number that cannot work is found now, not at the first evaluation
    env = build_env(cfg, n_envs, collecting_workers(cfg))
    try:
        layout = state_layout(env)
        module = build_module(cfg, layout)
        check_fits(cfg, run_dir, layout, module)
        replay = make_replay(
            run_dir / "replay",
            row=row_spec(cfg, layout),
            size=replay_size(cfg),
            frame_stack=cfg["obs"]["frame_stack"],
            relabel=swap_in(cfg["relabel"]),
            compute_reward=env.base_env.compute_reward,
            goal_slice=layout.goal_slice,
            generator=torch.Generator(device).manual_seed(seed_for(cfg["seed"], "replay")),
            device=device,
            n_buffers=1,  # a round's batch is used up before the next one is sampled
            n_step=algo["n_step"],
            discount=algo["discount"],
        )
        collector = Collector(
            env,
            module,
            replay.extend,
            collect["learning_starts"],
            env_seed=seed_for(cfg["seed"], "environments"),
            action_seed=seed_for(cfg["seed"], "warm-up"),
        )
        data = ReplayDataModule(
            collector,
            replay,
            algo["batch_size"],
            algo["utd_ratio"],
            cfg["total_env_steps"],
            cfg["callbacks"]["evaluation"]["every_env_steps"],
            cfg["replay"]["verify"],
        )
    except BaseException:
        env.close()
        raise
    return Parts(module, data, env)
