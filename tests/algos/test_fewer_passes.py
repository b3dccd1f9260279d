"""One encoder without a target copy, and auxiliary losses in every k-th update alone."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from small_sac import PIXEL_INPUTS, ROUTINGS, STATE_INPUTS, differs, make_batch, make_module
from test_algorithms import ADAM, ALL, TD3, make
from torch import nn

from fetchlab.algos.auxiliary import GoalPrediction

SEES = {"actor_inputs": PIXEL_INPUTS, "critic_inputs": STATE_INPUTS}


@pytest.mark.parametrize("algorithm", ALL)
def test_without_a_target_the_critics_target_sees_by_the_encoder_itself(algorithm):
    module = make(algorithm, target_encoder=False, tau=0.25)
    passes, seen = [], []
    module.agent.encoder.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    module.agent.critic_target.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert not any("encoder_target" in key for key in module.state_dict())
    batch = make_batch()
    next_obs = module.agent.look(batch, module.rng).next_obs
    expected = module.agent.critic_input(
        next_obs.vectors, module.agent.glance(next_obs.images).detach()
    )
    passes.clear()
    module.learn(batch)
    assert passes == [True, False]
    torch.testing.assert_close(seen, [expected])
    assert not seen[0].requires_grad
    assert module.pop_metrics()["train/feature_gradient_critic"] > 0


@pytest.mark.parametrize("algorithm", ALL)
def test_auxiliary_losses_in_every_second_update_leave_the_encoder_alone_in_between(algorithm):
    options = {"routing": ROUTINGS["auxiliary"], "goal_weight": 1.0, "optimizer": ADAM, **SEES}
    module = make(algorithm, auxiliary_every=2, **options)
    with_gradients, moved, errors = [], [], []
    module.agent.encoder.register_forward_hook(
        lambda *_: with_gradients.append(torch.is_grad_enabled())
    )
    for seed in range(4):
        before = copy.deepcopy(module.agent.state_dict())
        module.learn(make_batch(seed=seed))
        now = module.agent.state_dict()
        parts = {key.split(".")[0] for key in now if not torch.equal(now[key], before[key])}
        moved.append(parts & {"encoder", "auxiliary", "critic"})
        errors.append(module.pop_metrics()["train/goal_error_m"])
    assert moved == [{"critic"}, {"critic", "encoder", "auxiliary"}] * 2
    # Of the observation and of the next one, in turn.
    assert with_gradients == [False, False, True, False] * 2
    assert errors[0] == 0 and errors[1] == errors[2] != errors[3]


@pytest.mark.parametrize("every", [2, 3])
def test_a_period_has_the_actors_step_and_the_auxiliary_losses_and_graphs_follow_it(every):
    options = {"routing": ROUTINGS["joint"], "goal_weight": 1.0, "optimizer": ADAM}
    checked, masked, restored = (
        make(TD3, auxiliary_every=every, target_encoder=False, cuda_graphs=graphs, **options)
        for graphs in (False, True, False)
    )
    assert checked.period == {2: 2, 3: 6}[every]
    for seeds in ((0,), (1, 2, 3), (4, 5)):
        for module in (checked, masked):
            module.training_step(torch.stack([make_batch(seed=seed) for seed in seeds]), 0)
    assert checked.optimizer_steps == 6 + 2 * 3
    assert not differs(checked.state_dict(), masked.state_dict())
    checkpoint = {}
    checked.on_save_checkpoint(checkpoint)
    restored.load_state_dict(checked.state_dict())
    pairs = zip(restored.trainer.optimizers, checked.trainer.optimizers, strict=True)
    for mine, theirs in pairs:
        mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
    restored.on_load_checkpoint(copy.deepcopy(checkpoint))
    for module in (checked, masked, restored):
        module.learn(make_batch(seed=6))  # without an auxiliary loss: it reports the last one's
    assert not differs(checked.state_dict(), restored.state_dict())
    first, *others = (module.pop_metrics() for module in (checked, masked, restored))
    assert first["train/goal_error_m"] > 0
    assert others == [first, first]


def test_defaults_have_a_target_and_every_loss():
    module = make_module(ROUTINGS["auxiliary"], goal_weight=1.0)
    assert module.period == 1
    assert module.due(module.auxiliary_every)
    assert module.agent.encoder_target is not None


def test_an_update_without_the_actors_step_reports_the_auxiliary_losses_of_the_last_one_with_it():
    module = make(TD3, routing=ROUTINGS["actor"], goal_weight=1.0, optimizer=ADAM)
    assert (module.period, module.auxiliary_every) == (2, 1)
    seen = []
    for seed in range(4):
        module.learn(make_batch(seed=seed))
        seen.append(module.pop_metrics())
    for name in ("train/goal_error_m", "train/feature_gradient_auxiliary"):
        first, second, third, fourth = (one[name] for one in seen)
        assert first == 0 and 0 < second == third != fourth


class Undetached(nn.Module):
    """A user's loss whose metric still has its graph."""

    weight, metrics, needs_next_features = 1.0, ("train/mine",), False

    def __init__(self, feature_dim, env_spec):
        super().__init__()
        self.layer = nn.Linear(feature_dim, 1)

    def forward(self, features, batch, next_features):
        loss = self.layer(features).square().mean()
        return loss, {"train/mine": loss}


def test_a_metric_that_is_kept_does_not_keep_its_graph():
    module = make_module(ROUTINGS["auxiliary"], auxiliary={"mine": Undetached}, auxiliary_every=2)
    for seed in range(4):
        module.learn(make_batch(seed=seed))
    assert not any(value.requires_grad for value in module._of_seeing.values())
    assert module.pop_metrics()["train/mine"] > 0


def test_the_gradient_of_two_auxiliary_losses_is_that_of_their_sum():
    goal = partial(
        GoalPrediction, weight=1.0, hidden=16, centre_m=[1.3, 0.7, 0.4], scale_m=0.1, huber_m=None
    )
    norms = []
    for losses in ({"a": goal}, {"a": goal, "b": Undetached}, {"b": Undetached, "a": goal}):
        module = make_module(ROUTINGS["auxiliary"], auxiliary=losses)
        for loss in module.agent.losses:  # the same heads, whatever was drawn before them
            for p in loss.parameters():
                p.data.fill_(0.1)
        module.learn(make_batch())
        norms.append(module.pop_metrics()["train/feature_gradient_auxiliary"])
    assert norms[1] == pytest.approx(norms[2], rel=1e-5)
    assert norms[1] != pytest.approx(norms[0], rel=1e-3)
