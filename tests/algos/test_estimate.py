"""``estimated_goal``: acting, what the encoder sees; learning, the stored one."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from small_sac import ROUTINGS, SIZE, SPEC, STACK, make_batch, make_module
from tensordict import TensorDict

from fetchlab.algos.auxiliary import GoalPrediction
from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, STATE
from fetchlab.errors import ConfigError

INPUTS = ["estimated_goal", "proprio", "desired_goal"]
STATE_INPUTS = ["state", "achieved_goal", "desired_goal"]
make = partial(
    make_module, routing=ROUTINGS["auxiliary"], actor_inputs=INPUTS, critic_inputs=STATE_INPUTS
)


@pytest.fixture
def module():
    return make(goal_weight=1.0)


def rows(n=5, seed=0):
    """What simulators gave."""
    rng = torch.Generator().manual_seed(seed)
    images = (n, 3 * STACK, SIZE, SIZE)
    entries = {
        "state": torch.randn(n, 25, generator=rng),
        "desired_goal": torch.randn(n, 3, generator=rng),
        "frames": torch.randint(0, 256, images, dtype=torch.uint8, generator=rng),
    }
    return TensorDict(entries, batch_size=[n])


def test_an_acting_actor_is_given_what_the_encoder_reads_off_the_pixels(module):
    obs = rows()
    guess = module.agent.auxiliary["goal_prediction"].predict_goal(
        module.agent.encode(obs["frames"])
    )
    given = module.actor_input(obs)
    assert torch.equal(given[:, :3], guess.detach())
    assert torch.equal(given[:, 3:13], obs["state"][:, list(SPEC.proprio)])
    assert torch.equal(given[:, 13:], obs["desired_goal"])


def test_sensors_that_tell_the_achieved_goal_too_stay_as_they_are():
    spec = replace(SPEC, proprio=(3, 4, 5, 9))  # as a robot's that is to reach something itself
    module, obs = make(goal_weight=1.0, spec=spec), rows()
    given, goal = module.actor_input(obs), slice(3, 6)
    assert not torch.equal(given[:, :3], obs["state"][:, goal])
    assert torch.equal(given[:, 3:7], obs["state"][:, list(spec.proprio)])


def test_no_action_depends_on_where_the_object_is_said_to_be(module):
    obs, moved = rows(), rows()
    moved["state"][:, [i for i in range(25) if i not in SPEC.proprio]] += 1.0
    assert torch.equal(module.act(obs), module.act(moved))
    darker = rows()
    darker["frames"] = darker["frames"] // 2
    assert not torch.equal(module.act(obs), module.act(darker))
    assert torch.equal(obs[STATE], rows()[STATE])  # the simulator's rows stay as they were


def test_a_learning_actor_is_given_the_stored_goal(module):
    batch = make_batch()
    vectors = module.agent.vectors(batch, batch.get(DESIRED_GOAL))
    stored = module.agent.env_spec.achieved_goal(batch)
    assert torch.equal(vectors["estimated_goal"], stored)
    assert torch.equal(vectors[ACHIEVED_GOAL], stored)


def test_only_the_auxiliary_loss_reaches_the_encoder(module):
    before = [p.detach().clone() for p in module.agent.encoder.parameters()]
    module.learn(make_batch())
    after = list(module.agent.encoder.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    metrics = module.pop_metrics()
    assert metrics["train/feature_gradient_auxiliary"] > 0
    assert metrics["train/feature_gradient_actor"] == 0
    assert metrics["train/feature_gradient_critic"] == 0


@pytest.mark.parametrize("target_encoder", [True, False])
def test_an_update_encodes_what_the_auxiliary_loss_reads_and_nothing_else(target_encoder):
    module, seen = make(goal_weight=1.0, target_encoder=target_encoder), []
    for encoder in (module.agent.encoder, module.agent.encoder_target):
        if encoder is not None:
            encoder.register_forward_hook(lambda *_: seen.append(1))
    module.learn(make_batch())
    assert len(seen) == 1


def test_a_guess_needs_a_loss_that_guesses():
    with pytest.raises(ConfigError, match=r"auxiliary=\[\]: expected one that predicts the goal"):
        make()


def test_critics_are_not_given_a_guess():
    with pytest.raises(ConfigError, match=r"obs.critic_inputs=.*expected no estimated_goal"):
        make(goal_weight=1.0, critic_inputs=INPUTS)


def goal_loss(huber_m):
    return GoalPrediction(
        2, SPEC, weight=1.0, hidden=4, centre_m=[1.3, 0.7, 0.4], scale_m=0.1, huber_m=huber_m
    )


def loss_at(of, offset_m):
    """Value and gradient by the guess, for one row whose guess is off by that much along x."""
    batch = make_batch()[:1]
    guess = (of._env_spec.achieved_goal(batch) + torch.tensor([[offset_m, 0.0, 0.0]])).detach()
    guess.requires_grad_(True)
    of.predict_goal = lambda features: guess
    loss, metrics = of(torch.zeros(1, 2), batch, None)
    loss.backward()
    assert metrics["train/goal_error_m"].item() == pytest.approx(abs(offset_m), abs=1e-6)
    return loss.item(), guess.grad[0, 0].item()


def test_the_goal_loss_is_squared_near_and_linear_far_away_by_hand():
    # In units of 0.1 m: d^2 up to 0.2, then 2 * 0.2 d - 0.04; the gradient is by metres.
    assert loss_at(goal_loss(0.02), 0.01) == pytest.approx((0.01, 2.0), rel=1e-3)
    assert loss_at(goal_loss(0.02), 0.02) == pytest.approx((0.04, 4.0), rel=1e-3)
    assert loss_at(goal_loss(0.02), 0.5) == pytest.approx((1.96, 4.0), rel=1e-3)
    assert loss_at(goal_loss(None), 0.5) == pytest.approx((25.0, 100.0), rel=1e-3)
    assert loss_at(goal_loss(0.02), 0.0) == (0.0, 0.0)
