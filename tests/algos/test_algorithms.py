"""What every algorithm owes its base class, and what DDPG and TD3 do, by hand."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from small_sac import ROUTINGS, SETTINGS, SPEC, differs, make_agent, make_batch, make_module

from fetchlab.algos.auxiliary import GoalPrediction, NextFeatures
from fetchlab.algos.ddpg import DDPG
from fetchlab.algos.sac import SAC
from fetchlab.algos.td3 import TD3

COMMON = {"hidden": (16, 16), "ensemble": 2, "layer_norm": False, "actor_layer_norm": True}
COMMON |= {"discount": 0.5, "tau": 0.25, "q_bounds": False, "n_step": 1, "exploration_std": 0.0}
COMMON |= {"target_encoder": True, "auxiliary_every": 1}
ALL = {
    SAC: SETTINGS,
    DDPG: {**COMMON, "random_share": 0.0, "action_penalty": 0.0},
    TD3: {**COMMON, "target_noise_std": 0.2, "target_noise_clip": 0.5, "policy_delay": 2},
}
ADAM = partial(torch.optim.Adam, lr=1e-2, fused=True)


def make(algorithm, **more):
    return make_module(algorithm=algorithm, settings=ALL[algorithm], **more)


def simulator_rows(pixels):
    rows = make_batch(pixels)
    if pixels:
        rows["frames"] = rows["pixels"][:, :2].flatten(1, 2)
    return rows


@pytest.mark.parametrize("algorithm", ALL)
@pytest.mark.parametrize("pixels", [False, True])
def test_an_update_learns_acts_and_measures_what_it_announced(algorithm, pixels):
    module = make(algorithm, pixels=pixels)
    before = copy.deepcopy(module.agent.state_dict())
    for seed in range(2):
        module.learn(make_batch(pixels, seed))
    after = module.agent.state_dict()
    heads = {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])}
    assert {"actor", "critic", "critic_target"} <= heads
    assert ("encoder" in heads) == ("encoder_target" in heads) == pixels
    metrics = module.pop_metrics()
    assert tuple(metrics) == module.metric_names
    assert set(module.metrics) <= metrics.keys()
    rows = simulator_rows(pixels)
    for actions in (module.explore(rows, 0), module.act(rows)):
        assert actions.shape == (6, 4)
        assert actions.abs().max() <= 1


@pytest.mark.parametrize("algorithm", ALL)
@pytest.mark.parametrize("routing", ["critic", "actor", "joint"])
def test_graphs_follow_every_algorithm_and_routing(algorithm, routing):
    checked, masked = (
        make(algorithm, routing=ROUTINGS[routing], optimizer=ADAM, cuda_graphs=graphs)
        for graphs in (False, True)
    )
    for seeds in ((0,), (1, 2, 3), (4, 5)):
        batches = torch.stack([make_batch(seed=seed) for seed in seeds])
        for module in (checked, masked):
            module.training_step(batches, 0)
    assert not differs(checked.state_dict(), masked.state_dict())
    assert checked.pop_metrics() == masked.pop_metrics()


@pytest.mark.parametrize("algorithm", ALL)
def test_a_restored_module_goes_on_as_if_nothing_had_happened(algorithm):
    whole = make(algorithm, pixels=False, optimizer=ADAM)
    whole.learn(make_batch(False, 0))
    checkpoint = {}
    whole.on_save_checkpoint(checkpoint)
    again = make(algorithm, pixels=False, optimizer=ADAM)
    again.load_state_dict(whole.state_dict())
    pairs = zip(again.trainer.optimizers, whole.trainer.optimizers, strict=True)
    for mine, theirs in pairs:
        mine.load_state_dict(copy.deepcopy(theirs.state_dict()))
    again.on_load_checkpoint(copy.deepcopy(checkpoint))
    for module in (whole, again):
        module.learn(make_batch(False, 1))
    assert not differs(whole.state_dict(), again.state_dict())
    assert whole.pop_metrics() == again.pop_metrics()


def test_a_metric_that_was_not_announced_is_an_error():
    class Careless(SAC):
        def update(self, batch):
            return {**super().update(batch), "train/new": torch.ones(())}

    module = make_module(pixels=False, algorithm=Careless)
    with pytest.raises(RuntimeError, match=r"train/new.*announced"):
        module.learn(make_batch(pixels=False))


def test_td3_moves_actor_and_targets_in_every_second_update_alone():
    module = make(TD3, pixels=False)
    moved, losses = [], []
    for seed in range(4):
        before = copy.deepcopy(module.agent.state_dict())
        module.learn(make_batch(False, seed))
        now = module.agent.state_dict()
        changed = {key.split(".")[0] for key in now if not torch.equal(now[key], before[key])}
        moved.append(sorted(changed))
        losses.append(module.pop_metrics()["train/actor_loss"])
    follow = ["actor", "actor_target", "critic", "critic_target"]
    assert moved == [["critic"], follow, ["critic"], follow]
    assert losses[0] == 0 and losses[1] == losses[2] != losses[3]


def test_td3_targets_take_the_minimum_at_a_noisy_action_within_the_clip():
    module = make(TD3, pixels=False)
    seen = []
    inner = module.agent.critic_target.forward

    def judge(x, action):
        seen.append(action)
        return inner(x, action)

    module.agent.critic_target.forward = judge
    batch = make_batch(False)
    next_obs = module.agent.look(batch, module.rng).next_obs
    clean = torch.tanh(module.agent.actor_target(module.agent.actor_input(next_obs.vectors, None)))
    target, _ = module._target(batch["next"], next_obs)
    offset = seen[0] - clean
    assert 0 < offset.abs().max() <= 0.5 + 1e-6
    q = inner(module.agent.critic_input(next_obs.vectors, None), seen[0]).amin(0)
    torch.testing.assert_close(target, -1 + 0.5 * q)


def test_ddpg_follows_its_critic_and_pays_for_large_actions():
    module = make(DDPG, pixels=False, action_penalty=3.0)
    batch = make_batch(False)
    obs = module.agent.look(batch, module.rng).obs
    frozen = copy.deepcopy(module.agent.actor)
    module.learn(batch)
    x = module.agent.actor_input(obs.vectors, None)
    action = torch.tanh(frozen(x))
    q = module.agent.critic(module.agent.critic_input(obs.vectors, None), action).amin(0)
    size = action.square().mean()
    metrics = module.pop_metrics()
    expected = (3 * size - q.mean()).item()  # the critic has stepped before the actor
    assert metrics["train/actor_loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["train/action_size"] == pytest.approx(size.sqrt().item(), rel=1e-5)


def test_ddpg_explores_with_a_schedule_and_a_share_of_uniform_actions():
    line = {"from": 1.0, "to": 0.0, "over_env_steps": 100}
    module = make(DDPG, pixels=False, exploration_std=line)
    rows = simulator_rows(False)
    quiet = module.act(rows)
    assert (module.explore(rows, 0) - quiet).abs().max() > 0.1
    torch.testing.assert_close(module.explore(rows, 100), quiet)
    uniform = make(DDPG, pixels=False, random_share=1.0)
    drawn = torch.cat([uniform.explore(rows, 100) for _ in range(200)])
    assert drawn.mean().abs() < 0.05
    assert drawn.var().item() == pytest.approx(1 / 3, abs=0.03)


def test_next_features_are_twice_one_minus_the_cosine_and_can_be_learned():
    torch.manual_seed(0)
    loss_of = NextFeatures(5, SPEC, weight=1.0, hidden=32)
    features, ahead, batch = torch.randn(6, 5), torch.randn(6, 5), make_batch()
    optimizer, cosines = ADAM(loss_of.parameters()), []
    for _ in range(60):
        optimizer.zero_grad()
        loss, metrics = loss_of(features, batch, ahead)
        loss.backward()
        optimizer.step()
        cosines.append(metrics["train/next_features_cosine"].item())
    predicted = loss_of.layers(torch.cat((features, batch["action"]), 1))
    expected = torch.cosine_similarity(predicted, ahead).mean().item()
    final = loss_of(features, batch, ahead)[0].item()
    assert final == pytest.approx(2 - 2 * expected, abs=1e-5)
    assert cosines[0] < 0.5 < 0.9 < cosines[-1]


def test_several_auxiliary_losses_teach_together_each_with_its_weight_and_metrics():
    goal = {"hidden": 16, "centre_m": [1.3, 0.7, 0.4], "scale_m": 0.1, "huber_m": None}
    losses = {
        "goal_prediction": partial(GoalPrediction, weight=1.0, **goal),
        "next_features": partial(NextFeatures, weight=0.5, hidden=16),
    }
    module = make_module(
        ROUTINGS["auxiliary"],
        auxiliary=losses,
        critic_inputs=["state", "desired_goal"],  # then nobody else asks for the target's features
    )
    heads = copy.deepcopy(module.agent.auxiliary.state_dict())
    module.learn(make_batch())
    after = module.agent.auxiliary.state_dict()
    assert {key.split(".")[0] for key in heads if not torch.equal(heads[key], after[key])} == {
        *losses
    }
    assert module.metric_names[-2:] == ("train/goal_error_m", "train/next_features_cosine")
    assert module.pop_metrics()["train/feature_gradient_auxiliary"] > 0


def test_specs_of_other_sizes_make_other_heads():
    agent = make_agent(pixels=False)
    assert agent.actor_dim == SPEC.state_dim + 2 * SPEC.goal_dim
