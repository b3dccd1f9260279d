"""The poolings that keep no position apart: trunk of SAC-AE, and global average, by hand."""

import math

import pytest
import torch

from fetchlab.networks.pooling import FlattenNormTanh, GlobalAverage


def test_flatten_norm_tanh_by_hand():
    pool = FlattenNormTanh((1, 1, 2), features=2)
    pool.linear.weight.data = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
    pool.linear.bias.data = torch.tensor([0.0, 0.5])
    # (1, 1.25) -> projections 3.5 and 1.5 -> mean 2.5, deviation 1 -> +-1 -> tanh(+-1)
    vector = pool(torch.tensor([[[[1.0, 1.25]]]]))
    torch.testing.assert_close(
        vector, torch.tensor([[math.tanh(1), -math.tanh(1)]]), atol=1e-5, rtol=0
    )
    assert pool.out_dim == 2


def test_flatten_norm_tanh_ignores_the_scale_of_the_maps():
    torch.manual_seed(0)
    pool = FlattenNormTanh((4, 3, 3), features=50)
    pool.linear.bias.data.zero_()
    maps = torch.randn(6, 4, 3, 3)
    torch.testing.assert_close(pool(1000 * maps), pool(maps), atol=1e-4, rtol=0)
    assert pool(maps).shape == (6, 50)
    assert pool(maps).abs().max() <= 1


def test_flatten_norm_tanh_trains_whole():
    pool = FlattenNormTanh((4, 3, 3), features=5)
    pool(torch.randn(6, 4, 3, 3)).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in pool.parameters())


def test_global_average_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, 0.0], [0.0, -2.0]]]])
    pool = GlobalAverage((2, 2, 2))
    assert pool(maps).tolist() == [[3.0, -0.5]]
    assert pool.out_dim == 2
    assert not list(pool.parameters())
    assert pool(maps.roll(1, dims=-1)).tolist() == [[3.0, -0.5]]  # where does not matter


def test_features_are_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = torch.tensor([[[[256.0, 1.0], [1.0, 1.0]]]], dtype=torch.bfloat16)
        average = GlobalAverage((1, 2, 2))(maps)
        trunk = FlattenNormTanh((1, 2, 2), features=5)(maps)
    assert average.dtype == trunk.dtype == torch.float32
    assert average.item() == 64.75  # bfloat16 has no number between 64.5 and 65


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [lambda s: FlattenNormTanh(s, 7), GlobalAverage])
def test_memory_format_does_not_matter(kind, memory_format):
    torch.manual_seed(0)
    pool, maps = kind((6, 4, 4)), torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(pool(maps.to(memory_format=memory_format)), pool(maps))
