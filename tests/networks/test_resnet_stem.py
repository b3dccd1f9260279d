"""The frozen stem: its numbers, its weights' names and shapes, and every bad file in one line."""

import pickle

import pytest
import torch
from resnet_weights import BLOCKS, resnet_weights, write_resnet_weights
from torch.nn import functional

from fetchlab.errors import ConfigError
from fetchlab.networks.encoders.resnet_stem import ResNetStem


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_resnet_weights(tmp_path_factory.mktemp("weights") / "resnet18.pth")


def stem(path, image_size=84, frames=4):
    return ResNetStem(in_channels=3 * frames, image_size=image_size, weights_path=path)


def by_functions(pixels, weights):
    """One RGB frame (B, 3, H, W) in [0, 1] through the stem, layer by layer."""
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def conv_norm(x, conv, norm, **geometry):
        x = functional.conv2d(x, weights[f"{conv}.weight"], **geometry)
        shift, scale, mean, var = (
            weights[f"{norm}.{name}"].view(64, 1, 1)
            for name in ("bias", "weight", "running_mean", "running_var")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    x = conv_norm((pixels - mean) / std, "conv1", "bn1", stride=2, padding=3).clamp(min=0)
    x = functional.max_pool2d(x, 3, 2, 1)
    for block in BLOCKS:
        inner = conv_norm(x, f"{block}.conv1", f"{block}.bn1", padding=1).clamp(min=0)
        x = (x + conv_norm(inner, f"{block}.conv2", f"{block}.bn2", padding=1)).clamp(min=0)
    return x


@pytest.mark.parametrize(
    ("image_size", "side"), [(84, 21), (64, 16), (48, 12), (32, 8), (16, 4), (7, 2), (5, 2)]
)
def test_every_frame_goes_through_the_same_stem(file, image_size, side):
    encoder = stem(file, image_size, frames=3)
    pixels = torch.rand(2, 9, image_size, image_size)
    maps = encoder(pixels)
    assert encoder.out_shape == (192, side, side) == tuple(maps.shape[1:])
    expected = [by_functions(frame, resnet_weights()) for frame in pixels.split(3, dim=1)]
    torch.testing.assert_close(maps, torch.cat(expected, dim=1), atol=1e-4, rtol=1e-4)


def test_white_by_hand(tmp_path):
    weights = {name: torch.zeros_like(value) for name, value in resnet_weights().items()}
    for name in weights:
        if "bn" in name and name.endswith(("weight", "running_var")):
            weights[name].fill_(1.0)
    for colour in range(3):
        weights["conv1.weight"][colour, colour, 3, 3] = 1.0  # the kernel's centre
    torch.save(weights, tmp_path / "taps.pth")
    maps = stem(str(tmp_path / "taps.pth"), frames=1)(torch.ones(1, 3, 84, 84))
    red, green, blue = (maps[0, colour].unique().item() for colour in range(3))
    # (1 - mean) / std of ImageNet
    assert red == pytest.approx(0.515 / 0.229, rel=1e-4)
    assert green == pytest.approx(0.544 / 0.224, rel=1e-4)
    assert blue == pytest.approx(0.594 / 0.225, rel=1e-4)
    assert maps[0, 3:].abs().max() == 0


def test_nothing_trains_it(file):
    encoder = stem(file)
    pixels = torch.rand(2, 12, 84, 84)
    expected = encoder(pixels)
    assert not expected.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    for training in (True, False):
        assert torch.equal(encoder.train(training)(pixels), expected)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_names_are_those_of_the_file(file):
    assert set(stem(file).state_dict()) == set(resnet_weights())


def test_a_checkpoint_replaces_the_file(file, tmp_path):
    torch.save(
        {name: value + 1 for name, value in resnet_weights().items()}, tmp_path / "other.pth"
    )
    other = stem(str(tmp_path / "other.pth"))
    other.load_state_dict(stem(file).state_dict())
    pixels = torch.rand(1, 12, 84, 84)
    assert torch.equal(other(pixels), stem(file)(pixels))


def test_bfloat16_and_channels_last_change_only_the_rounding(file):
    encoder = stem(file, 44, frames=2)
    pixels = torch.rand(2, 6, 44, 44)
    expected, before = encoder(pixels), pixels.clone()
    encoder.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = encoder(pixels.to(memory_format=torch.channels_last))
    assert (maps.float() - expected).norm() < 0.03 * expected.norm()
    assert torch.equal(pixels, before)


class Payload:
    """Loading this without weights_only would call a function."""

    def __reduce__(self):
        return print, ("executed",)


def without(name):
    return {key: value for key, value in resnet_weights().items() if key != name}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without("layer1.1.bn2.running_var"), r"nothing for layer1\.1\.bn2\.running_var"),
        (
            {**resnet_weights(), "conv1.weight": torch.zeros(64, 12, 7, 7)},
            r"\(64, 12, 7, 7\) for conv1\.weight, needed \(64, 3, 7, 7\)",
        ),
        ({**resnet_weights(), "bn1.bias": [0.0] * 64}, r"nothing for bn1\.bias"),
        (
            {**resnet_weights(), "bn1.bias": torch.full((64,), torch.nan)},
            r"bn1\.bias is not finite",
        ),
        ({"state_dict": resnet_weights()}, r"nothing for conv1\.weight"),
        (torch.zeros(3), "it holds Tensor"),
        (b"not a file of weights", "UnpicklingError"),
        (pickle.dumps(Payload(), protocol=2), "UnpicklingError"),
        (b"", "EOFError"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ConfigError, match=message) as caught:
        stem(str(path))
    text = str(caught.value)
    assert text.startswith(f"encoder.weights_path={str(path)!r}: expected a file with")
    assert "\n" not in text
    assert "executed" not in capsys.readouterr().out


def test_no_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^encoder\.weights_path=None: .*give encoder\.weights"):
        stem(None)
    with pytest.raises(ConfigError, match=r"absent\.pth.*No such file"):
        stem(str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match="Is a directory"):
        stem(str(tmp_path))


def test_an_image_that_is_too_small_is_refused(file):
    with pytest.raises(ConfigError, match=r"image_size=4.*at least 5 "):
        ResNetStem(in_channels=3, image_size=4, weights_path=file)
