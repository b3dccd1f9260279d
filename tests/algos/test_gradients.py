"""Which loss moves what, by autograd: every shipped routing, and one that is not what it says."""

from __future__ import annotations

import torch
from small_sac import ROUTINGS, make_batch, make_module
from test_distill import make_student

from fetchlab.algos.gradients import look

#: The losses that move the encoder; heads of the goal prediction always learn.
ENCODER = {
    "critic": {"critic", "auxiliary"},
    "actor": {"actor"},
    "joint": {"critic", "actor", "auxiliary"},
    "auxiliary": {"auxiliary"},
    "frozen": set(),
}


def moved(found):
    return {(one.loss, one.part) for one in found if one.moved}


def test_every_shipped_routing_does_what_it_says():
    assert ENCODER.keys() == ROUTINGS.keys()
    for name, losses in ENCODER.items():
        module = make_module(ROUTINGS[name], goal_weight=1.0)
        before = {key: value.clone() for key, value in module.agent.critic.state_dict().items()}
        found = look(module, make_batch())
        own = {("critic", "critic"), ("actor", "actor"), ("auxiliary", "auxiliary")}
        by_encoder = {(loss, "encoder") for loss in losses}
        if name == "actor":  # configs/routing/actor.yaml
            by_encoder = {(loss, "encoder") for loss in ROUTINGS[name].trained_by}
        assert moved(found) == own | by_encoder
        assert all(one.as_it_should for one in found)
        assert len(found) == 3 * 4
        after = module.agent.critic.state_dict()
        assert all(torch.equal(value, after[key]) for key, value in before.items())
        module.learn(make_batch())  # its own steps are back
        assert not all(torch.equal(value, after[key].clone()) for key, value in before.items())


def test_the_actors_loss_passes_through_the_critics_and_moves_none_of_them():
    (one,) = [
        one
        for one in look(make_module(ROUTINGS["critic"]), make_batch())
        if (one.loss, one.part) == ("actor", "critic")
    ]
    assert one.reached > 0
    assert (one.moved, one.expected) == (0, False)


def test_a_routing_that_is_not_what_it_says_is_found():
    """Stable-Baselines3's: the actor's optimizer has the encoder, and the critics do not see it."""
    module = make_module(ROUTINGS["actor"])
    module.routing = ROUTINGS["critic"]
    module.route = lambda loss, features: features if loss == "actor" else features.detach()
    wrong = {(one.loss, one.part) for one in look(module, make_batch()) if not one.as_it_should}
    assert ("critic", "encoder") in wrong


def test_from_the_state_there_is_no_encoder_to_move():
    found = look(make_module(pixels=False), make_batch(pixels=False))
    assert moved(found) == {("critic", "critic"), ("actor", "actor")}
    assert {one.part for one in found} == {"critic", "actor"}


def test_a_loss_that_is_only_measured_moves_nothing_and_should_not():
    found = look(make_student("estimate"), make_batch())
    assert {one.loss for one in found} == {"actor", "auxiliary"}
    assert moved(found) == {("auxiliary", "encoder"), ("auxiliary", "auxiliary")}
    assert all(one.as_it_should for one in found)
