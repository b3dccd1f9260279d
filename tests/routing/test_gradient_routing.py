"""The study's gradient checks, on the modules; and its probe of Stable-Baselines3.

Membership, critic step, actor step, and the actor's path through the critic. The fifth, the Polyak
update of the target encoder, is tested where that update lives.
"""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC

from fetchlab.losses.sac import actor_loss, critic_loss, sample_action
from fetchlab.networks.actor import GaussianActor
from fetchlab.networks.critic import CriticEnsemble
from fetchlab.networks.encoders.manipulation_cnn import ManipulationCNN
from fetchlab.networks.pixel_encoder import PixelEncoder
from fetchlab.networks.pooling import SpatialSoftmax
from fetchlab.routing.actor import ActorRouting
from fetchlab.routing.critic import CriticRouting

BATCH = 5
ROUTINGS = pytest.mark.parametrize("routing", [CriticRouting(), ActorRouting()])


class Parts:
    """Encoder, heads and the two optimizers that a routing asks for."""

    def __init__(self, routing):
        torch.manual_seed(0)
        cnn = ManipulationCNN(in_channels=3, image_size=12, filters=4)
        self.routing = routing
        self.encoder = PixelEncoder(cnn, SpatialSoftmax(cnn.out_shape, 1.0), torch.nn.Identity())
        self.actor = GaussianActor(self.encoder.out_dim, 4, [16], -20, 2)
        self.critic = CriticEnsemble(self.encoder.out_dim, 4, [16], ensemble=2, layer_norm=False)
        own = {"critic": list(self.critic.parameters()), "actor": list(self.actor.parameters())}
        own[routing.encoder_optimizer] += list(self.encoder.parameters())
        self.optimizers = {name: torch.optim.Adam(group, lr=0.01) for name, group in own.items()}
        self.pixels = torch.randint(0, 256, (BATCH, 3, 12, 12), dtype=torch.uint8)

    def critic_loss(self):
        features = self.routing.for_critic(self.encoder(self.pixels))
        return critic_loss(self.critic(features, torch.rand(BATCH, 4)), torch.randn(BATCH))

    def actor_loss(self):
        features = self.encoder(self.pixels)
        mean, log_std = self.actor(self.routing.for_actor(features))
        action, log_prob = sample_action(mean, log_std, torch.randn(BATCH, 4))
        return actor_loss(self.critic(features.detach(), action), log_prob, 0.05)

    def step(self, name):
        """One step of the optimizer; True if every encoder parameter moved, False if none did."""
        before = [p.detach().clone() for p in self.encoder.parameters()]
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        {"critic": self.critic_loss, "actor": self.actor_loss}[name]().backward()
        self.optimizers[name].step()
        moved = {
            not torch.equal(old, new)
            for old, new in zip(before, self.encoder.parameters(), strict=True)
        }
        assert len(moved) == 1
        return moved.pop()

    def encoder_has_gradient(self):
        return {p.grad is not None and bool(p.grad.any()) for p in self.encoder.parameters()}


@ROUTINGS
def test_the_encoder_is_in_exactly_one_optimizer(routing):
    parts = Parts(routing)
    encoder = {id(p) for p in parts.encoder.parameters()}
    assert len(encoder) == 9  # four convolutions and the temperature
    for name, optimizer in parts.optimizers.items():
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert encoder & held == (encoder if name == routing.encoder_optimizer else set())


@ROUTINGS
@pytest.mark.parametrize("name", ["critic", "actor"])
def test_only_the_routed_loss_trains_the_encoder(routing, name):
    parts = Parts(routing)
    trains = routing.encoder_optimizer == name
    assert parts.step(name) is trains
    assert parts.encoder_has_gradient() == {trains}
    head = {"critic": parts.critic, "actor": parts.actor}[name]
    assert all(p.grad.abs().max() > 0 for p in head.parameters())


def test_the_actors_path_through_the_critic_leaves_the_encoder_alone():
    """The actor loss reaches the critic's weights and the action, never the encoder."""
    parts = Parts(CriticRouting())
    parts.actor_loss().backward()
    assert parts.encoder_has_gradient() == {False}
    assert all(p.grad is not None for p in parts.critic.parameters())


@ROUTINGS
def test_features_keep_their_values(routing):
    features = torch.randn(3, 2, requires_grad=True)
    for view in (routing.for_critic(features), routing.for_actor(features)):
        assert torch.equal(view, features)


class PixelEnv(gymnasium.Env):
    """Spaces only."""

    observation_space = spaces.Dict(
        {
            "pixels": spaces.Box(0, 255, (3, 36, 36), np.uint8),
            "desired_goal": spaces.Box(-1, 1, (3,), np.float32),
        }
    )
    action_space = spaces.Box(-1, 1, (4,), np.float32)


def test_stable_baselines3_trains_a_shared_extractor_by_the_actor_only():
    """The study's probe: with `share_features_extractor`, SB3's routing is `ActorRouting`."""
    agent = SAC(
        "MultiInputPolicy",
        PixelEnv(),
        policy_kwargs={"share_features_extractor": True, "net_arch": [16]},
        buffer_size=4,
        seed=0,
        device="cpu",
    )
    extractor = list(agent.actor.features_extractor.parameters())
    assert agent.critic.features_extractor is agent.actor.features_extractor
    assert len(extractor) > 0
    held = {
        name: {id(p) for group in module.optimizer.param_groups for p in group["params"]}
        for name, module in (("actor", agent.actor), ("critic", agent.critic))
    }
    shared = {id(p) for p in extractor}
    assert shared <= held["actor"]
    assert not shared & held["critic"]

    obs = {
        "pixels": torch.randint(0, 256, (BATCH, 3, 36, 36), dtype=torch.uint8),
        "desired_goal": torch.randn(BATCH, 3),
    }
    q = torch.cat(agent.critic(obs, torch.rand(BATCH, 4)), dim=1)
    critic_loss(q.T, torch.randn(BATCH)).backward()
    assert all(p.grad is None for p in extractor)

    action, log_prob = agent.actor.action_log_prob(obs)
    actor_loss(torch.cat(agent.critic(obs, action), dim=1).T, log_prob, 0.05).backward()
    assert all(p.grad.abs().max() > 0 for p in extractor)
