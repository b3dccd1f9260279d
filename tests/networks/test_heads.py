"""Actor and critic ensemble against layer-by-layer computation."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from fetchlab.errors import ConfigError
from fetchlab.networks.actor import DeterministicActor, GaussianActor
from fetchlab.networks.critic import CriticEnsemble


def test_actor_is_a_relu_mlp_with_a_clamped_log_std():
    torch.manual_seed(0)
    actor = GaussianActor(3, 2, hidden=[8, 5], layer_norm=False, log_std_min=-0.1, log_std_max=0.2)
    x = torch.randn(50, 3) * 5
    w = actor.state_dict()
    h = (x @ w["latent_pi.0.weight"].T + w["latent_pi.0.bias"]).clamp(min=0)
    h = (h @ w["latent_pi.2.weight"].T + w["latent_pi.2.bias"]).clamp(min=0)
    raw = h @ w["log_std.weight"].T + w["log_std.bias"]
    mean, log_std = actor(x)
    torch.testing.assert_close(mean, h @ w["mu.weight"].T + w["mu.bias"])
    torch.testing.assert_close(log_std, raw.clamp(-0.1, 0.2))
    assert log_std.min() >= -0.1
    assert log_std.max() <= 0.2
    assert raw.min() < -0.1  # or the clamp was never asked
    assert raw.max() > 0.2


@pytest.mark.parametrize("change", [{"hidden": []}, {"hidden": [8, 0]}, {"log_std_min": 2.0}])
def test_actor_refuses(change):
    sizes = {"in_dim": 3, "action_dim": 2, "hidden": [8], "layer_norm": False}
    sizes |= {"log_std_min": -20, "log_std_max": 2}
    with pytest.raises(ConfigError):
        GaussianActor(**(sizes | change))


@pytest.mark.parametrize("kind", [GaussianActor, DeterministicActor])
def test_every_layer_of_an_actor_acts(kind):
    """Also one that is added later: what `forward` runs is the network, not copies of weights."""
    clamp = {"log_std_min": -20, "log_std_max": 2} if kind is GaussianActor else {}
    plain, normed = (kind(3, 2, [8], layer_norm=norm, **clamp) for norm in (False, True))
    assert [type(layer) for layer in normed.latent_pi] == [nn.Linear, nn.LayerNorm, nn.ReLU]
    x = torch.randn(5, 3)
    first = plain(x)[0] if clamp else plain(x)
    plain.latent_pi.append(nn.Threshold(1e9, 0.0))
    last = plain(x)[0] if clamp else plain(x)
    torch.testing.assert_close(last, plain.mu.bias.expand(5, 2))
    assert not torch.allclose(first, last)


def test_every_member_is_the_mlp_of_its_own_weights():
    torch.manual_seed(0)
    critic = CriticEnsemble(5, 2, hidden=[7, 6], ensemble=3, layer_norm=False)
    x, action = torch.randn(11, 5), torch.rand(11, 2) * 2 - 1
    q = critic(x, action)
    assert q.shape == (3, 11)
    for member in range(3):
        h = torch.cat((x, action), dim=1)
        for layer in range(3):
            weight, bias = critic.weights[layer][member].T, critic.biases[layer][member, 0]
            h = functional.linear(h, weight, bias)
            h = h.relu() if layer < 2 else h
        torch.testing.assert_close(q[member], h.squeeze(1))
    assert (q[0] - q[1]).abs().max() > 1e-3  # members start apart


def test_members_learn_apart_and_share_their_input():
    critic = CriticEnsemble(5, 2, hidden=[16], ensemble=2, layer_norm=False)
    x, action = torch.randn(4, 5, requires_grad=True), torch.rand(4, 2, requires_grad=True)
    critic(x, action)[1].sum().backward()
    for parameter in critic.parameters():
        assert parameter.grad[0].abs().max() == 0
        assert parameter.grad[1].abs().max() > 0
    assert x.grad.abs().max() > 0
    assert action.grad.abs().max() > 0


def test_members_start_as_linear_layers_do():
    """Uniform in +-1/sqrt(n_in), per member: bound, mean, and standard deviation bound/sqrt(3)."""
    torch.manual_seed(0)
    critic = CriticEnsemble(296, 4, hidden=[400, 200], ensemble=2, layer_norm=False)
    reference = [nn.Linear(300, 400), nn.Linear(400, 200), nn.Linear(200, 1)]
    for layer, linear in enumerate(reference):
        bound = 1 / math.sqrt(linear.in_features)
        pairs = ((critic.weights[layer], linear.weight), (critic.biases[layer], linear.bias))
        for ours, theirs in pairs:
            assert theirs.abs().max() <= bound
            for member in ours:
                assert member.numel() == theirs.numel()
                assert member.abs().max() <= bound
                if member.numel() > 5000:
                    assert member.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
                    assert member.std().item() == pytest.approx(theirs.std().item(), rel=0.03)
                    assert abs(member.mean().item()) < 0.02 * bound


@pytest.mark.parametrize("hidden", [[], [8, 0]])
def test_critic_refuses(hidden):
    with pytest.raises(ConfigError, match=r"^algo\.hidden="):
        CriticEnsemble(5, 2, hidden, ensemble=2, layer_norm=False)


def test_layer_norm_normalises_each_members_hidden_layer():
    torch.manual_seed(0)
    critic = CriticEnsemble(5, 2, hidden=[16], ensemble=3, layer_norm=True)
    with torch.no_grad():
        for parameter in (*critic.gains, *critic.offsets):
            parameter.uniform_(0.5, 1.5)
    x, action = torch.randn(4, 5), torch.rand(4, 2)
    expected = []
    for member in range(3):
        h = torch.cat((x, action), 1) @ critic.weights[0][member] + critic.biases[0][member]
        h = (h - h.mean(1, keepdim=True)) / (h.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        h = (h * critic.gains[0][member] + critic.offsets[0][member]).relu()
        expected.append((h @ critic.weights[1][member] + critic.biases[1][member]).squeeze(1))
    torch.testing.assert_close(critic(x, action), torch.stack(expected))


def test_copies_and_loaded_weights_are_what_forward_uses():
    """Both networks keep their parameters in tuples, too: a copy must have tuples of its own."""
    torch.manual_seed(0)
    critic = CriticEnsemble(5, 2, hidden=[16], ensemble=2, layer_norm=False)
    actor = GaussianActor(5, 2, hidden=[16], layer_norm=False, log_std_min=-20, log_std_max=2)
    x, action = torch.randn(4, 5), torch.rand(4, 2)
    before = critic(x, action), actor(x)
    for network in (critic, actor):
        other = copy.deepcopy(network)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1.0)
        inputs = (x, action) if network is critic else (x,)
        changed = other(*inputs)
        other.load_state_dict(network.state_dict())
        same = other(*inputs)
        expected = before[0] if network is critic else torch.stack(before[1])
        as_tensor = (lambda q: q) if network is critic else torch.stack
        assert not torch.equal(as_tensor(changed), expected)
        assert torch.equal(as_tensor(same), expected)
        assert torch.equal(as_tensor(network(*inputs)), expected)
