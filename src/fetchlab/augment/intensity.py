"""Intensity jitter: each image brighter or darker by one random factor.

DrQ (Kostrikov et al. 2020, arXiv 2004.13649, appendix on image augmentations):
s = 1 + scale * clip(r, -2, 2) with r from the standard normal distribution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fetchlab.errors import require

if TYPE_CHECKING:
    from torch import Tensor

_CLIP = 2.0
#: Factors are whole multiples of 2^-16, so that an image is scaled in integers: 255 times the
#: largest factor, 2, is far below 2^31, and the result is the same on every device.
_FRACTION_BITS = 16


class Intensity:
    """Multiply each image of a batch by its own s in [1 - 2 scale, 1 + 2 scale].

    All channels of an image, so all its stacked frames, share the factor. The paper multiplies
    floats; here the product is rounded to the nearest byte and cut at 255.

    Args:
        scale: spread of the factor, in (0, 0.5] (DrQ: 0.1).
        shared_draw: one factor for obs and next_obs, or one each, see `Augmentation`.

    Raises:
        ConfigError: ``scale`` is outside of its range.
    """

    def __init__(self, scale: float, shared_draw: bool) -> None:
        require(
            0.0 < scale <= 1.0 / _CLIP,
            "augment.scale",
            scale,
            "in (0, 0.5], so that no factor is negative",
            "0.1 is usual; use augment=none for no jitter",
        )
        self.scale, self.shared_draw = scale, shared_draw

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return scaled copies of ``pixels`` (B, C, H, W) uint8, contiguous.

        The B factors are drawn on the generator's device, whatever the pixels' device.
        """
        drawn = torch.randn(
            (len(pixels), 1, 1, 1), generator=generator, device=generator.device
        ).clamp_(-_CLIP, _CLIP)
        one, half = 1 << _FRACTION_BITS, 1 << (_FRACTION_BITS - 1)
        factor = drawn.mul_(self.scale).add_(1.0).mul_(one).round_().to(torch.int32)
        scaled = pixels * factor.to(pixels.device, non_blocking=True)
        scaled.add_(half).bitwise_right_shift_(_FRACTION_BITS).clamp_(max=255)
        return scaled.to(torch.uint8, memory_format=torch.contiguous_format)
