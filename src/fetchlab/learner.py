"""From a configuration to the learner: networks, losses and optimizers.

Only what a user swaps is named in YAML by ``_target_``: encoder, pooling, feature normalisation,
augmentation, relabelling, routing and the optimizers. The rest is built here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from fetchlab.augment.none import NoAugment
from fetchlab.config import sees_pixels
from fetchlab.entries import DESIRED_GOAL, GOAL_DIM, STATE
from fetchlab.errors import ConfigError, require
from fetchlab.learn.sac_module import SACModule
from fetchlab.learn.settings import SACSettings, Seeds, check_critics
from fetchlab.networks.agent import Agent, AgentSizes, StateLayout, Vision
from fetchlab.networks.goal_head import GoalPredictionHead
from fetchlab.networks.normalizer import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder

#: Every consumer of random numbers has a stream of its own, so that none can echo another's.
STREAMS = ("weights", "exploration", "updates", "replay", "environments", "warm-up")


def seed_for(seed: int, stream: str) -> int:
    """The seed of one stream, in [0, 2^32), from the run's ``seed``."""
    return int(np.random.SeedSequence((seed, STREAMS.index(stream))).generate_state(1)[0])


def swap_in(node: Mapping[str, Any]) -> Any:
    """What a group's YAML names by ``_target_``.

    Raises:
        ConfigError: the part's own, without Hydra's words around it.
    """
    try:
        return instantiate(node)
    except InstantiationException as error:
        if isinstance(error.__cause__, ConfigError):
            raise error.__cause__ from None
        raise


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
    augment = swap_in(cfg["augment"])
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
        swap_in(cfg["routing"]),
        augment,
        settings,
        swap_in(algo["critic_optimizer"]),
        swap_in(algo["actor_optimizer"]),
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
    head = GoalPredictionHead(encoder.out_dim, **predict) if weight > 0 else None
    bfloat16 = trainer["precision"] == "bfloat16"
    return Vision(encoder, cfg["obs"]["frame_stack"], head, bfloat16, trainer["channels_last"])


def _encoder(cfg: Mapping[str, Any]) -> PixelEncoder:
    channels = 3 * cfg["obs"]["frame_stack"]
    cnn = swap_in(cfg["encoder"])(
        in_channels=channels, image_size=cfg["obs"]["pixels"]["image_size"]
    )
    pooling = swap_in(cfg["pooling"])(in_shape=cnn.out_shape)
    # By position: torch's own modules name this argument differently.
    return PixelEncoder(cnn, pooling, swap_in(cfg["feature_norm"])(pooling.out_dim))
