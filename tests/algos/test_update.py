"""Which optimizer holds what, which loss reaches what, and what one update does.

The study's five checks, on the real module: membership, critic gradient, actor gradient,
actor-through-critic path, target averaging.
"""

from __future__ import annotations

import copy

import lightning.pytorch as pl
import pytest
import torch
from small_sac import (
    PROPRIO,
    ROUTINGS,
    STATE_INPUTS,
    differs,
    make_agent,
    make_batch,
    make_module,
    optimizer_ids,
    steps_of,
    update_watched,
)

from fetchlab.errors import ConfigError, NonFiniteError
from fetchlab.networks import agent as agent_module
from fetchlab.networks.pixel_encoder import scaled


@pytest.mark.parametrize(
    ("routing", "holder"),
    [(ROUTINGS["critic"], 0), (ROUTINGS["actor"], 1)],
    ids=["critic", "actor"],
)
def test_the_encoder_is_in_exactly_one_optimizer(routing, holder):
    module = make_module(routing)
    encoder = {id(p) for p in module.agent.encoder.parameters()}
    assert encoder
    assert encoder <= optimizer_ids(module, holder)
    assert not encoder & optimizer_ids(module, 1 - holder)
    assert {id(p) for p in module.agent.critic.parameters()} <= optimizer_ids(module, 0)
    assert {id(p) for p in module.agent.actor.parameters()} <= optimizer_ids(module, 1)
    targets = [*module.agent.critic_target.parameters(), *module.agent.encoder_target.parameters()]
    held = optimizer_ids(module, 0) | optimizer_ids(module, 1)
    assert not {id(p) for p in targets} & held


def test_critic_routing_trains_the_encoder_by_the_critic_loss_only():
    before, after_critic, after_actor = steps_of(make_module(ROUTINGS["critic"]), make_batch())
    assert differs(before, after_critic)
    assert not differs(after_critic, after_actor)


def test_actor_routing_trains_the_encoder_by_the_actor_loss_only():
    before, after_critic, after_actor = steps_of(make_module(ROUTINGS["actor"]), make_batch())
    assert not differs(before, after_critic)
    assert differs(after_critic, after_actor)


def test_every_encoder_parameter_gets_a_gradient_from_its_loss():
    module = make_module(ROUTINGS["critic"])
    gradients = {}

    def see(name):
        if name == "critic":
            gradients.update({k: p.grad for k, p in module.agent.encoder.named_parameters()})

    update_watched(module, make_batch(), see)
    assert gradients
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients.values())


def test_the_actor_step_leaves_the_critics_alone():
    module = make_module(ROUTINGS["critic"])
    weights = []
    see = lambda _: weights.append(copy.deepcopy(module.agent.critic.state_dict()))  # noqa: E731
    update_watched(module, make_batch(), see)
    assert not differs(*weights)


def test_targets_move_by_tau():
    module = make_module(ROUTINGS["critic"], tau=0.25)
    old = {k: v.clone() for k, v in module.agent.state_dict().items()}
    module.learn(make_batch())
    new = module.agent.state_dict()
    for part in ("critic", "encoder"):
        for key in [k for k in old if k.startswith(f"{part}_target.")]:
            online = new[key.replace(f"{part}_target.", f"{part}.")]
            torch.testing.assert_close(new[key], 0.75 * old[key] + 0.25 * online)


def test_an_update_runs_five_encoder_passes_and_no_more():
    module = make_module(ROUTINGS["critic"])
    calls = {"encoder": 0, "encoder_target": 0}
    for name in calls:
        getattr(module.agent, name).register_forward_hook(
            lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)
        )
    module.learn(make_batch())
    # obs with gradients (a forward and its backward cost three), next online, next target
    assert calls == {"encoder": 2, "encoder_target": 1}


def test_the_next_images_are_converted_once_for_both_encoders(monkeypatch):
    converted = []

    def spy(pixels, *options):
        converted.append(pixels)
        return scaled(pixels, *options)

    monkeypatch.setattr(agent_module, "scaled", spy)
    make_module(ROUTINGS["critic"]).learn(make_batch())
    assert len(converted) == 2  # of obs and next obs
    # An actor without pixels has no use for the online features of the next ones.
    converted.clear()
    inputs = ["state", "desired_goal"]
    make_module(ROUTINGS["critic"], actor_inputs=inputs).learn(make_batch())
    assert len(converted) == 2


def test_the_same_seed_gives_the_same_weights():
    first, second = make_module(), make_module()
    for module in (first, second):
        for seed in range(3):
            module.learn(make_batch(seed=seed))
    assert not differs(first.state_dict(), second.state_dict())
    assert first.grad_updates == 3


def test_state_agent_runs_without_an_encoder():
    module = make_module(pixels=False)
    before = copy.deepcopy(module.agent.state_dict())
    module.training_step(torch.stack([make_batch(pixels=False, seed=s) for s in range(2)]), 0)
    assert module.grad_updates == 2
    assert differs(before, module.agent.state_dict())
    assert module.pop_metrics().keys() >= {"train/critic_loss", "train/actor_loss", "train/q_mean"}
    assert module.pop_metrics() == {}


def test_a_nan_reward_stops_before_any_weight_moves():
    module = make_module(pixels=False)
    before = copy.deepcopy(module.state_dict())
    batch = make_batch(pixels=False)
    batch["next", "reward"][2] = float("nan")
    with pytest.raises(NonFiniteError, match="update 1: critic loss or gradient is not finite"):
        module.learn(batch)
    assert not differs(before, module.state_dict())


def test_learned_entropy_falls_while_the_policy_is_more_random_than_its_target():
    module = make_module(pixels=False, learn_entropy=True, entropy_coefficient=1.0)
    before = module.log_alpha.item()
    assert id(module.log_alpha) in optimizer_ids(module, 1)
    module.learn(make_batch(pixels=False))
    assert module.log_alpha.item() < before


def test_derived_entries_are_slices_of_the_normalised_state():
    module = make_module(pixels=False, actor_inputs=["proprio", "achieved_goal", "desired_goal"])
    batch = make_batch(pixels=False)
    vectors = module.agent.vectors(batch, batch["desired_goal"])
    torch.testing.assert_close(vectors["proprio"], batch["state"][:, list(PROPRIO)])
    torch.testing.assert_close(vectors["achieved_goal"], batch["state"][:, 3:6])


@pytest.mark.parametrize(
    ("routing", "inputs", "key"),
    [
        (ROUTINGS["critic"], {"critic_inputs": STATE_INPUTS}, "obs.critic_inputs"),
        (ROUTINGS["actor"], {"actor_inputs": STATE_INPUTS}, "obs.actor_inputs"),
    ],
)
def test_a_routing_whose_loss_sees_no_pixels_is_refused(routing, inputs, key):
    with pytest.raises(ConfigError, match=key):
        make_module(routing, **inputs)


@pytest.mark.parametrize(
    "inputs", [[""], ["states", "desired_goal"], ["state", "state", "desired_goal"], ["state"]]
)
def test_bad_input_lists_are_refused(inputs):
    with pytest.raises(ConfigError, match=r"obs\.actor_inputs"):
        make_agent(pixels=False, actor_inputs=inputs)


class StepsSeen(pl.Callback):
    def __init__(self):
        self.steps, self.backwards = 0, 0

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.steps += 1

    def on_after_backward(self, trainer, pl_module):
        self.backwards += 1


def test_callbacks_that_follow_steps_see_them_and_change_nothing():
    plain, watched = make_module(), make_module()
    seen = StepsSeen()
    watched.trainer.callbacks.append(seen)
    for module in (plain, watched):
        for seed in range(2):
            module.learn(make_batch(seed=seed))
    assert (seen.steps, seen.backwards) == (4, 4)
    assert not differs(plain.state_dict(), watched.state_dict())


def test_a_fixed_entropy_coefficient_is_the_runs_own_whatever_weights_it_begins_with():
    weights = make_module(entropy_coefficient=0.05).state_dict()
    fixed, learned = (
        make_module(entropy_coefficient=0.2, learn_entropy=is_) for is_ in (False, True)
    )
    for module in (fixed, learned):
        module.load_state_dict(weights)
    assert fixed.log_alpha.exp().item() == pytest.approx(0.2)
    assert learned.log_alpha.exp().item() == pytest.approx(0.05)
    assert weights["log_alpha"].exp().item() == pytest.approx(0.05)
