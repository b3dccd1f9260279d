"""The student of a teacher: labels by hand, what learns from them, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
from known_specs import PUSH
from small_sac import ROUTINGS, SPEC, differs, make_agent, make_batch, make_module
from torch import nn

from fetchlab.algos.auxiliary import GoalPrediction, NextFeatures
from fetchlab.algos.distill import Distill
from fetchlab.errors import ConfigError

GAIN = 5.0
VECTOR_INPUTS = ["proprio", "achieved_goal", "desired_goal"]
STRICT_INPUTS = ["pixels", "proprio", "desired_goal"]
GOAL = partial(
    GoalPrediction, weight=1.0, hidden=16, centre_m=[0.1, 0.2, 0.3], scale_m=0.5, huber_m=None
)
TELLING = replace(PUSH, proprio=(0, 3))
ADAM = partial(torch.optim.Adam, lr=1e-2, fused=True)


class Towards(nn.Module):
    """tanh of it is an action (B, 4) that pushes from the achieved to the desired goal."""

    def forward(self, x):
        achieved, desired = x[:, -6:-3], x[:, -3:]
        return GAIN * torch.cat((desired - achieved, torch.zeros(len(x), 1)), 1), None


def make_teacher(inputs=VECTOR_INPUTS):
    teacher = make_module(pixels=False, actor_inputs=inputs, critic_inputs=inputs)
    teacher.agent.actor = Towards()
    return teacher


def make_student(student="actor", teacher=None, **more):
    own = {"teacher": teacher or make_teacher(), "student": student, "hidden": (16, 16)}
    own |= {"actor_layer_norm": False, "exploration_std": 0.0, "teacher_share": 0.0}
    own |= {"discount": 0.95, "tau": 0.5, "q_bounds": False, "n_step": 1}
    own |= {"target_encoder": True, "auxiliary_every": 1}
    more = {"actor_inputs": STRICT_INPUTS, "critic_inputs": STRICT_INPUTS, **more}
    more = {"routing": ROUTINGS["actor"], "auxiliary": {"goal_prediction": GOAL}, **more}
    return make_module(algorithm=Distill, settings=own, **more)


def by_hand(achieved, desired):
    """The teacher's actions (B, 4)."""
    return torch.tanh(GAIN * torch.cat((desired - achieved, torch.zeros(len(desired), 1)), 1))


def simulator_rows():
    rows = make_batch()
    rows["frames"] = rows["pixels"][:, :2].flatten(1, 2)
    return rows


def test_a_label_is_the_teachers_action_at_the_stored_state_and_the_batchs_goal():
    module, batch = make_student(), make_batch()
    batch["desired_goal"] = batch["state"][:, 3:6] + 0.02 * torch.arange(18).view(6, 3)
    label = by_hand(batch["state"][:, 3:6], batch["desired_goal"])
    torch.testing.assert_close(module.teacher.act(batch), label)
    obs = module.agent.look(batch, module.rng).obs
    seen = module.agent.actor_input(obs.vectors, module.agent.encode(obs.images))
    offset = torch.tanh(module.agent.actor(seen)) - label
    module.learn(batch)
    expected = offset.square().sum(1).mean().item()
    assert module.pop_metrics()["train/actor_loss"] == pytest.approx(expected, rel=1e-5)


def test_an_estimating_student_is_its_teacher_on_what_it_sees():
    module, rows = make_student("estimate"), simulator_rows()
    where = module.agent.auxiliary["goal_prediction"]
    guess = where.predict_goal(module.agent.encode(rows["frames"]))
    expected = by_hand(guess, rows["desired_goal"])
    torch.testing.assert_close(module.act(rows), expected)
    blind = rows.clone()
    blind["state"][:, 3:6] = 1e6  # where the object is must not be read
    torch.testing.assert_close(module.act(blind), expected)
    assert rows["state"].equal(simulator_rows()["state"])
    module.learn(rows)
    error = (expected - by_hand(rows["state"][:, 3:6], rows["desired_goal"])).square()
    loss = error.sum(1).mean().item()
    assert module.pop_metrics()["train/actor_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("student", ["actor", "estimate"])
def test_the_student_learns_through_its_encoder_and_its_teacher_stays(student):
    module = make_student(student, optimizer=ADAM)
    batch = make_batch()
    batch["state"] *= 0.2
    teacher, encoder = (copy.deepcopy(one.state_dict()) for one in (module.teacher, _sees(module)))
    losses = []
    for _ in range(120):
        module.learn(batch)
        losses.append(module.pop_metrics())
    assert losses[-1]["train/actor_loss"] < 0.3 * losses[0]["train/actor_loss"]
    assert losses[-1]["train/goal_error_m"] < 0.5 * losses[0]["train/goal_error_m"]
    assert (losses[0]["train/feature_gradient_actor"] > 0) == (student == "actor")
    assert losses[0]["train/feature_gradient_auxiliary"] > 0
    assert differs(encoder, _sees(module).state_dict())
    assert not differs(teacher, module.teacher.state_dict())
    assert module.optimizer_steps == 120


def _sees(module):
    return module.agent.encoder


@pytest.mark.parametrize("student", ["actor", "estimate"])
def test_graphs_and_a_restored_module_follow(student):
    ahead = {"next_features": partial(NextFeatures, weight=0.5, hidden=16)}
    make = partial(
        make_student, student, optimizer=ADAM, auxiliary={"goal_prediction": GOAL, **ahead}
    )
    checked, masked, again = make(), make(cuda_graphs=True), make(teacher=_other_teacher())
    for module in (checked, masked):
        module.training_step(torch.stack([make_batch(seed=seed) for seed in range(3)]), 0)
    assert not differs(checked.state_dict(), masked.state_dict())
    assert checked.pop_metrics() == masked.pop_metrics()

    checkpoint = {}
    checked.on_save_checkpoint(checkpoint)
    again.load_state_dict(checked.state_dict())
    state = copy.deepcopy(checked.trainer.optimizers[0].state_dict())
    again.trainer.optimizers[0].load_state_dict(state)
    again.on_load_checkpoint(copy.deepcopy(checkpoint))
    for module in (checked, again):
        module.learn(make_batch(seed=7))
    assert not differs(checked.state_dict(), again.state_dict())
    assert checked.pop_metrics() == again.pop_metrics()


def _other_teacher():
    teacher = make_teacher()
    for parameter in teacher.agent.parameters():  # its settings are the same
        parameter.data.add_(1.0)
    return teacher


def test_it_explores_with_noise_and_a_share_of_its_teachers_actions():
    line = {"from": 1.0, "to": 0.0, "over_env_steps": 100}
    module, rows = make_student(), simulator_rows()
    torch.testing.assert_close(module.explore(rows, 0), module.act(rows))
    sharing = _exploring(exploration_std=0.3, teacher_share=line)
    label = by_hand(rows["state"][:, 3:6], rows["desired_goal"])
    torch.testing.assert_close(sharing.explore(rows, 0), label)
    drawn = torch.stack([sharing.explore(rows, 50) for _ in range(400)])
    shared = (drawn == label).all(-1).float().mean().item()
    assert shared == pytest.approx(0.5, abs=0.05)
    noise = torch.stack([sharing.explore(rows, 100) for _ in range(400)]) - sharing.act(rows)
    assert noise.std().item() == pytest.approx(0.3, abs=0.03)


def _exploring(**own):
    module = make_student()
    for name, value in own.items():
        setattr(module, f"_{name}", type(module._exploration_std)(name, value))
    return module


def test_a_symmetry_is_refused_since_labels_are_of_rows_as_they_were():
    inputs = {"actor_inputs": VECTOR_INPUTS, "critic_inputs": VECTOR_INPUTS}
    with pytest.raises(ConfigError, match=r"^symmetry='Identity': expected none: the teacher sees"):
        make_student(pixels=False, auxiliary={}, symmetry=nn.Identity(), **inputs)


def test_the_encoders_optimizer_is_the_actors():
    with pytest.raises(ConfigError, match=r"^routing.encoder_optimizer='critic'.*routing=actor$"):
        make_student(routing=ROUTINGS["critic"])
    module = make_student()
    (optimizer,) = module.trainer.optimizers
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for part in ("actor", "encoder", "auxiliary") for p in _of(module, part)}


def _of(module, part):
    return getattr(module.agent, part).parameters()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"auxiliary": {}},
            "one auxiliary loss predicts the goal; use auxiliary=[goal_prediction]",
        ),
        ({"auxiliary": {"mine": GOAL, "goal_prediction": GOAL}}, "not exactly one auxiliary loss"),
        ({"teacher": "knows the state"}, "the teacher is given state, which is not estimated"),
        ({"actor_inputs": ["pixels", "desired_goal"]}, "the teacher is given proprio"),
        ({"spec": TELLING}, "the proprioception tells the achieved goal (task.proprio has [3])"),
    ],
)
def test_an_estimate_of_more_than_where_the_object_is_is_refused(more, says):
    if "teacher" in more:
        more = {"teacher": make_teacher(["state", "achieved_goal", "desired_goal"])}
    with pytest.raises(ConfigError) as caught:
        make_student("estimate", **more)
    assert str(caught.value).startswith("algo.student='estimate': expected actor")
    assert says in str(caught.value)


def test_a_student_may_lack_a_camera_and_have_a_teacher_who_knows_more():
    teacher = make_teacher(["state", "achieved_goal", "desired_goal"])
    inputs = {"actor_inputs": VECTOR_INPUTS, "critic_inputs": VECTOR_INPUTS}
    module = make_student(teacher=teacher, pixels=False, auxiliary={}, optimizer=ADAM, **inputs)
    losses = []
    for _ in range(60):
        module.learn(make_batch(pixels=False))
        losses.append(module.pop_metrics()["train/actor_loss"])
    assert losses[-1] < 0.3 * losses[0]
    assert make_agent(pixels=False).actor_dim == SPEC.state_dim + 2 * SPEC.goal_dim
