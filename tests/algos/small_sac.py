"""A small SAC with a Trainer attached, a batch for it, and views on one update."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from unittest import mock

import lightning.pytorch as pl
import torch
import yaml
from known_specs import PUSH
from tensordict import TensorDict
from torch import nn

from fetchlab.algos.auxiliary import GoalPrediction
from fetchlab.algos.routing import Routing
from fetchlab.algos.sac import SAC
from fetchlab.algos.steps import CheckedSteps
from fetchlab.augment import NoAugment
from fetchlab.networks.agent import Agent, Vision
from fetchlab.networks.encoders.manipulation_cnn import ManipulationCNN
from fetchlab.networks.norms import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder
from fetchlab.networks.pooling import SpatialSoftmax

SPEC, PROPRIO = PUSH, PUSH.proprio
CONFIGS = Path(__file__).parents[2] / "configs" / "routing"
SHIPPED = {path.stem: yaml.safe_load(path.read_text()) for path in CONFIGS.glob("*.yaml")}
ROUTINGS = {name: Routing(**one.get("routing", one)) for name, one in SHIPPED.items()}
SETTINGS = {
    "hidden": (16, 16),
    "ensemble": 2,
    "target_subset": None,
    "actor_over": "min",
    "layer_norm": False,
    "actor_layer_norm": False,
    "log_std_min": -20.0,
    "log_std_max": 2.0,
    "discount": 0.95,
    "tau": 0.005,
    "entropy_coefficient": 0.05,
    "learn_entropy": False,
    "q_bounds": False,
    "backup_entropy": True,
    "n_step": 1,
    "target_encoder": True,
    "auxiliary_every": 1,
}
PIXEL_INPUTS = ["pixels", "proprio", "achieved_goal", "desired_goal"]
STATE_INPUTS = ["state", "achieved_goal", "desired_goal"]
B, STACK, SIZE = 6, 2, 20


def make_agent(
    pixels=True,
    actor_inputs=None,
    critic_inputs=None,
    augment=None,
    auxiliary=(),
    spec=SPEC,
    compiled=False,
    symmetry=None,
):
    """How a small agent sees; ``auxiliary`` are makers of losses, by name."""
    torch.manual_seed(3)
    vision = None
    if pixels:
        cnn = ManipulationCNN(
            in_channels=3 * STACK, image_size=SIZE, filters=4, strides=[2, 1, 1, 2]
        )
        pooling = SpatialSoftmax(in_shape=cnn.out_shape, temperature=1.0)
        encoder = PixelEncoder(cnn, pooling, nn.Identity())
        losses = {name: make(encoder.out_dim, spec) for name, make in dict(auxiliary).items()}
        augment = augment or NoAugment()
        vision = Vision(
            encoder,
            STACK,
            augment,
            losses,
            bfloat16=False,
            channels_last=False,
            compiled=compiled,
        )
    default = PIXEL_INPUTS if pixels else STATE_INPUTS
    normalizer = VectorNormalizer({"state": 25, "desired_goal": 3}, "none", 1e-3, 5.0)
    heads = (actor_inputs or default, critic_inputs or default)
    return Agent(spec, *heads, vision, normalizer, symmetry)


def make_module(
    routing=None,
    goal_weight=0.0,
    cuda_graphs=False,
    optimizer=partial(torch.optim.SGD, lr=0.1),  # noqa: B008 - a recipe, never changed
    algorithm=SAC,
    settings=SETTINGS,
    **more,
):
    """One with its optimizers; ``more`` are arguments of `make_agent` or settings."""
    if goal_weight > 0:
        goal = {
            "weight": goal_weight,
            "hidden": 16,
            "centre_m": [1.3, 0.7, 0.4],
            "scale_m": 0.1,
            "huber_m": None,
        }
        more["auxiliary"] = {"goal_prediction": partial(GoalPrediction, **goal)}
    own = {key: more.pop(key) for key in settings if key in more}
    module = algorithm(
        agent=make_agent(**more),
        routing=routing or ROUTINGS["critic"],
        explore_seed=0,
        update_seed=1,
        cuda_graphs=cuda_graphs,
        critic_optimizer=optimizer,
        actor_optimizer=optimizer,
        **{**settings, **own},
    )
    return attach(module)


def attach(module):
    """Give a module the Trainer and the optimizers that `fit` would."""
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
        module.learn(batch)


def steps_of(module, batch):
    """Encoder weights before the update, after the critic's step, after the actor's step."""
    seen = [copy.deepcopy(module.agent.encoder.state_dict())]
    see = lambda _: seen.append(copy.deepcopy(module.agent.encoder.state_dict()))  # noqa: E731
    update_watched(module, batch, see)
    return seen


def differs(a, b):
    return any(not torch.equal(a[key], b[key]) for key in a)
