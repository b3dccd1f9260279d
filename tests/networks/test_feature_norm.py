"""Running statistics of features: by hand, by brute force, and when they move at all."""

import copy

import torch

from fetchlab.networks.norms import RunningNorm


def norm(dim=1, momentum=0.01, std_floor=1e-3):
    return RunningNorm(dim, momentum=momentum, std_floor=std_floor)


def column(*values):
    return torch.tensor(values).unsqueeze(1)


def test_statistics_by_hand():
    running = norm(momentum=0.5)
    torch.testing.assert_close(running(column(0.0, 2.0)), column(-1.0, 1.0))  # mean 1, std 1
    running(column(4.0, 8.0))
    # of 0, 2, 4, 8: mean 3.5, variance (12.25 + 2.25 + 0.25 + 20.25) / 4
    assert (running.mean.item(), running.var.item()) == (3.5, 8.75)
    out = running(column(3.5, 3.5))
    # the third batch weighs momentum = 1/2, no longer 1/3: variance 8.75 / 2
    assert (running.mean.item(), running.var.item()) == (3.5, 4.375)
    assert running.count.item() == 3
    assert out.tolist() == [[0.0], [0.0]]
    running(column(7.5, 7.5))
    # delta 4: mean 3.5 + 4 / 2, variance (4.375 + 16 / 2) / 2
    assert (running.mean.item(), running.var.item()) == (5.5, 6.1875)


def test_early_statistics_are_those_of_all_samples():
    torch.manual_seed(0)
    running = norm(dim=3, momentum=0.1)
    batches = torch.randn(10, 16, 3) * torch.tensor([0.1, 1.0, 50.0]) + torch.tensor(
        [9.0, 0.0, -5.0]
    )
    for batch in batches:
        running(batch)
    samples = batches.flatten(0, 1)
    torch.testing.assert_close(running.mean, samples.mean(0))
    torch.testing.assert_close(running.var, samples.var(0, correction=0))
    last = running(samples)  # the eleventh batch, of the same mean and variance
    torch.testing.assert_close(last.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(last.std(0, correction=0), torch.ones(3))


def test_later_statistics_forget():
    running = norm(momentum=0.5)
    for _ in range(5):
        running(column(1e3, 1e4))
    for _ in range(60):
        running(column(-1.0, 3.0))
    torch.testing.assert_close(running.mean, torch.tensor([1.0]))
    torch.testing.assert_close(running.var, torch.tensor([4.0]))


def test_only_a_pass_that_a_loss_sees_moves_the_statistics():
    running = norm()
    features = column(0.0, 2.0)
    assert running.eval()(features) is not None
    with torch.no_grad():
        assert torch.equal(running.train()(features), features)  # the identity before the first
    with torch.inference_mode():
        running(features)
    assert running.count.item() == 0
    running(features)
    assert running.count.item() == 1
    with torch.no_grad():
        torch.testing.assert_close(running(column(3.0, 1.0)), column(2.0, 0.0))
    torch.testing.assert_close(running.eval()(column(3.0, 1.0)), column(2.0, 0.0))
    assert (running.count.item(), running.mean.item(), running.var.item()) == (1, 1, 1)


def test_gradients_are_scaled_and_ignore_the_statistics():
    running = norm(momentum=1.0)
    features = column(0.0, 4.0).requires_grad_()
    (running(features) * column(1.0, 3.0)).sum().backward()
    # std 2; through the statistics, as batch normalisation has it, these would be 0
    assert features.grad.tolist() == [[0.5], [1.5]]


def test_two_passes_may_wait_for_one_backward():
    running = norm(momentum=1.0)
    first, second = column(0.0, 4.0).requires_grad_(), column(0.0, 8.0).requires_grad_()
    (running(first).sum() + running(second).sum()).backward()
    assert first.grad.tolist() == [[0.5], [0.5]]
    assert second.grad.tolist() == [[0.25], [0.25]]


def test_a_feature_that_does_not_vary_is_not_blown_up():
    running = norm(std_floor=0.1)
    assert running(column(7.0, 7.0)).tolist() == [[0.0], [0.0]]
    with torch.no_grad():
        torch.testing.assert_close(running(column(7.5)), column(5.0))  # 0.5 / 0.1


def test_a_checkpoint_carries_the_statistics_and_a_copy_has_its_own():
    running, restored = norm(dim=3), norm(dim=3)
    for seed in range(3):
        running(torch.randn(8, 3, generator=torch.Generator().manual_seed(seed)))
    restored.load_state_dict(running.state_dict())
    batch = torch.rand(4, 3)
    assert torch.equal(restored(batch), copy.deepcopy(running)(batch))
    assert torch.equal(restored.count, torch.tensor(4.0))
    assert torch.equal(running.count, torch.tensor(3.0))
    assert torch.equal(restored(batch), restored.eval()(batch))


def test_features_are_float32_under_autocast():
    running = norm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = running(torch.tensor([[1.0], [1.0078125]], dtype=torch.bfloat16))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, column(-1.0, 1.0))
