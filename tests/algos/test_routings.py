"""Joint, frozen and auxiliary routing, goal prediction, and what each loss sends back."""

from __future__ import annotations

import pytest
import torch
from small_sac import (
    PIXEL_INPUTS,
    ROUTINGS,
    STATE_INPUTS,
    differs,
    make_batch,
    make_module,
    optimizer_ids,
    steps_of,
    update_watched,
)

from fetchlab.errors import ConfigError


def ids(parameters):
    return {id(p) for p in parameters}


@pytest.mark.parametrize("name", ROUTINGS)
def test_encoder_and_head_are_in_one_optimizer_and_the_same(name):
    routing = ROUTINGS[name]
    module = make_module(routing, goal_weight=1.0)
    holder = {"critic": 0, "actor": 1}[routing.encoder_optimizer]
    held = ids(module.agent.encoder.parameters()) | ids(module.agent.auxiliary.parameters())
    assert held <= optimizer_ids(module, holder)
    assert not held & optimizer_ids(module, 1 - holder)


def test_joint_routing_moves_the_encoder_with_both_losses():
    before, after_critic, after_actor = steps_of(make_module(ROUTINGS["joint"]), make_batch())
    assert differs(before, after_critic)
    assert differs(after_critic, after_actor)


def test_joint_routing_encodes_once_more_and_its_second_step_is_the_actors_gradient():
    module = make_module(ROUTINGS["joint"])
    passes = []
    module.agent.encoder.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    critics, gradients = [], []

    def see(name):
        critics.append([p.detach().clone() for p in module.agent.critic.parameters()])
        gradients.append([p.grad for p in module.agent.critic.parameters()])

    update_watched(module, make_batch(), see)
    assert passes == [True, False, True]
    # The critic's optimizer stepped twice; the second time the critics had no gradient.
    assert all(torch.equal(a, b) for a, b in zip(*critics, strict=True))
    assert all(g is not None for g in gradients[0])
    assert all(g is None for g in gradients[1])


def test_frozen_routing_moves_nothing_but_heads():
    module = make_module(ROUTINGS["frozen"], goal_weight=1.0)
    head = [p.detach().clone() for p in module.agent.auxiliary.parameters()]
    before, *after = steps_of(module, make_batch())
    assert not any(differs(before, weights) for weights in after)
    moved = zip(head, module.agent.auxiliary.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in moved)


def test_auxiliary_routing_moves_the_encoder_by_goal_prediction_alone():
    module = make_module(ROUTINGS["auxiliary"], goal_weight=1.0)
    before, after_critic, after_actor = steps_of(module, make_batch())
    assert differs(before, after_critic)
    assert not differs(after_critic, after_actor)
    sent = module.pop_metrics()
    assert sent["train/feature_gradient_auxiliary"] > 0
    assert sent["train/feature_gradient_critic"] == sent["train/feature_gradient_actor"] == 0


def test_auxiliary_routing_serves_an_agent_whose_critic_sees_the_state():
    module = make_module(
        ROUTINGS["auxiliary"],
        actor_inputs=PIXEL_INPUTS,
        critic_inputs=STATE_INPUTS,
        goal_weight=1.0,
    )
    before, after_critic, _ = steps_of(module, make_batch())
    assert differs(before, after_critic)


@pytest.mark.parametrize(
    ("routing", "reaching"),
    [
        (ROUTINGS["critic"], {"critic", "auxiliary"}),
        (ROUTINGS["actor"], {"actor", "auxiliary"}),
        (ROUTINGS["joint"], {"critic", "actor", "auxiliary"}),
        (ROUTINGS["frozen"], set()),
    ],
)
def test_gradients_at_the_features_tell_which_losses_reach_the_encoder(routing, reaching):
    module = make_module(routing, goal_weight=1.0)
    module.learn(make_batch())
    sent = module.pop_metrics()
    for loss in ("critic", "actor", "auxiliary"):
        assert (sent[f"train/feature_gradient_{loss}"] > 0) == (loss in reaching)


def test_the_goal_loss_is_the_squared_distance_in_units_and_the_error_is_in_metres():
    plain, module = make_module(), make_module(goal_weight=3.0)
    # Equal draws: the head's weights are drawn after the encoder's and before the actor's.
    plain.agent.load_state_dict(module.agent.state_dict(), strict=False)
    batch = make_batch()
    with torch.no_grad():
        features = module.agent.encode(batch["pixels"][:, :2].flatten(1, 2))
        head = module.agent.auxiliary["goal_prediction"]
        error = head.centre + 0.1 * head.layers(features) - batch["state"][:, 3:6]
    sums = []
    for one in (plain, module):
        one.learn(batch)
        sums.append(one.pop_metrics())
    expected = error.square().sum(1).sqrt().mean().item()
    assert sums[1]["train/goal_error_m"] == pytest.approx(expected, rel=1e-5)
    assert sums[1]["train/critic_loss"] == pytest.approx(sums[0]["train/critic_loss"], rel=1e-5)


def test_goal_prediction_learns_where_the_object_is():
    module = make_module(ROUTINGS["critic"], goal_weight=1.0)
    batch = make_batch()
    batch["state"] = 0.1 * batch["state"] + 1.0
    errors = []
    for _ in range(30):
        module.learn(batch)
        errors.append(module.pop_metrics()["train/goal_error_m"])
    assert errors[-1] < 0.7 * errors[0]


@pytest.mark.parametrize(
    ("routing", "more", "key"),
    [
        (ROUTINGS["auxiliary"], {}, "auxiliary"),
        (ROUTINGS["joint"], {"critic_inputs": STATE_INPUTS}, "obs.critic_inputs"),
        (ROUTINGS["joint"], {"actor_inputs": STATE_INPUTS}, "obs.actor_inputs"),
    ],
)
def test_routings_that_cannot_reach_the_encoder_are_refused(routing, more, key):
    with pytest.raises(ConfigError, match=f"^{key}"):
        make_module(routing, **more)
