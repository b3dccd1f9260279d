"""The study's probe of Stable-Baselines3; its gradient checks of ours are in `test_update`."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import SAC

from fetchlab.algos.bellman import critic_loss
from fetchlab.algos.sac import actor_loss

BATCH = 5


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
    """The study's probe: with `share_features_extractor`, SB3's routing is `actor`."""
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
