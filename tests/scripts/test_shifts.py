"""The noise of a shift, on pictures whose coordinates move by what can be computed by hand."""

import math

import pytest
import torch
from measure.layers import coordinates_of, look
from measure.shifts import Shifted, noise, shift_all
from torch import nn
from torch.nn.functional import avg_pool2d

from fetchlab.augment import RandomShift
from fetchlab.networks.pixel_encoder import PixelEncoder
from fetchlab.networks.pooling import SpatialSoftmax

STRIDE, CELLS = 4, 4
PER_PX = 2 / (CELLS - 1) / STRIDE  # 1/6


def centres(pixels):
    """Centre of mass of each channel's brightness, averaged over 4x4 cells: (B, C, 2)."""
    mass = avg_pool2d(pixels.double(), STRIDE)
    grid = torch.linspace(-1, 1, CELLS, dtype=torch.float64)
    x, y = mass.sum(2) @ grid, mass.sum(3) @ grid
    return torch.stack((x, y), -1) / mass.sum((2, 3)).unsqueeze(-1)


def picture(*cells):
    """One channel for each (row, column): a block of 4x4 bright pixels that fills that cell."""
    pixels = torch.zeros(1, len(cells), 16, 16, dtype=torch.uint8)
    for channel, (row, column) in zip(pixels[0], cells, strict=True):
        channel[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 200
    return pixels


def rng():
    return torch.Generator().manual_seed(0)


def test_away_from_the_border_coordinates_move_as_the_picture_does():
    pixels = torch.cat((picture((1, 2), (2, 1)), picture((2, 1), (1, 2))))
    shift = RandomShift(pad=4, shared_draw=False)
    shifted = shift_all(centres, shift, pixels, pixels.flip(0), 40, rng())
    px = shifted.shift_px.double()
    assert px.shape == (2, 40, 2)
    assert set(px.abs().unique().tolist()) == {0, 1, 2, 3, 4}
    assert not torch.equal(px[..., 0], px[..., 1])
    # a shift by 4 is exactly a cell, by fewer exactly that part of it
    expected = px.unsqueeze(2).expand(2, 40, 2, 2) * PER_PX
    torch.testing.assert_close(shifted.change, expected)
    torch.testing.assert_close(shifted.next_change, expected)
    found = noise(shifted, PER_PX, 4)
    assert found["follow"] == pytest.approx([1, 1, 1])
    rms = (px.square().mean((0, 1)).sqrt() * PER_PX).tolist()
    assert found["absolute"] == pytest.approx(sum(rms) / 2)
    assert found["own_std"] == pytest.approx(1 / 3)  # cells 1 and 2 lie at -1/3 and 1/3
    assert found["common_share"] == pytest.approx(1)
    for key in ("pairs", "beyond_ideal", "beyond_own"):
        assert found[key] == pytest.approx(0, abs=1e-7)
    assert found["pairs_own_std"] == pytest.approx(2 / 3)
    assert [line["shift_px"] for line in found["border"]] == [0, 1, 2, 3, 4]
    assert [line["follow"] for line in found["border"]] == [None, *[pytest.approx(1)] * 4]
    assert all(line["beyond_ideal"] < 1e-7 for line in found["border"])
    apart = (px.roll(1, 1) - px).square().mean((0, 1)).sqrt() * PER_PX
    assert found["target"]["independent"] == pytest.approx(float(apart.mean()))
    assert found["target"]["shared"] == pytest.approx(0, abs=1e-7)
    assert found["target"]["motion"] == pytest.approx(2 / 3)


def test_at_the_border_coordinates_move_less():
    # in column 0: to the right the padding repeats the block, to the left the block is cut off
    pixels = torch.cat((picture((1, 0), (2, 0)), picture((2, 0), (1, 0))))
    shifted = shift_all(centres, RandomShift(3, False), pixels, pixels, 60, rng())
    dx, dy = shifted.shift_px.double().unbind(-1)
    # bright pixels in cells 0 and 1: 4 and dx, so their centre moves dx / (4 + dx) cells
    cells = torch.where(dx > 0, dx / (4 + dx), 0)
    for channel in (0, 1):
        torch.testing.assert_close(shifted.change[:, :, channel, 0], cells * 2 / 3)
        torch.testing.assert_close(shifted.change[:, :, channel, 1], dy * PER_PX)
    for px, right in ((1, 1 / 5), (2, 2 / 6), (3, 3 / 7)):
        at = shifted.change[:, :, 0, 0][dx == px]
        assert at.tolist() == pytest.approx([right * 2 / 3] * len(at))
        assert right < px / 4


def test_border_rows_take_the_draws_of_their_own_axis():
    # both maps alike: along x at the border of the picture, along y in its middle
    pixels = torch.cat((picture((1, 0), (2, 0)), picture((2, 0), (1, 0))))
    shifted = shift_all(centres, RandomShift(3, False), pixels, pixels, 60, rng())
    start = shifted.start.clone()
    start[0, :, 0] += 0.5  # x does not vary here, which would make the maps dead
    found = noise(shifted._replace(start=start), PER_PX, 3)
    dx = shifted.shift_px[..., 0].double()
    for line in found["border"]:
        px = line["shift_px"]
        right, left = (float(((dx * side) == px).sum()) for side in (1, -1))
        if px == 0:
            assert line["beyond_ideal"] == pytest.approx(0, abs=1e-7)
            continue
        lost = (px / 4 - px / (4 + px), px / 4)  # cells, to the right and to the left
        square = (right * lost[0] ** 2 + left * lost[1] ** 2) / (right + left)
        # medians of (x, x, y, y): half way between the axes, and y loses nothing
        assert line["beyond_ideal"] == pytest.approx(math.sqrt(square) * 2 / 3 / 2)
        slope = right / (right + left) * 4 / (4 + px)
        assert line["follow"] == pytest.approx((slope + 1) / 2)


def by_hand(*, dead=False):
    """Two moments, two draws; one map follows the picture at half its pace, one at its own."""
    shift_px = torch.tensor([[[2, -2], [-1, 1]], [[1, 1], [-2, -2]]])
    ideal = 0.1 * shift_px.double().unsqueeze(2)
    pace = torch.tensor([0.5, 1.0, 0.0][: 2 + dead], dtype=torch.float64).view(-1, 1)
    reach = torch.tensor([0.2, 0.4, 0.0][: 2 + dead], dtype=torch.float64)
    start = torch.stack((0 * reach, reach)).unsqueeze(-1).expand(-1, -1, 2)
    change = ideal * pace
    return Shifted(shift_px, start, start + 0.1, change, change)


@pytest.mark.parametrize("dead", [False, True])
def test_noise_by_hand(dead):
    found = noise(by_hand(dead=dead), 0.1, 2)
    assert (found["live_maps"], found["maps"]) == (2, 2 + dead)
    ideal = 0.1 * math.sqrt((4 + 1 + 1 + 4) / 4)  # either axis
    assert found["own_std"] == pytest.approx((0.1 + 0.2) / 2)
    assert found["follow"] == pytest.approx([0.5, 0.75, 1.0])
    assert found["absolute"] == pytest.approx(0.75 * ideal)
    assert found["absolute_of_own"] == pytest.approx(0.5 * ideal / 0.1)
    assert found["common_share"] == pytest.approx(0.75**2 / ((0.5**2 + 1) / 2))
    assert found["pairs"] == pytest.approx(0.5 * ideal)
    assert found["pairs_own_std"] == pytest.approx(0.2 - 0.1)
    assert found["beyond_ideal"] == pytest.approx(0.25 * ideal)
    assert found["beyond_own"] == pytest.approx(0, abs=1e-7)
    assert [line["shift_px"] for line in found["border"]] == [1, 2]  # 0 px was not drawn
    for line in found["border"]:
        assert line["follow"] == pytest.approx(0.75)
        assert line["beyond_ideal"] == pytest.approx(0.25 * 0.1 * line["shift_px"])
        assert line["beyond_own"] == pytest.approx(0, abs=1e-7)
    # between the draws lie 3 pixels on either axis, in both moments
    assert found["target"]["independent"] == pytest.approx(0.75 * 0.3)
    assert found["target"]["shared"] == pytest.approx(0, abs=1e-7)
    assert found["target"]["motion"] == pytest.approx(0.1)


def test_pairs_are_all_pairs():
    generator = rng()
    start = torch.randn(5, 7, 2, generator=generator, dtype=torch.float64)
    change = torch.randn(5, 3, 7, 2, generator=generator, dtype=torch.float64)
    shift_px = torch.randint(-2, 3, (5, 3, 2), generator=generator)
    found = noise(Shifted(shift_px, start, start, change, change), 0.1, 2)
    pairs = [(a, b) for a in range(7) for b in range(7) if a != b]
    squares = [(change[:, :, a] - change[:, :, b]).square().mean() for a, b in pairs]
    assert found["pairs"] == pytest.approx(math.sqrt(sum(squares) / len(pairs)))
    apart = [(start[:, a] - start[:, b]).var(0, correction=0).mean() for a, b in pairs]
    assert found["pairs_own_std"] == pytest.approx(math.sqrt(sum(apart) / len(pairs)))


def test_no_noise_without_two_maps_that_vary():
    given = by_hand(dead=True)
    one = given._replace(**{key: getattr(given, key)[..., 1:, :] for key in Shifted._fields[1:]})
    assert noise(one, 0.1, 2) is None


def test_layers_of_an_encoder_and_a_hot_pixel():
    pooling = SpatialSoftmax((2, CELLS, CELLS), temperature=0.01)
    norm = nn.LayerNorm(4)
    encoder = PixelEncoder(nn.MaxPool2d(STRIDE), pooling, norm)
    pixels = torch.zeros(70, 2, 16, 16, dtype=torch.uint8)  # more than are encoded at a time
    pixels[:, 0, 5, 9] = pixels[:, 1, 14, 0] = 255
    pixels[69] = pixels[69].roll(STRIDE, dims=1)  # 4 pixels down, around the border
    layers = look(encoder, pixels)
    assert layers.maps.shape == (70, 2, CELLS, CELLS)
    assert layers.maps[3, 0].argmax() == 1 * CELLS + 2
    assert layers.maps.amax() == 1.0
    expected = torch.tensor([[1 / 3, -1 / 3], [-1.0, 1.0]])
    torch.testing.assert_close(coordinates_of(encoder)(pixels[:1])[0], expected)
    torch.testing.assert_close(layers.pooled[:69], expected.view(1, 4).expand(69, 4))
    expected[:, 1] = torch.tensor([1 / 3, -1.0])  # a cell further down; from the last to the first
    torch.testing.assert_close(layers.pooled[69], expected.flatten())
    torch.testing.assert_close(layers.features, norm(layers.pooled))
    assert torch.equal(layers.features, encoder(pixels))
    assert not pooling._forward_hooks
