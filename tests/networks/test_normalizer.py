"""Input statistics against numpy on the whole data."""

import numpy as np
import pytest
import torch

from fetchlab.errors import ConfigError
from fetchlab.networks.norms import VectorNormalizer

NAMES = {"state": 3, "desired_goal": 2}


def normalizer(mode, std_floor=1e-3, clip=5.0):
    return VectorNormalizer(NAMES, mode, std_floor, clip)


def rows(n, dim=3, seed=0):
    """Large offset, small spread, unlike scales: what float32 sums of squares would lose."""
    scale, offset = np.array([0.014, 0.1, 2.0])[:dim], np.array([1000.0, 1.3, -5.0])[:dim]
    x = np.random.default_rng(seed).normal(size=(n, dim)) * scale + offset
    return torch.tensor(x, dtype=torch.float32)


def feed(norm, data, batches):
    for part in data.split(batches):
        norm.update("state", part)


def expected(x, data, clip=5.0, floor=1e-3):
    data = data.numpy().astype(np.float64)
    z = (x.numpy().astype(np.float64) - data.mean(0)) / np.maximum(data.std(0), floor)
    return torch.tensor(z.clip(-clip, clip), dtype=torch.float32)


@pytest.mark.parametrize("batches", [[500], [1] * 500, [1, 7, 0, 92, 400]])
def test_fixed_equals_numpy_however_the_rows_came(batches):
    data, x = rows(500), rows(64, seed=1)
    norm = normalizer("fixed")
    feed(norm, data, batches)
    norm.update("desired_goal", rows(4, dim=2))
    torch.testing.assert_close(norm("state", x), x, atol=0, rtol=0)  # identity, unclipped
    norm.freeze()
    assert norm.frozen
    # inputs near 1000 have float32 steps of 6e-5, 0.004 of their standard deviation
    torch.testing.assert_close(norm("state", x), expected(x, data), atol=5e-3, rtol=0)
    y = x[:, :2] + 1
    torch.testing.assert_close(norm("desired_goal", y), expected(y, rows(4, dim=2)), atol=5e-3,
                               rtol=0)  # fmt: skip
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm.update("state", rows(500, seed=2) + 1)
    norm.freeze()
    torch.testing.assert_close(norm.state_dict(), before, atol=0, rtol=0)


def test_clip_and_floor_by_hand():
    norm = normalizer("fixed", std_floor=0.5, clip=3.0)
    norm.update("state", torch.tensor([[0.0, 7.0, -2.0], [4.0, 7.0, 2.0]]))  # std 2, 0, 2
    norm.update("desired_goal", torch.zeros(1, 2))
    norm.freeze()
    z = norm("state", torch.tensor([[3.0, 7.25, -100.0], [2.0, 100.0, 1.0]]))
    torch.testing.assert_close(z, torch.tensor([[0.5, 0.5, -3.0], [0.0, 3.0, 0.5]]))


def test_running_follows_every_update():
    data, x = rows(300), rows(16, seed=1)
    norm = normalizer("running")
    torch.testing.assert_close(norm("state", x), x, atol=0, rtol=0)
    feed(norm, data[:200], [100, 100])
    torch.testing.assert_close(norm("state", x), expected(x, data[:200]), atol=5e-3, rtol=0)
    norm.freeze()  # has no meaning here
    feed(norm, data[200:], [100])
    torch.testing.assert_close(norm("state", x), expected(x, data), atol=5e-3, rtol=0)
    assert not norm.frozen


def test_none_is_the_identity_without_state():
    norm = normalizer("none")
    norm.update("state", rows(10))
    norm.freeze()
    x = rows(5)
    assert norm("state", x) is x
    assert norm.state_dict() == {}


def test_a_checkpoint_carries_the_statistics_and_the_freeze():
    norm, x = normalizer("fixed"), rows(8, seed=3)
    feed(norm, rows(100), [40, 60])
    half_way = normalizer("fixed")
    half_way.load_state_dict(norm.state_dict())
    for one in (norm, half_way):
        feed(one, rows(50, seed=4), [50])
        one.update("desired_goal", rows(3, dim=2))
        one.freeze()
    restored = normalizer("fixed")
    restored.load_state_dict(norm.state_dict())
    assert restored.frozen
    for other in (half_way, restored):
        assert torch.equal(norm("state", x), other("state", x))
    assert not torch.equal(norm("state", x), x)


def test_leading_dimensions_and_gradient_pass():
    norm = normalizer("fixed")
    feed(norm, rows(100), [100])
    norm.update("desired_goal", torch.zeros(1, 2))
    norm.freeze()
    x = rows(12, seed=5).requires_grad_()
    assert torch.equal(norm("state", x.view(3, 4, 3)).view(12, 3), norm("state", x))
    norm("state", x).sum().backward()
    std = rows(100).double().std(0, correction=0)
    inside = expected(x.detach(), rows(100)).abs() < 5
    torch.testing.assert_close(x.grad, (inside / std).float(), rtol=1e-4, atol=0)


def test_freezing_before_any_row_is_refused():
    norm = normalizer("fixed")
    norm.update("state", rows(10))
    with pytest.raises(ConfigError, match=r"desired_goal.*learning_starts"):
        norm.freeze()
