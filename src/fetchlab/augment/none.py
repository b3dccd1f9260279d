"""No augmentation: the study's cells A and B (``--no-drq``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class NoAugment:
    """Images as they are; draws nothing from the generator.

    ``shared_draw`` makes no difference to the images here: True is one call instead of two, and
    both stacks stay views of the replay's block.
    """

    shared_draw = True

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return ``pixels`` (B, C, H, W) uint8 themselves."""
        return pixels
