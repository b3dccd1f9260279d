"""Intensity jitter against plain Python integers, and against the paper's formula in floats."""

import math

import pytest
import torch

from fetchlab.augment import Intensity
from fetchlab.errors import ConfigError


def generator(seed):
    return torch.Generator().manual_seed(seed)


def ramps(batch, channels=2):
    """(batch, channels, 16, 16): every byte once in each channel."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    return ramp.expand(batch, channels, 16, 16)


def factors(batch, scale, seed):
    """The paper's s of each image, from the same draws."""
    drawn = torch.randn(batch, generator=generator(seed)).tolist()
    return [1 + scale * min(max(r, -2.0), 2.0) for r in drawn]


@pytest.mark.parametrize("scale", [0.1, 0.5])
def test_every_byte_is_the_rounded_product(scale):
    batch = 300
    out = Intensity(scale, False)(ramps(batch), generator(0))
    assert out.dtype == torch.uint8
    assert out.is_contiguous()
    cut = 0
    for image, s in zip(out, factors(batch, scale, 0), strict=True):
        assert torch.equal(image[0], image[1])  # all channels share the factor
        for value, result in enumerate(image[0].flatten().tolist()):
            exact = min(s * value, 255.0)
            assert abs(result - exact) <= 0.5 + 255 * 2**-16
            cut += s * value > 255.5
    assert cut > 100  # the comparison covered the cut at 255


def test_rounding_by_hand(monkeypatch):
    # r = 5 is clipped to 2: s = 1 + 0.25 * 2 = 1.5; r = -1: s = 0.75; r = 0 changes nothing
    monkeypatch.setattr(
        torch, "randn", lambda size, **_: torch.tensor([5.0, -1.0, 0.0]).reshape(size)
    )
    values = torch.tensor([0, 1, 2, 3, 169, 170, 171, 255], dtype=torch.uint8)
    pixels = values.view(1, 1, 2, 4).expand(3, 1, 2, 4)
    out = Intensity(0.25, False)(pixels, generator(0)).flatten(1).tolist()
    assert out[0] == [0, 2, 3, 5, 254, 255, 255, 255]  # 1.5, 4.5, 253.5 round up; 256.5 is cut
    assert out[1] == [0, 1, 2, 2, 127, 128, 128, 191]  # 0.75, 1.5, 2.25, 126.75, 127.5, ...
    assert out[2] == values.tolist()


def test_factors_have_the_papers_spread():
    n, scale = 20_000, 0.1
    pixels = torch.full((n, 1, 1, 1), 100, dtype=torch.uint8)
    s = Intensity(scale, False)(pixels, generator(1)).double() / 100
    assert s.min() == pytest.approx(0.8)
    assert s.max() == pytest.approx(1.2)
    # a standard normal clipped to +-2 has standard deviation 0.9594; rounding adds 1/12 squared
    expected = math.sqrt((scale * 0.9594) ** 2 + 0.01**2 / 12)
    assert s.std().item() == pytest.approx(expected, rel=0.02)
    assert s.mean().item() == pytest.approx(1.0, abs=0.003)


def test_the_generator_decides_and_the_images_stay():
    pixels = ramps(4).contiguous()
    before, jitter, g = pixels.clone(), Intensity(0.1, False), generator(3)
    first, second = jitter(pixels, g), jitter(pixels, g)
    assert torch.equal(first, jitter(pixels, generator(3)))
    assert not torch.equal(first, second)
    assert torch.equal(pixels, before)


def test_views_of_the_replay_block():
    block = torch.randint(0, 256, (5, 4, 3, 8, 8), dtype=torch.uint8, generator=generator(4))
    jitter = Intensity(0.3, False)
    for view in (block[:, :3].flatten(1, 2), block[:, 1:].flatten(1, 2)):
        out = jitter(view, generator(5))
        assert out.is_contiguous()
        assert torch.equal(out, jitter(view.clone(), generator(5)))


@pytest.mark.parametrize("scale", [0.0, -0.1, 0.51, float("nan")])
def test_scale_has_a_range(scale):
    with pytest.raises(ConfigError, match=r"augment.scale=.*\(0, 0.5\].*augment=none"):
        Intensity(scale, False)
