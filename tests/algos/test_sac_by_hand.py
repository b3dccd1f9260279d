"""The losses on numbers worked out by hand."""

import math

import pytest
import torch

from fetchlab.algos.bellman import critic_loss, td_target
from fetchlab.algos.sac import actor_loss, entropy_coefficient_loss, sample_action, soft_value

HALF_LOG_2PI = 0.9189385332


def target(next_q=None, alpha=0.1, bounds=(-20.0, 0.0)):
    """Four transitions: ordinary, hopeless, too good to be true, terminated. Bound: -20."""
    if next_q is None:
        next_q = torch.tensor([[-5.0, -30.0, 3.0, -2.0], [-6.0, -10.0, 4.0, -1.0]])
    value = soft_value(next_q, torch.tensor([1.0, -2.0, 0.5, 10.0]), alpha, bounds)
    terminated = torch.tensor([False, False, False, True])
    return td_target(torch.tensor([-1.0, -1.0, 0.0, -1.0]), terminated, value, 0.95)


@pytest.mark.parametrize(
    ("q_bounds", "backup_entropy", "expected"),
    [
        (True, True, [-6.795, -19.81, -0.0475, -1.0]),
        (False, True, [-6.795, -29.31, 2.8025, -1.0]),
        (True, False, [-6.7, -20.0, 0.0, -1.0]),
        (False, False, [-6.7, -29.5, 2.85, -1.0]),
    ],
)
def test_td_target(q_bounds, backup_entropy, expected):
    y = target(bounds=(-20.0, 0.0) if q_bounds else None, alpha=0.1 if backup_entropy else None)
    torch.testing.assert_close(y, torch.tensor(expected))


def test_td_target_takes_alpha_as_a_tensor_and_passes_no_gradient():
    next_q = torch.zeros(2, 4, requires_grad=True)
    log_alpha = torch.tensor(math.log(0.1), requires_grad=True)
    y = target(next_q=next_q, alpha=log_alpha.exp())
    assert not y.requires_grad
    torch.testing.assert_close(y, torch.tensor([-1.095, -0.81, -0.0475, -1.0]))


def test_critic_loss_sums_members_and_averages_the_batch():
    q = torch.tensor([[0.0, 2.0], [4.0, 1.0]], requires_grad=True)
    loss = critic_loss(q, torch.tensor([1.0, 1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * 1 + 0.5 * 4.5)
    torch.testing.assert_close(q.grad, torch.tensor([[-0.5, 0.5], [1.5, 0.0]]))


def test_actor_loss_follows_the_least_critic_only():
    q = torch.tensor([[1.0, 5.0], [2.0, 3.0]], requires_grad=True)
    log_prob = torch.tensor([2.0, -1.0], requires_grad=True)
    loss = actor_loss(q, log_prob, 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(((0.5 * 2 - 1) + (0.5 * -1 - 3)) / 2)
    torch.testing.assert_close(q.grad, torch.tensor([[-0.5, 0.0], [0.0, -0.5]]))
    torch.testing.assert_close(log_prob.grad, torch.tensor([0.25, 0.25]))


def test_entropy_coefficient_falls_when_the_entropy_is_above_its_target():
    log_alpha = torch.tensor(0.5, requires_grad=True)
    log_prob = torch.tensor([-3.0, 1.0], requires_grad=True)
    loss = entropy_coefficient_loss(log_alpha, log_prob, target_entropy=-4.0)
    loss.backward()
    assert loss.item() == pytest.approx(2.5)
    assert log_alpha.grad.item() == pytest.approx(5.0)  # descent lowers it: entropy 1 > -4
    assert log_prob.grad is None


def test_sample_action():
    mean, log_std = torch.tensor([[0.5]]), torch.tensor([[math.log(2)]])
    action, log_prob = sample_action(mean, log_std, torch.tensor([[-1.0]]))
    assert action.shape == (1, 1)
    assert log_prob.shape == (1,)
    assert action.item() == pytest.approx(-0.905148, abs=1e-6)  # tanh(-1.5)
    # -1/2 - log 2 - 0.918939 - log(1 - 0.905148^2)
    assert log_prob.item() == pytest.approx(-2.112086 + 1.710878, abs=1e-5)


def test_log_prob_sums_over_the_action():
    mean = torch.tensor([[0.1, -0.2, 0.3]])
    log_std = torch.tensor([[-1.0, 0.0, 0.5]])
    noise = torch.tensor([[0.3, -0.7, 1.1]])
    _, joint = sample_action(mean, log_std, noise)
    parts = [
        sample_action(mean[:, j, None], log_std[:, j, None], noise[:, j, None])[1] for j in range(3)
    ]
    torch.testing.assert_close(joint, sum(parts))


def test_density_of_the_action_integrates_to_one():
    noise = torch.linspace(-8, 8, 200_001, dtype=torch.float64)[:, None]
    mean, log_std = torch.full_like(noise, 0.3), torch.full_like(noise, math.log(0.7))
    action, log_prob = sample_action(mean, log_std, noise)
    mass = torch.trapezoid(log_prob.exp(), action.squeeze(-1))
    assert mass.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("mean", [40.0, -40.0])
def test_saturated_log_prob_is_exact_and_differentiable(mean):
    u = torch.tensor([[mean]], requires_grad=True)
    action, log_prob = sample_action(u, torch.zeros(1, 1), torch.zeros(1, 1))
    log_prob.sum().backward()
    assert action.item() == math.copysign(1, mean)
    # log(1 - tanh(u)^2) -> 2 (log 2 - |u|)
    assert log_prob.item() == pytest.approx(-HALF_LOG_2PI - 2 * (math.log(2) - 40), rel=1e-6)
    assert u.grad.item() == pytest.approx(math.copysign(2, mean), abs=1e-6)
