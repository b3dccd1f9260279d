"""One update of Stable-Baselines3's SAC, its own `train()`, against ours: losses and gradients.

Same weights, same batch, same noise. SB3's optimizers are replaced by snapshots of the gradients,
so nothing moves between its critic and its actor loss.
"""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.distributions import SquashedDiagGaussianDistribution
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from fetchlab.algos.bellman import critic_loss, td_target
from fetchlab.algos.sac import actor_loss, entropy_coefficient_loss, sample_action, soft_value
from fetchlab.networks.actor import GaussianActor
from fetchlab.networks.critic import CriticEnsemble

OBS, ACTION, BATCH, HIDDEN = 11, 4, 64, (32, 24)


class BoxEnv(gymnasium.Env):
    """Spaces only; SB3 never steps it here."""

    observation_space = spaces.Box(-10, 10, (OBS,), np.float32)
    action_space = spaces.Box(-1, 1, (ACTION,), np.float32)


def sb3_agent(ent_coef):
    agent = SAC(
        "MlpPolicy",
        BoxEnv(),
        policy_kwargs={"net_arch": list(HIDDEN)},
        gamma=0.95,
        ent_coef=ent_coef,
        buffer_size=8,
        batch_size=BATCH,
        seed=0,
        device="cpu",
    )
    torch.nn.init.constant_(agent.actor.log_std.bias, -2.0)  # |u| stays small: unsaturated
    for parameter in agent.critic_target.parameters():  # or the target would equal the critic
        parameter.data.mul_(0.9)
    agent.set_logger(Logger(folder=None, output_formats=[]))
    return agent


def batch_and_noise():
    g = torch.Generator().manual_seed(1)
    batch = ReplayBufferSamples(
        observations=torch.randn(BATCH, OBS, generator=g),
        actions=torch.rand(BATCH, ACTION, generator=g) * 2 - 1,
        next_observations=torch.randn(BATCH, OBS, generator=g),
        dones=torch.zeros(BATCH, 1),
        rewards=-torch.randint(0, 2, (BATCH, 1), generator=g).float(),
        discounts=None,
    )
    return batch, [torch.randn(BATCH, ACTION, generator=g) for _ in range(2)]


def snapshot(optimizer, module, monkeypatch):
    """Replace ``optimizer.step`` by a copy of the module's gradients, into the returned dict."""
    grads = {}

    def keep():
        grads.update((k, p.grad.clone()) for k, p in module.named_parameters())

    monkeypatch.setattr(optimizer, "step", keep)
    return grads


def run_sb3(agent, batch, noise, monkeypatch):
    queue = list(noise)
    monkeypatch.setattr(
        "torch.distributions.normal._standard_normal", lambda shape, dtype, device: queue.pop(0)
    )
    monkeypatch.setattr(agent.replay_buffer, "sample", lambda *args, **kwargs: batch)
    critic_grads = snapshot(agent.critic.optimizer, agent.critic, monkeypatch)
    actor_grads = snapshot(agent.actor.optimizer, agent.actor, monkeypatch)
    if agent.ent_coef_optimizer is not None:
        monkeypatch.setattr(agent.ent_coef_optimizer, "step", lambda: None)
    agent.train(gradient_steps=1, batch_size=BATCH)
    assert not queue
    return agent.logger.name_to_value, critic_grads, actor_grads


def critic_from_sb3(sb3_critic):
    critic = CriticEnsemble(OBS, ACTION, HIDDEN, ensemble=2, layer_norm=False)
    with torch.no_grad():
        for member, network in enumerate(sb3_critic.q_networks):
            layers = [module for module in network if isinstance(module, torch.nn.Linear)]
            for layer, linear in enumerate(layers):
                critic.weights[layer][member] = linear.weight.T
                critic.biases[layer][member] = linear.bias
    return critic


@pytest.mark.parametrize("ent_coef", [0.05, "auto_0.2"])
def test_losses_and_gradients_equal_stable_baselines3(ent_coef, monkeypatch):
    sb3 = sb3_agent(ent_coef)
    batch, noise = batch_and_noise()
    actor = GaussianActor(OBS, ACTION, HIDDEN, False, log_std_min=-20, log_std_max=2)
    names = actor.state_dict().keys()
    actor.load_state_dict({k: v for k, v in sb3.actor.state_dict().items() if k in names})
    critic, critic_target = critic_from_sb3(sb3.critic), critic_from_sb3(sb3.critic_target)
    logged, sb3_critic_grads, sb3_actor_grads = run_sb3(sb3, batch, noise, monkeypatch)

    alpha = logged["train/ent_coef"]
    next_action, next_log_prob = sample_action(*actor(batch.next_observations), noise[1])
    next_q = critic_target(batch.next_observations, next_action)
    value = soft_value(next_q, next_log_prob, alpha, bounds=None)
    y = td_target(batch.rewards.squeeze(1), batch.dones.squeeze(1).bool(), value, discount=0.95)
    loss_q = critic_loss(critic(batch.observations, batch.actions), y)
    loss_q.backward()
    assert loss_q.item() == pytest.approx(logged["train/critic_loss"], abs=1e-5)
    for member in range(2):
        for layer in range(3):
            key = f"qf{member}.{2 * layer}"
            ours = critic.weights[layer].grad[member].T, critic.biases[layer].grad[member, 0]
            theirs = sb3_critic_grads[f"{key}.weight"], sb3_critic_grads[f"{key}.bias"]
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
            assert theirs[0].abs().max() > 1e-3

    action, log_prob = sample_action(*actor(batch.observations), noise[0])
    loss_pi = actor_loss(critic(batch.observations, action), log_prob, alpha)
    loss_pi.backward()
    assert action.abs().max() < 0.8  # unsaturated, where SB3's 1e-6 does not show
    assert loss_pi.item() == pytest.approx(logged["train/actor_loss"], abs=1e-5)
    ours = {k: p.grad for k, p in actor.named_parameters()}
    torch.testing.assert_close(ours, sb3_actor_grads, atol=1e-5, rtol=0)
    assert ours["mu.weight"].abs().max() > 1e-3

    if sb3.log_ent_coef is not None:
        loss = entropy_coefficient_loss(sb3.log_ent_coef, log_prob, sb3.target_entropy)
        assert loss.item() == pytest.approx(logged["train/ent_coef_loss"], abs=1e-5)
        sb3.ent_coef_optimizer.zero_grad()
        loss.backward()
        mean = (log_prob.detach() + sb3.target_entropy).mean()
        assert sb3.log_ent_coef.grad.item() == pytest.approx(-mean.item(), abs=1e-5)


@pytest.mark.parametrize(
    ("u", "true_log_jacobian", "difference"),
    [
        (1.0, -0.8675617, 0.0),
        (5.0, -8.6137964, 0.0055),  # log(1 + 1e-6 / (1 - tanh(5)^2))
        (10.0, -18.6137056, 4.8064),  # SB3: log(8.2e-9 + 1e-6) = -13.8073
        (20.0, -38.6137056, 24.7982),  # SB3 is at its floor, log(1e-6) = -13.8155
    ],
)
def test_saturated_actions_differ_from_stable_baselines3(u, true_log_jacobian, difference):
    """SB3's epsilon stops its squash correction at -13.8 nats; the true one goes on as 2(log 2-u).

    So SB3 underrates the density of a saturated action, and through alpha the reward for leaving
    saturation: equal losses are to be expected from an unsaturated actor only.
    """
    mean = torch.tensor([[u]], dtype=torch.float64)
    zero = torch.zeros_like(mean)
    sb3 = SquashedDiagGaussianDistribution(1).proba_distribution(mean, zero)
    sb3_log_prob = sb3.log_prob(mean.tanh(), gaussian_actions=mean)
    _, log_prob = sample_action(mean, zero, zero)
    assert log_prob.item() == pytest.approx(-0.9189385 - true_log_jacobian, abs=1e-6)
    assert (log_prob - sb3_log_prob).item() == pytest.approx(difference, abs=1e-3)
