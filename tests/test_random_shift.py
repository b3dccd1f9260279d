"""Random shift against brute force, and against DrQ-v2's way of doing it."""

import pytest
import torch
from torch.nn import functional

from fetchlab.augment import NoAugment, RandomShift
from fetchlab.errors import ConfigError


def generator(seed):
    return torch.Generator().manual_seed(seed)


def images(batch=6, channels=4, height=7, width=9):
    return torch.randint(
        0, 256, (batch, channels, height, width), dtype=torch.uint8, generator=generator(7)
    )


def shifted(image, dy, dx):
    """Brute force: every pixel of (C, H, W) from its nearest pixel inside, one by one."""
    _, height, width = image.shape
    rows = [min(max(i + dy, 0), height - 1) for i in range(height)]
    columns = [min(max(j + dx, 0), width - 1) for j in range(width)]
    planes = [[[plane[y][x] for x in columns] for y in rows] for plane in image.tolist()]
    return torch.tensor(planes, dtype=torch.uint8)


def find_shift(image, result, pad):
    """The only (dy, dx) whose brute-force shift of all channels gives ``result``."""
    span = range(-pad, pad + 1)
    found = [(y, x) for y in span for x in span if torch.equal(shifted(image, y, x), result)]
    assert len(found) == 1
    return found[0]


def test_each_image_is_its_own_shift_of_all_its_channels():
    pixels, pad = images(), 2
    before = pixels.clone()
    out = RandomShift(pad, False)(pixels, generator(0))
    assert out.dtype == torch.uint8
    assert out.is_contiguous()
    assert torch.equal(pixels, before)
    found = [find_shift(image, result, pad) for image, result in zip(pixels, out, strict=True)]
    assert len(set(found)) > 3


def test_shifts_are_uniform_on_the_square():
    height = width = 9
    index = torch.arange(height * width, dtype=torch.uint8).view(1, 1, height, width)
    pixels = index.expand(10_000, 1, height, width)
    out = RandomShift(4, False)(pixels, generator(1))
    centre = out[:, 0, 4, 4].long()  # pad 4 on 9x9: the centre comes from any pixel
    counts = torch.bincount(centre, minlength=81).float()
    assert len(counts) == 81
    expected = 10_000 / 81
    chi2 = ((counts - expected).square() / expected).sum().item()
    assert chi2 < 124.8  # 99.9 % of chi-square with 80 degrees of freedom


def test_equals_the_bilinear_grid_sample_of_drqv2():
    """Replicate-pad, then sample the padded image on a grid moved by whole pixels."""
    size, pad, batch = 12, 3, 8
    pixels = images(batch, 3, size, size)
    out = RandomShift(pad, False)(pixels, generator(2))
    padded = functional.pad(pixels.float(), (pad,) * 4, mode="replicate")
    full = size + 2 * pad
    for image, canvas, result in zip(pixels, padded, out, strict=True):
        dy, dx = find_shift(image, result, pad)
        centres = (torch.arange(size) * 2 + 1) / full - 1
        y, x = centres + 2 * (dy + pad) / full, centres + 2 * (dx + pad) / full
        grid = torch.stack((x.expand(size, size), y[:, None].expand(size, size)), dim=-1)
        bilinear = functional.grid_sample(canvas[None], grid[None], align_corners=False)
        torch.testing.assert_close(bilinear[0], result.float(), atol=0.01, rtol=0)


def test_the_generator_decides():
    pixels, shift = images(), RandomShift(4, False)
    g = generator(3)
    first, second = shift(pixels, g), shift(pixels, g)
    assert torch.equal(first, shift(pixels, generator(3)))
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    shift(pixels, g)
    assert torch.equal(state, torch.get_rng_state())


def test_views_of_the_replay_block():
    block = torch.randint(0, 256, (5, 4, 3, 8, 8), dtype=torch.uint8, generator=generator(4))
    for view in (block[:, :3].flatten(1, 2), block[:, 1:].flatten(1, 2)):
        shift = RandomShift(2, False)
        assert torch.equal(
            shift(view, generator(5)), shift(view.contiguous().clone(), generator(5))
        )


def test_one_draw_moves_both_stacks_of_the_block_together():
    block = torch.randint(0, 256, (5, 4, 3, 8, 8), dtype=torch.uint8, generator=generator(4))
    shift = RandomShift(2, True)
    assert shift.shared_draw
    both = shift(block.flatten(1, 2), generator(5))
    moves = [
        find_shift(image, result, 2) for image, result in zip(block[:, 0], both[:, :3], strict=True)
    ]
    assert len(set(moves)) > 2
    for stack in (slice(0, 9), slice(3, 12)):
        frames = block.flatten(1, 2)[:, stack]
        for image, result, move in zip(frames, both[:, stack], moves, strict=True):
            assert torch.equal(shifted(image, *move), result)


def test_pad_must_be_positive():
    with pytest.raises(ConfigError, match="augment=none"):
        RandomShift(0, False)


def test_none_returns_the_images_and_draws_nothing():
    pixels, g = images(), generator(6)
    state = g.get_state()
    assert NoAugment()(pixels, g) is pixels
    assert torch.equal(g.get_state(), state)
