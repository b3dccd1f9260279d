"""One encoder without a target copy, and auxiliary losses in every k-th update alone."""

from __future__ import annotations

import copy

import pytest
import torch
from small_sac import PIXEL_INPUTS, ROUTINGS, STATE_INPUTS, differs, make_batch, make_module
from test_algorithms import ADAM, ALL, TD3, make

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
