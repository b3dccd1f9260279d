"""The path of CUDA graphs, on a CPU: masked steps on static tensors, without the recording."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from small_sac import differs, make_batch, make_module

from fetchlab.algos import steps as module_under_test
from fetchlab.algos.steps import CapturedUpdates, count_non_finite
from fetchlab.errors import ConfigError, NonFiniteError

ADAM = partial(torch.optim.Adam, lr=1e-2, fused=True)


def modules(**settings):
    return [make_module(cuda_graphs=graphs, optimizer=ADAM, **settings) for graphs in (False, True)]


@pytest.mark.parametrize("pixels", [False, True])
def test_masked_steps_on_static_tensors_change_nothing(pixels):
    checked, masked = modules(pixels=pixels)
    for seed in range(5):
        for module in (checked, masked):
            module.learn(make_batch(pixels, seed))
    assert not differs(checked.state_dict(), masked.state_dict())
    assert checked.pop_metrics() == masked.pop_metrics()
    assert checked.grad_updates == masked.grad_updates == 5


def test_a_nan_moves_no_weight_and_stops_the_run_at_the_next_reading():
    _, module = modules(pixels=False)
    module.learn(make_batch(pixels=False))
    weights = copy.deepcopy(module.agent.critic.state_dict())
    steps = [state["step"].item() for state in module.trainer.optimizers[0].state.values()]
    batch = make_batch(pixels=False, seed=1)
    batch["next", "reward"][2] = float("nan")
    module.learn(batch)  # nobody looks yet
    assert not differs(weights, module.agent.critic.state_dict())
    after = [state["step"].item() for state in module.trainer.optimizers[0].state.values()]
    assert after == steps
    with pytest.raises(NonFiniteError, match="1 optimizer steps were skipped"):
        module.pop_metrics()
    with pytest.raises(NonFiniteError):
        module.on_save_checkpoint({})


def test_the_updates_of_a_round_are_those_of_single_calls():
    one_by_one, at_once = (
        make_module(pixels=False, cuda_graphs=True, optimizer=ADAM) for _ in range(2)
    )
    rounds = [[make_batch(pixels=False, seed=10 * n + i) for i in range(n)] for n in (2, 3, 2)]
    for batches in rounds:
        for batch in batches:
            one_by_one.learn(batch)
        at_once.training_step(torch.stack(batches), 0)
    assert not differs(one_by_one.state_dict(), at_once.state_dict())
    assert one_by_one.pop_metrics() == at_once.pop_metrics()
    assert one_by_one.grad_updates == at_once.grad_updates == 7


def test_batches_are_copied_so_that_their_memory_may_be_reused(monkeypatch):
    monkeypatch.setattr(module_under_test, "AT_ONCE", 2)
    seen = []
    captured = CapturedUpdates(
        lambda static, nth: seen.append((static, static["state"].clone(), nth)),
        [],
        torch.device("cpu"),
        period=3,
    )
    batches = [make_batch(pixels=False, seed=seed) for seed in range(4)]
    captured(batches[:1], 1)
    captured(batches[1:], 2)
    assert len(seen) == 4
    for (static, state, _), batch in zip(seen, batches, strict=True):
        assert static is not batch
        assert torch.equal(state, batch["state"])
    # Two at once at most: batches 0, (1, 2), 3 lie at places 0, (0, 1), 0.
    assert [static is seen[0][0] for static, *_ in seen] == [True, True, False, True]
    assert [nth % 3 for *_, nth in seen] == [1, 2, 0, 1]


def test_an_optimizer_that_cannot_skip_on_the_device_is_refused():
    module = make_module(pixels=False, cuda_graphs=True)
    with pytest.raises(ConfigError, match=r"algo.critic_optimizer.*SGD.*fused"):
        module.learn(make_batch(pixels=False))


@pytest.mark.parametrize("bad", ["loss", "gradient", None])
def test_non_finite_numbers_are_found_in_loss_and_gradients(bad):
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(3)]
    for param in params[:2]:
        param.grad = torch.full((3,), 2.0)
    if bad == "gradient":
        params[1].grad[2] = float("inf")
    loss = torch.tensor(float("nan") if bad == "loss" else 1.0)
    assert bool(count_non_finite(loss, params).item()) == (bad is not None)
    assert params[0].grad.tolist() == [2.0, 2.0, 2.0]
