"""The same numbers as torch's fused Adam, whatever gradients are there, and the same state."""

from __future__ import annotations

import copy

import torch

from fetchlab.algos.adam import FusedAdam

SHAPES = ((7, 5), (5,), (2, 3, 4))


def pair(two_groups=False):
    torch.manual_seed(0)
    optimizers, params = [], []
    for kind in (torch.optim.Adam, FusedAdam):
        own = [torch.nn.Parameter(torch.randn(shape, generator=seeded(1))) for shape in SHAPES]
        groups = [{"params": own[:2]}, {"params": own[2:]}] if two_groups else own
        optimizers.append(kind(groups, lr=0.01, fused=True))
        params.append(own)
    return optimizers, params


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def step(optimizers, params, seed, skip=()):
    for optimizer, own in zip(optimizers, params, strict=True):
        rng = seeded(seed)
        for index, param in enumerate(own):
            grad = torch.randn(param.shape, generator=rng)
            param.grad = None if index in skip else grad
        optimizer.step()


def assert_equal(optimizers, params):
    torchs, ours = (optimizer.state_dict() for optimizer in optimizers)
    assert all(torch.equal(a, b) for a, b in zip(*params, strict=True))
    assert torchs["state"].keys() == ours["state"].keys()
    for index, state in torchs["state"].items():
        assert all(torch.equal(state[name], ours["state"][index][name]) for name in state)


def test_many_steps_are_torchs_bit_for_bit():
    for two_groups in (False, True):
        optimizers, params = pair(two_groups)
        for seed in range(20):
            step(optimizers, params, seed)
        assert optimizers[1]._lists is not None
        assert_equal(optimizers, params)


def test_parameters_without_a_gradient_keep_their_own_count():
    optimizers, params = pair()
    for seed, skip in enumerate([(), (0,), (), (1, 2), (), ()]):
        step(optimizers, params, seed, skip)
    assert_equal(optimizers, params)
    steps = [state["step"].item() for state in optimizers[1].state_dict()["state"].values()]
    assert steps == [5.0, 5.0, 5.0]


def test_it_continues_from_torchs_state_and_torch_from_its():
    optimizers, params = pair()
    for seed in range(4):
        step(optimizers, params, seed)
    states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    for optimizer, state in zip(optimizers, reversed(states), strict=True):
        optimizer.load_state_dict(state)
    for seed in range(4, 8):
        step(optimizers, params, seed)
    assert_equal(optimizers, params)


def test_hooks_are_called_once_a_step_where_there_are_some():
    (_, optimizer), (_, own) = pair()
    calls = []

    def steps(count):
        for _ in range(count):
            for param in own:
                param.grad = torch.ones_like(param)
            optimizer.step()

    steps(3)
    handles = [
        optimizer.register_step_pre_hook(lambda *_: calls.append("pre")),
        optimizer.register_step_post_hook(lambda *_: calls.append("post")),
    ]
    steps(2)
    assert calls == ["pre", "post"] * 2
    for handle in handles:
        handle.remove()
    steps(2)
    assert calls == ["pre", "post"] * 2
    assert optimizer.state[own[0]]["step"].item() == 7.0


def test_a_closure_gives_its_loss():
    (_, optimizer), (_, own) = pair()

    def closure():
        loss = sum(param.square().sum() for param in own)
        optimizer.zero_grad()
        loss.backward()
        return loss

    first, second = optimizer.step(closure), optimizer.step(closure)
    assert second < first
