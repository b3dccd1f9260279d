"""Convolution geometry by hand: sides, receptive fields, residual blocks, initial weights."""

import math

import pytest
import torch
from torch import nn

from fetchlab.errors import ConfigError
from fetchlab.networks.encoders.drqv2_cnn import DrQv2CNN
from fetchlab.networks.encoders.geometry import Layer, output_side
from fetchlab.networks.encoders.impala_cnn import ImpalaCNN
from fetchlab.networks.encoders.manipulation_cnn import ManipulationCNN
from fetchlab.networks.encoders.nature_cnn import NatureCNN

MANIPULATION = (ManipulationCNN, {"filters": 32, "strides": [2, 1, 1, 2]})
SHALLOW = (ManipulationCNN, {"filters": 16, "strides": [2, 1, 1]})
NATURE = (NatureCNN, {"filters": [32, 64, 64]})
DRQV2 = (DrQv2CNN, {"filters": 32})
IMPALA = (ImpalaCNN, {"depths": [16, 32, 32]})
EVERY = pytest.mark.parametrize(
    "kind",
    [MANIPULATION, SHALLOW, NATURE, DRQV2, IMPALA],
    ids=["ManipulationCNN", "three layers", "NatureCNN", "DrQv2CNN", "ImpalaCNN"],
)


def build(kind, image_size, in_channels=12):
    return kind[0](in_channels=in_channels, image_size=image_size, **kind[1])


@pytest.mark.parametrize(
    ("kind", "image_size", "expected"),
    [
        (NATURE, 84, [20, 9, 7]),  # (84 - 8) / 4 + 1, (20 - 4) / 2 + 1, 9 - 2
        (NATURE, 64, [15, 6, 4]),
        (NATURE, 48, [11, 4, 2]),
        (DRQV2, 84, [41, 39, 37, 35]),  # floor((84 - 3) / 2) + 1, then 2 less each time
        (DRQV2, 64, [31, 29, 27, 25]),
        (DRQV2, 48, [23, 21, 19, 17]),
        (DRQV2, 32, [15, 13, 11, 9]),
        (MANIPULATION, 84, [42, 42, 42, 21]),  # half, as often as a stride is 2
        (MANIPULATION, 64, [32, 32, 32, 16]),
        (MANIPULATION, 48, [24, 24, 24, 12]),
        (MANIPULATION, 32, [16, 16, 16, 8]),
        (MANIPULATION, 16, [8, 8, 8, 4]),
        (SHALLOW, 84, [42, 42, 42]),
        (SHALLOW, 64, [32, 32, 32]),
        (SHALLOW, 48, [24, 24, 24]),
        (SHALLOW, 32, [16, 16, 16]),
        (SHALLOW, 16, [8, 8, 8]),
        ((ManipulationCNN, {"filters": 8, "strides": [3]}), 16, [6]),  # (16 + 2 - 3) // 3 + 1
    ],
)
def test_sides_after_each_convolution(kind, image_size, expected):
    encoder, maps, sides = build(kind, image_size), torch.rand(1, 12, image_size, image_size), []
    for layer in encoder:
        maps = layer(maps)
        if isinstance(layer, nn.Conv2d):
            sides.append(maps.shape[-1])
    assert sides == expected
    assert encoder.out_shape == tuple(maps.shape[1:])


@pytest.mark.parametrize(
    ("image_size", "expected"),
    [(84, [42, 21, 11]), (64, [32, 16, 8]), (48, [24, 12, 6]), (32, [16, 8, 4]), (16, [8, 4, 2])],
)
def test_impala_halves_the_image_in_each_section(image_size, expected):
    encoder, maps, sides = build(IMPALA, image_size), torch.rand(1, 12, image_size, image_size), []
    for layer in encoder:
        maps = layer(maps)
        if isinstance(layer, nn.MaxPool2d):
            sides.append(maps.shape[-1])
    assert sides == expected
    assert encoder.out_shape == (32, expected[-1], expected[-1]) == tuple(maps.shape[1:])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # weights of each layer, then biases
        (NATURE, 12 * 32 * 64 + 32 * 64 * 16 + 64 * 64 * 9 + 32 + 64 + 64),
        (DRQV2, (12 + 3 * 32) * 32 * 9 + 4 * 32),
        # sections: the first convolution and four of the residual blocks, with biases
        (
            IMPALA,
            (12 * 16 + 4 * 16 * 16 + 16 * 32 + 4 * 32 * 32 + 5 * 32 * 32) * 9 + 5 * (16 + 32 + 32),
        ),
    ],
    ids=["NatureCNN", "DrQv2CNN", "ImpalaCNN"],
)
def test_number_of_parameters(kind, expected):
    assert sum(p.numel() for p in build(kind, 84).parameters()) == expected


@EVERY
@pytest.mark.parametrize("image_size", [44, 45, 46, 47, 61])
def test_out_shape_is_the_shape_that_comes_out(kind, image_size):
    encoder = build(kind, image_size, in_channels=3)
    maps = encoder(torch.rand(1, 3, image_size, image_size))
    assert tuple(maps.shape[1:]) == encoder.out_shape
    assert maps.min() >= 0


@pytest.mark.parametrize(
    ("kind", "least"), [(MANIPULATION, 5), (SHALLOW, 3), (NATURE, 44), (DRQV2, 17), (IMPALA, 9)]
)
def test_the_smallest_image_leaves_maps_of_two_by_two(kind, least):
    assert build(kind, least).out_shape[1:] == (2, 2)
    for image_size in (least - 1, 1, 0, -84):
        with pytest.raises(
            ConfigError, match=rf"^image_size={image_size}: .*use at least {least} "
        ):
            build(kind, image_size)


@pytest.mark.parametrize(
    ("kind", "bad", "message"),
    [
        (IMPALA, {"depths": []}, r"encoder\.depths=\[\]"),
        (IMPALA, {"depths": [16, -1]}, r"encoder\.depths=\[16, -1\]"),
        (MANIPULATION, {"strides": []}, r"encoder\.strides=\[\]: expected at least one number"),
        (MANIPULATION, {"strides": [2, 0]}, r"encoder\.strides=\[2, 0\]: expected .* from 1 to 3"),
        (MANIPULATION, {"strides": [4, 1]}, r"encoder\.strides=\[4, 1\]: .*step over pixels"),
        (MANIPULATION, {"strides": [2] * 40}, r"image_size=84: .*use at least 1099511627777 "),
    ],
)
def test_impossible_sizes_are_refused(kind, bad, message):
    with pytest.raises(ConfigError, match=message):
        kind[0](**({"in_channels": 12, "image_size": 84, **kind[1]} | bad))


@pytest.mark.parametrize(
    ("side", "layers", "expected"),
    [
        (7, [], 7),
        (7, [Layer(3, 2, 0)], 3),
        (8, [Layer(3, 2, 0)], 3),
        (8, [Layer(3, 2, 1), Layer(2, 1, 0)], 3),
        (2, [Layer(3, 1, 0)], 0),
        (1, [Layer(8, 4, 0), Layer(3, 1, 1)], 0),  # what is gone does not come back
    ],
)
def test_output_side_by_hand(side, layers, expected):
    assert output_side(side, layers) == expected


@pytest.mark.parametrize(
    ("kind", "field", "step"),
    [
        (NATURE, 36, 8),  # 8 + 3 x 4 + 2 x 8 pixels wide, one every 4 x 2 x 1
        (DRQV2, 15, 2),  # 3 + 3 x 2 x 2 pixels wide, one every 2
    ],
)
def test_each_output_sees_its_own_part_of_the_image(kind, field, step):
    encoder = build(kind, 84, in_channels=3)
    for parameter in encoder.parameters():
        parameter.data.fill_(0.01)
    pixels = torch.full((1, 3, 84, 84), 0.9, requires_grad=True)
    encoder(pixels)[0, 0, 3, 2].backward()
    rows = (pixels.grad[0, 0].abs().sum(1) > 0).nonzero().flatten()
    columns = (pixels.grad[0, 0].abs().sum(0) > 0).nonzero().flatten()
    assert rows.tolist() == list(range(3 * step, 3 * step + field))
    assert columns.tolist() == list(range(2 * step, 2 * step + field))


def test_drqv2_centres_its_pixels():
    encoder = DrQv2CNN(in_channels=3, image_size=17, filters=4)
    for layer in encoder:
        if isinstance(layer, nn.Conv2d):
            layer.weight.data.fill_(1 / layer.weight[0].numel())  # averages its window
    pixels = torch.stack([torch.full((3, 17, 17), value) for value in (0.7, 0.3)])
    maps = encoder(pixels)
    torch.testing.assert_close(maps[0], torch.full((4, 2, 2), 0.2))  # 0.7 - 0.5
    assert maps[1].abs().max() == 0  # -0.2, cut by the ReLU
    assert pixels[0, 0, 0, 0].item() == pytest.approx(0.7)


def test_drqv2_starts_orthogonal_with_the_gain_of_a_relu():
    torch.manual_seed(0)
    encoder = DrQv2CNN(in_channels=12, image_size=84, filters=32)
    convolutions = [layer for layer in encoder if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 4
    for conv in convolutions:
        rows = conv.weight.flatten(1)
        torch.testing.assert_close(rows @ rows.T, 2 * torch.eye(32), atol=1e-5, rtol=0)  # sqrt(2)^2
        assert conv.bias.abs().max() == 0


def centre_taps(conv, value):
    """Make a one-channel 3x3 convolution multiply by ``value``."""
    conv.weight.data.zero_()
    conv.weight.data[0, 0, 1, 1] = value
    conv.bias.data.zero_()


def test_a_residual_block_by_hand():
    block = ImpalaCNN(in_channels=1, image_size=16, depths=[1])[2]
    first, second = (layer for layer in block if isinstance(layer, nn.Conv2d))
    centre_taps(first, 3.0)
    centre_taps(second, -0.5)
    maps = torch.full((1, 1, 3, 3), -2.0)
    maps[0, 0, 1, 1] = 2.0
    # 2 + -0.5 relu(3 relu(2)) = -1; -2 + -0.5 relu(3 relu(-2)) = -2
    expected = torch.full((1, 1, 3, 3), -2.0)
    expected[0, 0, 1, 1] = -1.0
    assert torch.equal(block(maps), expected)
    assert maps[0, 0, 1, 1] == 2.0  # the sum needs the input as it was
    assert maps[0, 0, 0, 0] == -2.0


def test_impala_keeps_maps_centred_and_ends_with_a_relu():
    encoder = ImpalaCNN(in_channels=1, image_size=16, depths=[1])
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 5
    for conv in convolutions:
        centre_taps(conv, 0.0)  # residual blocks become the identity
    centre_taps(convolutions[0], 1.0)
    pixels = torch.full((1, 1, 16, 16), -1.0)
    pixels[0, 0, 4, 6] = 1.0  # pooled by the window of rows 3 to 5 and columns 5 to 7 alone
    expected = torch.zeros(1, 1, 8, 8)
    expected[0, 0, 2, 3] = 1.0
    assert torch.equal(encoder(pixels), expected)


@EVERY
def test_bfloat16_and_channels_last_change_only_the_rounding(kind):
    torch.manual_seed(0)
    encoder = build(kind, 44, in_channels=6)
    pixels = torch.rand(2, 6, 44, 44)
    expected, before = encoder(pixels), pixels.clone()
    encoder.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = encoder(pixels.to(memory_format=torch.channels_last))
    assert maps.dtype == torch.bfloat16
    assert (maps.float() - expected).norm() < 0.03 * expected.norm()
    maps.float().square().sum().backward()
    assert all(math.isfinite(p.grad.norm()) and p.grad.norm() > 0 for p in encoder.parameters())
    assert torch.equal(pixels, before)
