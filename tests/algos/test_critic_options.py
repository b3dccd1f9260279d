"""REDQ's subset, the mean over critics, targets of several steps, one draw for both images."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_sac import SPEC, differs, make_batch, make_module, update_watched

from fetchlab.algos.bellman import q_range
from fetchlab.errors import ConfigError


def target_of(module, batch, **settings):
    """The Bellman target that one update computes, seen through its loss with zero critics."""
    for parameter in module.agent.critic.parameters():
        parameter.data.zero_()
    module.learn(batch)
    return module.pop_metrics()["train/critic_loss"]


def constant_targets(module, values):
    """Let critic ``i`` of the targets answer ``values[i]`` to everything."""
    *_, last = module.agent.critic_target.biases
    for parameter in module.agent.critic_target.parameters():
        parameter.data.zero_()
    last.data[:, 0, 0] = torch.tensor(values)


@pytest.mark.parametrize(("subset", "worst"), [(None, {-5.0}), (3, {-5.0}), (1, {-5.0, -2.0, 1.0})])
def test_the_target_is_the_minimum_over_a_random_subset(subset, worst):
    seen = set()
    module = make_module(
        pixels=False, ensemble=3, target_subset=subset, discount=0.5, backup_entropy=False
    )
    for seed in range(12):
        constant_targets(module, [-5.0, -2.0, 1.0])
        # Three zero critics: loss = 3/2 y^2 with y = -1 + q / 2.
        loss = target_of(module, make_batch(pixels=False, seed=seed))
        seen |= {q for q in (-5.0, -2.0, 1.0) if abs(1.5 * (q / 2 - 1) ** 2 - loss) < 1e-4}
    assert seen == worst


def test_all_critics_draw_no_random_number():
    first, second = make_module(pixels=False), make_module(pixels=False, target_subset=2)
    for module in (first, second):
        module.learn(make_batch(pixels=False))
    assert not differs(first.state_dict(), second.state_dict())


def test_the_actor_may_follow_the_mean_of_the_critics():
    losses = {}
    for over in ("min", "mean"):
        module = make_module(pixels=False, actor_over=over, entropy_coefficient=1e-9)
        for parameter in module.agent.critic.parameters():
            parameter.data.zero_()
        bias = module.agent.critic.biases[-1]

        def see(name, bias=bias):  # after the critic's own step
            bias.data[:, 0, 0] = torch.tensor([-4.0, 2.0])

        for parameter in module.agent.critic.weights:
            parameter.register_hook(torch.zeros_like)  # only the last bias moves
        update_watched(module, make_batch(pixels=False), see)
        losses[over] = module.pop_metrics()["train/actor_loss"]
    assert losses["min"] == pytest.approx(4.0, abs=1e-4)
    assert losses["mean"] == pytest.approx(1.0, abs=1e-4)


def test_several_steps_bootstrap_with_the_batchs_own_discount():
    module = make_module(pixels=False, discount=0.5, backup_entropy=False)
    batch = make_batch(pixels=False)
    batch["next", "discount"] = torch.tensor([0.5, 0.25, 0.125, 0.5, 0.25, 0.125])
    constant_targets(module, [-8.0, -8.0])
    targets = [-1 - 8 * d for d in (0.5, 0.25, 0.125) * 2]
    expected = sum(y * y for y in targets) / 6  # two zero critics, each half the mean square
    assert target_of(module, batch) == pytest.approx(expected, rel=1e-6)


class MarkedCopies:
    """An augmentation that counts its calls and the channels it was given."""

    def __init__(self, shared_draw):
        self.shared_draw, self.channels = shared_draw, []

    def __call__(self, pixels, generator):
        self.channels.append(pixels.shape[1])
        return pixels


@pytest.mark.parametrize(("shared", "channels"), [(False, [6, 6]), (True, [9])])
def test_one_draw_augments_the_whole_block(shared, channels):
    augment = MarkedCopies(shared)
    module, plain = make_module(augment=augment), make_module()
    for one in (module, plain):
        one.learn(make_batch())
    assert augment.channels == channels
    assert not differs(module.state_dict(), plain.state_dict())


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"target_subset": 3}, "algo.target_subset"),
        ({"n_step": 3, "q_bounds": True}, "algo.n_step"),
        ({"q_bounds": True, "spec": replace(SPEC, reward_range=(-math.inf, 0))}, "algo.q_bounds"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(values, key):
    with pytest.raises(ConfigError, match=f"^{key}"):
        make_module(pixels=False, **values)


@pytest.mark.parametrize(
    ("rewards", "terminates", "bounds"),
    [
        ((-1.0, 0.0), False, (-4.0, 0.0)),  # Fetch, for ever
        ((0.0, 1.0), False, (0.0, 4.0)),  # PointMaze
        ((0.0, 1.0), True, (0.0, 4.0)),
        ((1.0, 1.0), True, (1.0, 4.0)),  # an episode has one reward at least
        ((1.0, 2.0), False, (1.0, 8.0)),  # also where it ends for another reason than its goal
        ((-2.0, -1.0), False, (-8.0, -1.0)),
    ],
)
def test_q_lies_within_what_the_rewards_can_return(rewards, terminates, bounds):
    spec = replace(SPEC, reward_range=rewards, terminates=terminates)
    assert q_range(spec, 0.75, 1) == bounds
