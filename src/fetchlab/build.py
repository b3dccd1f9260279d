"""From a configuration to parts: the one place where the parts meet.

Only what a user swaps is named in YAML by ``_target_``: encoder, pooling, augmentation,
relabelling, routing and the optimizers. The rest is built here, in the order of the data flow.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torchrl.envs import TransformedEnv

from fetchlab.augment.none import NoAugment
from fetchlab.collect.collector import Collector
from fetchlab.config import sees_pixels
from fetchlab.envs.batched import make_env
from fetchlab.envs.specs import CameraSpec, FetchSpec, PixelSpec
from fetchlab.learn.datamodule import ReplayDataModule
from fetchlab.learn.sac_module import SACModule
from fetchlab.learn.settings import SACSettings, Seeds, check_critics
from fetchlab.networks.agent import Agent, AgentSizes, StateLayout, Vision
from fetchlab.networks.goal_head import GoalPredictionHead
from fetchlab.networks.normalizer import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder
from fetchlab.preflight.budget import check_budget, run_memory_bytes
from fetchlab.replay.layout import ReplaySize, RowSpec, plan_layout
from fetchlab.replay.replay import make_replay
from fetchlab.types import ACTION_DIM, DESIRED_GOAL, GOAL_DIM, STATE, require

CHECKPOINT_BYTES = 200_000_000  # two checkpoints, the best weights and the logs, generously
#: What a forward pass keeps for its backward pass, per pixel of the image: IMPALA's encoder, the
#: largest one here; ManipulationCNN keeps 250.
ACTIVATION_BYTES_PER_PIXEL = 450


#: Every consumer of random numbers has a stream of its own, so that none can echo another's.
STREAMS = ("weights", "exploration", "updates", "replay", "environments", "warm-up")


def seed_for(seed: int, stream: str) -> int:
    """The seed of one stream, in [0, 2^32), from the run's ``seed``."""
    return int(np.random.SeedSequence((seed, STREAMS.index(stream))).generate_state(1)[0])


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


def worker_count(asked: int | None, n_envs: int) -> int:
    """Worker processes: what was asked, or one per core and at most one per environment."""
    return min(n_envs, len(os.sched_getaffinity(0))) if asked is None else asked


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


def build_module(cfg: Mapping[str, Any], layout: StateLayout) -> SACModule:
    """Networks, losses and optimizers; draws the initial weights from ``seed``."""
    torch.manual_seed(seed_for(cfg["seed"], "weights"))
    algo, obs = cfg["algo"], cfg["obs"]
    normalizer = VectorNormalizer(
        {STATE: layout.state_dim, DESIRED_GOAL: GOAL_DIM},
        obs["normalize"],
        obs["normalize_std_floor"],
        obs["normalize_clip"],
    )
    check_critics(algo["ensemble"], algo["target_subset"], algo["n_step"], algo["q_bounds"])
    names = ("hidden", "ensemble", "layer_norm", "log_std_min", "log_std_max")
    sizes = AgentSizes(**{name: algo[name] for name in names})
    vision = _vision(cfg)
    agent = Agent(layout, obs["actor_inputs"], obs["critic_inputs"], vision, normalizer, sizes)
    augment = instantiate(cfg["augment"])
    require(
        vision is not None or isinstance(augment, NoAugment),
        "augment",
        type(augment).__name__,
        "none for an agent without pixels",
        "use augment=none, or obs=pixels",
    )
    taken = {field.name for field in fields(SACSettings)} & algo.keys()
    settings = SACSettings(
        **{name: algo[name] for name in taken}, goal_weight=algo["goal_prediction"]["weight"]
    )
    return SACModule(
        agent,
        instantiate(cfg["routing"]),
        augment,
        settings,
        instantiate(algo["critic_optimizer"]),
        instantiate(algo["actor_optimizer"]),
        Seeds(*(seed_for(cfg["seed"], stream) for stream in ("exploration", "updates"))),
        cuda_graphs=cfg["trainer"]["cuda_graphs"],
    )


def _vision(cfg: Mapping[str, Any]) -> Vision | None:
    """Encoder and goal-prediction head of an agent with pixels."""
    predict, trainer = dict(cfg["algo"]["goal_prediction"]), cfg["trainer"]
    weight = predict.pop("weight")
    if not sees_pixels(cfg):
        require(
            weight == 0,
            "algo.goal_prediction.weight",
            weight,
            "0 for an agent without pixels, which has no encoder to ask",
            "use obs=pixels, or algo.goal_prediction.weight=0",
        )
        return None
    encoder = _encoder(cfg)
    if trainer["channels_last"]:
        torch.nn.Module.to(encoder, memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = GoalPredictionHead(encoder.out_dim, **predict) if weight > 0 else None
    precision = trainer["precision"]
    known = precision in ("float32", "bfloat16")
    require(known, "trainer.precision", precision, "float32 or bfloat16", "float32 is exact")
    return Vision(encoder, cfg["obs"]["frame_stack"], head, precision == "bfloat16")


def _encoder(cfg: Mapping[str, Any]) -> PixelEncoder:
    channels = 3 * cfg["obs"]["frame_stack"]
    cnn = instantiate(cfg["encoder"])(
        in_channels=channels, image_size=cfg["obs"]["pixels"]["image_size"]
    )
    pooling = instantiate(cfg["pooling"])(in_shape=cnn.out_shape)
    # By position: torch's own modules name this argument differently.
    return PixelEncoder(cnn, pooling, instantiate(cfg["feature_norm"])(pooling.out_dim))


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
    present = sum(file.stat().st_size for file in (run_dir / "replay").glob("*.bin"))
    check_budget(
        run_dir,
        max(plan.disk_bytes() - present, 0) + CHECKPOINT_BYTES,
        memory_bytes(cfg, module),
        min(size.capacity, size.total_env_steps),
        plan.bytes_per_transition(),
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
        workers=worker_count(collect["workers"], collect["n_envs"]),
        n_envs=collect["n_envs"],
        pixels=sees_pixels(cfg),
        parameter_bytes=sum(p.numel() * p.element_size() for p in module.parameters()),
        working_bytes=per_sample * algo["batch_size"],
    )


def build_parts(cfg: Mapping[str, Any], run_dir: Path) -> Parts:
    """Everything that learns and collects, on the run's replay files.

    Raises:
        ConfigError: for the first value that cannot work.
    """
    collect, algo = cfg["collect"], cfg["algo"]
    n_envs, device = collect["n_envs"], replay_device(cfg)
    env = build_env(cfg, n_envs, collect["workers"])
    try:
        layout = state_layout(env)
        module = build_module(cfg, layout)
        check_fits(cfg, run_dir, layout, module)
        replay = make_replay(
            run_dir / "replay",
            row=row_spec(cfg, layout),
            size=replay_size(cfg),
            frame_stack=cfg["obs"]["frame_stack"],
            relabel=instantiate(cfg["relabel"]),
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
