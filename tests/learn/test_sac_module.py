"""Which optimizer holds what, which loss reaches what, and what one update does.

The study's five checks, on the real module: membership, critic gradient, actor gradient,
actor-through-critic path, target averaging.
"""

from __future__ import annotations

import copy
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from tensordict import TensorDict

from fetchlab.augment.none import NoAugment
from fetchlab.learn.sac_module import NonFiniteError, SACModule
from fetchlab.learn.settings import SACSettings
from fetchlab.networks.agent import Agent, AgentSizes, StateLayout
from fetchlab.networks.encoders.manipulation_cnn import ManipulationCNN
from fetchlab.networks.normalizer import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder
from fetchlab.networks.pooling.spatial_softmax import SpatialSoftmax
from fetchlab.routing.actor import ActorRouting
from fetchlab.routing.critic import CriticRouting
from fetchlab.types import ConfigError

LAYOUT = StateLayout(25, (0, 1, 2, 9, 10, 20, 21, 22, 23, 24), slice(3, 6))
PIXEL_INPUTS = ["pixels", "proprio", "achieved_goal", "desired_goal"]
STATE_INPUTS = ["state", "achieved_goal", "desired_goal"]
B, STACK, SIZE = 6, 2, 20


def make_module(routing=None, pixels=True, actor_inputs=None, critic_inputs=None, **settings):
    torch.manual_seed(3)
    encoder = None
    if pixels:
        cnn = ManipulationCNN(in_channels=3 * STACK, image_size=SIZE, filters=4)
        encoder = PixelEncoder(cnn, SpatialSoftmax(in_shape=cnn.out_shape, temperature=1.0))
    default = PIXEL_INPUTS if pixels else STATE_INPUTS
    agent = Agent(
        LAYOUT,
        actor_inputs or default,
        critic_inputs or default,
        encoder,
        VectorNormalizer({"state": 25, "desired_goal": 3}, "none", 1e-3, 5.0),
        AgentSizes((16, 16), 2, -20.0, 2.0),
    )
    values = {
        "discount": 0.95,
        "tau": 0.005,
        "entropy_coefficient": 0.05,
        "learn_entropy": False,
        "q_bounds": False,
        "backup_entropy": True,
        **settings,
    }
    module = SACModule(
        agent,
        routing or CriticRouting(),
        NoAugment(),
        SACSettings(**values),
        partial(torch.optim.SGD, lr=0.1),
        partial(torch.optim.SGD, lr=0.1),
        explore_seed=0,
        update_seed=1,
    )
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.strategy.connect(module)
    module.trainer = trainer
    trainer.strategy._lightning_module = module
    trainer.strategy.setup_optimizers(trainer)
    return module


def make_batch(pixels=True, seed=0):
    rng = torch.Generator().manual_seed(seed)
    batch = TensorDict(
        {
            "state": torch.randn(B, 25, generator=rng),
            "desired_goal": torch.randn(B, 3, generator=rng),
            "action": torch.rand(B, 4, generator=rng) * 2 - 1,
            "next": TensorDict(
                {
                    "state": torch.randn(B, 25, generator=rng),
                    "reward": -torch.ones(B),
                    "terminated": torch.zeros(B, dtype=torch.bool),
                },
                batch_size=[B],
            ),
        },
        batch_size=[B],
    )
    if pixels:
        shape = (B, STACK + 1, 3, SIZE, SIZE)
        batch["pixels"] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=rng)
    return batch


def optimizer_ids(module, index):
    optimizer = module.trainer.optimizers[index]
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize(
    ("routing", "holder"), [(CriticRouting(), 0), (ActorRouting(), 1)], ids=["critic", "actor"]
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


def steps_of(module, batch):
    """Encoder weights before the update, after the critic's step, after the actor's step."""
    seen = [copy.deepcopy(module.agent.encoder.state_dict())]
    inner = module._step

    def spy(optimizer, loss, name, params):
        inner(optimizer, loss, name, params)
        seen.append(copy.deepcopy(module.agent.encoder.state_dict()))

    module._step = spy
    module.update(batch)
    return seen


def differs(a, b):
    return any(not torch.equal(a[key], b[key]) for key in a)


def test_critic_routing_trains_the_encoder_by_the_critic_loss_only():
    before, after_critic, after_actor = steps_of(make_module(CriticRouting()), make_batch())
    assert differs(before, after_critic)
    assert not differs(after_critic, after_actor)


def test_actor_routing_trains_the_encoder_by_the_actor_loss_only():
    before, after_critic, after_actor = steps_of(make_module(ActorRouting()), make_batch())
    assert not differs(before, after_critic)
    assert differs(after_critic, after_actor)


def test_every_encoder_parameter_gets_a_gradient_from_its_loss():
    module = make_module(CriticRouting())
    gradients = {}
    inner = module._step

    def spy(optimizer, loss, name, params):
        inner(optimizer, loss, name, params)
        if name == "critic":
            gradients.update({k: p.grad for k, p in module.agent.encoder.named_parameters()})

    module._step = spy
    module.update(make_batch())
    assert gradients
    assert all(grad is not None and grad.abs().sum() > 0 for grad in gradients.values())


def test_the_actor_step_leaves_the_critics_alone():
    module = make_module(CriticRouting())
    weights = []
    inner = module._step

    def spy(optimizer, loss, name, params):
        inner(optimizer, loss, name, params)
        weights.append(copy.deepcopy(module.agent.critic.state_dict()))

    module._step = spy
    module.update(make_batch())
    assert not differs(*weights)


def test_targets_move_by_tau():
    module = make_module(CriticRouting(), tau=0.25)
    old = {k: v.clone() for k, v in module.agent.state_dict().items()}
    module.update(make_batch())
    new = module.agent.state_dict()
    for part in ("critic", "encoder"):
        for key in [k for k in old if k.startswith(f"{part}_target.")]:
            online = new[key.replace(f"{part}_target.", f"{part}.")]
            torch.testing.assert_close(new[key], 0.75 * old[key] + 0.25 * online)


def test_an_update_runs_five_encoder_passes_and_no_more():
    module = make_module(CriticRouting())
    calls = {"encoder": 0, "encoder_target": 0}
    for name in calls:
        getattr(module.agent, name).register_forward_hook(
            lambda *_, name=name: calls.__setitem__(name, calls[name] + 1)
        )
    module.update(make_batch())
    # obs with gradients (a forward and its backward cost three), next online, next target
    assert calls == {"encoder": 2, "encoder_target": 1}


def test_the_same_seed_gives_the_same_weights():
    first, second = make_module(), make_module()
    for module in (first, second):
        for seed in range(3):
            module.update(make_batch(seed=seed))
    assert not differs(first.state_dict(), second.state_dict())
    assert first.grad_updates == 3


def test_state_agent_runs_without_an_encoder():
    module = make_module(pixels=False)
    before = copy.deepcopy(module.agent.state_dict())
    module.training_step(torch.stack([make_batch(pixels=False, seed=s) for s in range(2)]), 0)
    assert module.grad_updates == 2
    assert differs(before, module.agent.state_dict())
    assert module.sums.pop().keys() >= {"train/critic_loss", "train/actor_loss", "train/q_mean"}
    assert module.sums.pop() == {}


def test_a_nan_reward_stops_before_any_weight_moves():
    module = make_module(pixels=False)
    before = copy.deepcopy(module.state_dict())
    batch = make_batch(pixels=False)
    batch["next", "reward"][2] = float("nan")
    with pytest.raises(NonFiniteError, match="critic loss or gradient is not finite at update 1"):
        module.update(batch)
    assert not differs(before, module.state_dict())


def test_learned_entropy_falls_while_the_policy_is_more_random_than_its_target():
    module = make_module(pixels=False, learn_entropy=True, entropy_coefficient=1.0)
    before = module.log_alpha.item()
    assert id(module.log_alpha) in optimizer_ids(module, 1)
    module.update(make_batch(pixels=False))
    assert module.log_alpha.item() < before


def test_derived_entries_are_slices_of_the_normalised_state():
    module = make_module(pixels=False, actor_inputs=["proprio", "achieved_goal", "desired_goal"])
    batch = make_batch(pixels=False)
    vectors = module.agent.vectors(batch, batch["desired_goal"])
    torch.testing.assert_close(vectors["proprio"], batch["state"][:, list(LAYOUT.proprio_indices)])
    torch.testing.assert_close(vectors["achieved_goal"], batch["state"][:, 3:6])


@pytest.mark.parametrize(
    ("routing", "inputs", "key"),
    [
        (CriticRouting(), {"critic_inputs": STATE_INPUTS}, "obs.critic_inputs"),
        (ActorRouting(), {"actor_inputs": STATE_INPUTS}, "obs.actor_inputs"),
    ],
)
def test_a_routing_whose_loss_sees_no_pixels_is_refused(routing, inputs, key):
    with pytest.raises(ConfigError, match=key):
        make_module(routing, **inputs)


@pytest.mark.parametrize(
    "inputs", [[], ["states", "desired_goal"], ["state", "state", "desired_goal"], ["state"]]
)
def test_bad_input_lists_are_refused(inputs):
    with pytest.raises(ConfigError, match=r"obs\.actor_inputs"):
        Agent(LAYOUT, inputs, STATE_INPUTS, None, None, None)


@pytest.mark.parametrize(
    ("key", "value"),
    [("discount", 1.0), ("discount", 0.0), ("tau", 0.0), ("entropy_coefficient", 0.0)],
)
def test_bad_settings_are_refused(key, value):
    with pytest.raises(ConfigError, match=f"algo.{key}"):
        make_module(pixels=False, **{key: value})
