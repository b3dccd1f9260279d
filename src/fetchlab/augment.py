"""Image augmentations: see `fetchlab.entries.Augmentation` for the contract.

All channels of an image, so all its stacked frames, get the same draw: the velocity that a stack
shows stays what it was. Draws are made on the generator's device, whatever the pixels' device.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fetchlab.errors import require

_CLIP = 2.0
#: Factors are whole multiples of 2^-16, so that an image is scaled in integers: 255 times the
#: largest factor, 2, is far below 2^31, and the result is the same on every device.
_FRACTION_BITS = 16


class NoAugment:
    """Images as they are, the study's cells A and B (``--no-drq``); draws nothing.

    ``shared_draw`` makes no difference to the images here: True is one call instead of two, and
    both stacks stay views of the replay's block.
    """

    shared_draw = True

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``pixels`` (B, C, H, W) uint8 themselves."""
        return pixels


class RandomShift:
    """Shift each image of a batch by its own dx, dy, uniform in {-pad, ..., pad}.

    DrQ (Kostrikov et al. 2020, arXiv 2004.13649) and DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645)
    pad by replication and crop at a random place. DrQ-v2 shifts float images with a bilinear
    ``grid_sample``, but by whole pixels, where that returns the pixel itself; so this moves the
    bytes instead, 8 times faster on CPU, and a pixel outside the image is the nearest one inside.

    Args:
        pad: largest shift, pixels, at least 1 (DrQ: 4 on 84x84).
        shared_draw: one shift for obs and next_obs, or one each as in DrQ, see `Augmentation`.

    Raises:
        ConfigError: ``pad`` is not positive.
    """

    def __init__(self, pad: int, shared_draw: bool) -> None:
        require(pad >= 1, "augment.pad", pad, "at least 1 pixel", "use augment=none for no shift")
        self.pad, self.shared_draw = pad, shared_draw

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return shifted copies of ``pixels`` (B, C, H, W) uint8, contiguous; draws 2B numbers."""
        batch, channels, height, width = pixels.shape
        drawn = torch.randint(
            -self.pad, self.pad + 1, (2, batch, 1), generator=generator, device=generator.device
        )
        dy, dx = drawn.to(pixels.device, non_blocking=True)
        rows = (torch.arange(height, device=pixels.device) + dy).clamp_(0, height - 1)
        columns = (torch.arange(width, device=pixels.device) + dx).clamp_(0, width - 1)
        source = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, height * width)
        shifted = pixels.flatten(2).gather(2, source.expand(-1, channels, -1))
        return shifted.view(batch, channels, height, width)


class Intensity:
    """Multiply each image of a batch by its own s in [1 - 2 scale, 1 + 2 scale].

    DrQ (appendix on image augmentations): s = 1 + scale * clip(r, -2, 2) with r from the standard
    normal distribution. The paper multiplies floats; here the product is rounded to the nearest
    byte and cut at 255.

    Args:
        scale: spread of the factor, in (0, 0.5] (DrQ: 0.1).
        shared_draw: one factor for obs and next_obs, or one each, see `Augmentation`.

    Raises:
        ConfigError: ``scale`` is outside of its range.
    """

    def __init__(self, scale: float, shared_draw: bool) -> None:
        fits, expected = 0.0 < scale <= 1.0 / _CLIP, "in (0, 0.5], so that no factor is negative"
        remedy = "0.1 is usual; use augment=none for no jitter"
        require(fits, "augment.scale", scale, expected, remedy)
        self.scale, self.shared_draw = scale, shared_draw

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return scaled copies of ``pixels`` (B, C, H, W) uint8, contiguous; draws B numbers."""
        size = (len(pixels), 1, 1, 1)
        drawn = torch.randn(size, generator=generator, device=generator.device)
        drawn.clamp_(-_CLIP, _CLIP)
        one, half = 1 << _FRACTION_BITS, 1 << (_FRACTION_BITS - 1)
        factor = drawn.mul_(self.scale).add_(1.0).mul_(one).round_().to(torch.int32)
        scaled = pixels * factor.to(pixels.device, non_blocking=True)
        scaled.add_(half).bitwise_right_shift_(_FRACTION_BITS).clamp_(max=255)
        return scaled.to(torch.uint8, memory_format=torch.contiguous_format)
