"""Convolution geometry, pooling on maps made by hand, and the uint8 boundary."""

import math

import pytest
import torch
from torch import nn

from fetchlab.errors import ConfigError
from fetchlab.networks.encoders.manipulation_cnn import ManipulationCNN
from fetchlab.networks.pixel_encoder import PixelEncoder, scaled
from fetchlab.networks.pooling import FlattenLinear, SpatialSoftmax

STRIDES = [2, 1, 1, 2]


def test_convolutions_keep_84_at_42_42_42_21():
    cnn = ManipulationCNN(in_channels=12, image_size=84, filters=32, strides=STRIDES)
    sides, maps = [], torch.rand(1, 12, 84, 84)
    for layer in cnn:
        maps = layer(maps)
        if isinstance(layer, nn.Conv2d):
            sides.append(maps.shape[-1])
    assert sides == [42, 42, 42, 21]
    assert cnn.out_shape == (32, 21, 21) == tuple(maps.shape[1:])
    assert [*cnn.state_dict()][::2] == ["0.weight", "2.weight", "4.weight", "6.weight"]
    # 9 weights per channel pair, and biases: 12*32*9 + 3*32*32*9 + 4*32
    assert sum(p.numel() for p in cnn.parameters()) == 3456 + 27648 + 128


@pytest.mark.parametrize("image_size", [5, 6, 7, 8, 64, 83, 100])
def test_out_shape_is_the_shape_that_comes_out(image_size):
    cnn = ManipulationCNN(in_channels=3, image_size=image_size, filters=2, strides=STRIDES)
    assert tuple(cnn(torch.rand(1, 3, image_size, image_size)).shape[1:]) == cnn.out_shape


def test_maps_stay_centred_on_the_image():
    cnn = ManipulationCNN(in_channels=1, image_size=84, filters=4, strides=STRIDES)
    with torch.no_grad():
        for layer in cnn:
            if isinstance(layer, nn.Conv2d):
                layer.weight.fill_(1.0)
                layer.bias.zero_()
    image = torch.zeros(1, 1, 84, 84)
    image[..., 40, 24] = 1.0  # a multiple of 4: on the grid of the last map
    y, x = divmod(cnn(image)[0, 0].argmax().item(), 21)
    assert (y, x) == (10, 6)


def test_a_hot_pixel_is_its_coordinate():
    pool = SpatialSoftmax((3, 21, 11), temperature=1.0)
    maps = torch.zeros(2, 3, 21, 11)
    where = {(0, 0): (0, 0), (0, 1): (20, 10), (0, 2): (10, 5), (1, 0): (13, 2), (1, 1): (4, 9)}
    for (image, channel), (row, column) in where.items():
        maps[image, channel, row, column] = 1000.0
    points = pool(maps)
    assert points.shape == (2, 6) == (2, pool.out_dim)
    for (image, channel), (row, column) in where.items():
        x, y = points[image, 2 * channel : 2 * channel + 2].tolist()
        assert x == pytest.approx(-1 + 2 * column / 10, abs=1e-6)
        assert y == pytest.approx(-1 + 2 * row / 20, abs=1e-6)
    torch.testing.assert_close(points[1, 4:], torch.zeros(2), atol=1e-6, rtol=0)  # uniform map


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_expected_coordinates_by_hand(temperature):
    # softmax(a / T) is 5/8 at the upper right and 1/8 at the other three corners
    maps = torch.tensor([[[[0.0, temperature * math.log(5)], [0.0, 0.0]]]])
    points = SpatialSoftmax((1, 2, 2), temperature)(maps)
    torch.testing.assert_close(points, torch.tensor([[0.5, -0.5]]))


def test_temperature_is_learned_and_stays_positive():
    pool = SpatialSoftmax((1, 3, 3), temperature=0.7)
    assert pool.log_temperature.exp().item() == pytest.approx(0.7)
    (-pool(torch.arange(9.0).view(1, 1, 3, 3)).sum()).backward()
    # as T falls, the mean moves to the lower right, where the largest values are
    assert pool.log_temperature.grad.item() > 1e-3
    torch.optim.SGD(pool.parameters(), lr=100.0).step()  # a step far longer than T itself
    assert 0 < pool.log_temperature.exp().item() < 0.1
    assert pool(torch.rand(1, 1, 3, 3)).isfinite().all()


def test_coordinates_keep_float32_under_autocast():
    pool = SpatialSoftmax((1, 21, 21), temperature=1.0)
    maps = torch.zeros(1, 1, 21, 21, dtype=torch.bfloat16)
    maps[..., 10, 13] = 1000.0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        points = pool(maps)
    assert points.dtype == torch.float32
    assert points[0, 0].item() == pytest.approx(0.3, abs=1e-6)  # bfloat16 would say 0.3008


def test_spatial_softmax_refuses_maps_without_a_second_row():
    with pytest.raises(ConfigError):
        SpatialSoftmax((4, 1, 5), temperature=1.0)


def test_flatten_linear_is_one_affine_map():
    pool = FlattenLinear((2, 3, 4), features=5)
    maps = torch.randn(6, 2, 3, 4)
    weight, bias = pool.linear.weight, pool.linear.bias
    expected = torch.stack([weight @ m.reshape(24) + bias for m in maps])
    torch.testing.assert_close(pool(maps), expected)
    assert pool.out_dim == 5


class Passthrough(nn.Module):
    out_shape = (1, 1, 2)
    out_dim = 2

    def forward(self, x):
        return x


def test_pixels_are_scaled_to_one_once():
    encoder = PixelEncoder(Passthrough(), Passthrough(), nn.Identity())
    pixels = torch.tensor([[[[0, 51], [204, 255]]]], dtype=torch.uint8)
    expected = torch.tensor([[[[0.0, 0.2], [0.8, 1.0]]]])
    torch.testing.assert_close(encoder(pixels), expected)
    assert pixels.tolist() == [[[[0, 51], [204, 255]]]]
    with pytest.raises(TypeError, match="float32"):
        encoder(pixels.float() / 255)


def test_features_are_normalised_after_pooling():
    pooling = FlattenLinear((1, 1, 2), features=2)
    encoder = PixelEncoder(Passthrough(), pooling, nn.LayerNorm(2, elementwise_affine=False))
    pooling.linear.weight.data = torch.tensor([[0.0, 5.0], [10.0, 0.0]])
    pooling.linear.bias.data.zero_()
    pixels = torch.tensor([[[[51, 204]]], [[[255, 0]]]], dtype=torch.uint8)
    # (0.2, 0.8) -> (4, 2) and (1, 0) -> (0, 10): the sign of each from the mean of its pair
    torch.testing.assert_close(encoder(pixels), torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert encoder.out_dim == 2


@pytest.mark.parametrize("pool", ["softmax", "flatten"])
def test_pixel_encoder_trains_whole_in_any_memory_format(pool):
    torch.manual_seed(0)
    cnn = ManipulationCNN(in_channels=6, image_size=16, filters=8, strides=STRIDES)
    pooling = (
        SpatialSoftmax(cnn.out_shape, 1.0) if pool == "softmax" else FlattenLinear(cnn.out_shape, 5)
    )
    encoder = PixelEncoder(cnn, pooling, nn.Identity())
    pixels = torch.randint(0, 256, (4, 6, 16, 16), dtype=torch.uint8)
    features = encoder(pixels)
    assert features.shape == (4, encoder.out_dim)
    features.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in encoder.parameters())
    torch.testing.assert_close(
        encoder(pixels.to(memory_format=torch.channels_last)), features, atol=1e-5, rtol=1e-4
    )


LEVELS = torch.arange(256, dtype=torch.uint8).view(4, 4, 4, 4)


@pytest.mark.parametrize("memory_format", [torch.preserve_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_levels_are_converted_as_in_float32(dtype, memory_format):
    images = scaled(LEVELS, dtype, memory_format)
    assert torch.equal(images, (LEVELS.float() / 255).to(dtype))
    last = memory_format == torch.channels_last
    assert images.is_contiguous(memory_format=torch.channels_last) == last
    assert images.is_contiguous() != last


def test_a_view_with_gaps_becomes_a_dense_image():
    block = torch.randint(0, 256, (2, 3, 3, 5, 5), dtype=torch.uint8)
    stack = block[:, :2].flatten(1, 2)
    assert scaled(stack, torch.float32, torch.preserve_format).is_contiguous()
