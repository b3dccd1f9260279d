"""A small SACModule with a Trainer attached, a batch for it, and views on one update."""

from __future__ import annotations

import copy
from functools import partial
from unittest import mock

import lightning.pytorch as pl
import torch
from tensordict import TensorDict
from torch import nn

from fetchlab.augment.none import NoAugment
from fetchlab.learn.sac_module import SACModule
from fetchlab.learn.settings import SACSettings, Seeds
from fetchlab.learn.steps import CheckedSteps
from fetchlab.networks.agent import Agent, AgentSizes, StateLayout, Vision
from fetchlab.networks.encoders.manipulation_cnn import ManipulationCNN
from fetchlab.networks.goal_head import GoalPredictionHead
from fetchlab.networks.normalizer import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder
from fetchlab.networks.pooling import SpatialSoftmax
from fetchlab.routing.critic import CriticRouting

LAYOUT = StateLayout(25, (0, 1, 2, 9, 10, 20, 21, 22, 23, 24), slice(3, 6))
PIXEL_INPUTS = ["pixels", "proprio", "achieved_goal", "desired_goal"]
STATE_INPUTS = ["state", "achieved_goal", "desired_goal"]
B, STACK, SIZE = 6, 2, 20


def make_module(
    routing=None,
    pixels=True,
    actor_inputs=None,
    critic_inputs=None,
    ensemble=2,
    augment=None,
    cuda_graphs=False,
    optimizer=partial(torch.optim.SGD, lr=0.1),  # noqa: B008 - a recipe, never changed
    **settings,
):
    torch.manual_seed(3)
    vision = None
    if pixels:
        cnn = ManipulationCNN(in_channels=3 * STACK, image_size=SIZE, filters=4)
        pooling = SpatialSoftmax(in_shape=cnn.out_shape, temperature=1.0)
        encoder = PixelEncoder(cnn, pooling, nn.Identity())
        head = None
        if settings.get("goal_weight", 0.0) > 0:
            head = GoalPredictionHead(encoder.out_dim, 16, [1.3, 0.7, 0.4], 0.1)
        vision = Vision(encoder, STACK, head, bfloat16=False, channels_last=False)
    default = PIXEL_INPUTS if pixels else STATE_INPUTS
    agent = Agent(
        LAYOUT,
        actor_inputs or default,
        critic_inputs or default,
        vision,
        VectorNormalizer({"state": 25, "desired_goal": 3}, "none", 1e-3, 5.0),
        AgentSizes((16, 16), ensemble, False, -20.0, 2.0),
    )
    values = {
        "discount": 0.95,
        "tau": 0.005,
        "entropy_coefficient": 0.05,
        "learn_entropy": False,
        "q_bounds": False,
        "backup_entropy": True,
        "target_subset": None,
        "actor_over": "min",
        "goal_weight": 0.0,
        **settings,
    }
    module = SACModule(
        agent,
        routing or CriticRouting(),
        augment or NoAugment(),
        SACSettings(**values),
        optimizer,
        optimizer,
        Seeds(explore=0, update=1),
        cuda_graphs,
    )
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer.strategy._lightning_module = module
    trainer.strategy.setup_optimizers(trainer)
    return module


def make_batch(pixels=True, seed=0):
    rng = torch.Generator().manual_seed(seed)
    batch = TensorDict(
        {
            "state": torch.randn(B, 25, generator=rng),
            "desired_goal": torch.randn(B, 3, generator=rng),
            "action": torch.rand(B, 4, generator=rng) * 2 - 1,
            "next": TensorDict(
                {
                    "state": torch.randn(B, 25, generator=rng),
                    "reward": -torch.ones(B),
                    "terminated": torch.zeros(B, dtype=torch.bool),
                },
                batch_size=[B],
            ),
        },
        batch_size=[B],
    )
    if pixels:
        shape = (B, STACK + 1, 3, SIZE, SIZE)
        batch["pixels"] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)
    return batch


def optimizer_ids(module, index):
    optimizer = module.trainer.optimizers[index]
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def update_watched(module, batch, see):
    """Update once and call ``see(name)`` after each optimizer step."""
    inner = CheckedSteps.__call__

    def spy(self, name, loss, held):
        inner(self, name, loss, held)
        see(name)

    with mock.patch.object(CheckedSteps, "__call__", spy):
        module.update(batch)


def steps_of(module, batch):
    """Encoder weights before the update, after the critic's step, after the actor's step."""
    seen = [copy.deepcopy(module.agent.encoder.state_dict())]
    see = lambda _: seen.append(copy.deepcopy(module.agent.encoder.state_dict()))  # noqa: E731
    update_watched(module, batch, see)
    return seen


def differs(a, b):
    return any(not torch.equal(a[key], b[key]) for key in a)
