"""The convolutions of DrQ-v2: four 3x3 layers, one stride, no padding.

Yarats et al. 2021, "Mastering Visual Continuous Control" (arXiv 2107.09645, and its published
code): pixels in [-0.5, 0.5], 3x3 stride 2, then three of 3x3 stride 1, 32 filters each, a ReLU
after each. An 84x84 image becomes 41, 39, 37, 35. Weights start orthogonal with the gain of a ReLU,
biases at zero, as theirs do. What follows, a flat projection to 50 features with LayerNorm and
tanh, is ``pooling=flatten_norm_tanh``; theirs has one for the actor and one for the critics, here
both share it, as in SAC-AE and the first DrQ. The heads keep their own initialisation.
"""

from __future__ import annotations

from typing import Annotated

from torch import Tensor, nn

from fetchlab.fields import Hint, Min
from fetchlab.networks.encoders.geometry import Layer, check_image, convolutions

_LAYERS = tuple(Layer(kernel=3, stride=stride, padding=0) for stride in (2, 1, 1, 1))
_CENTRE = 0.5


class DrQv2CNN(nn.Sequential):
    """Four convolutions of ``filters`` channels, a ReLU after each; images of 17 pixels or more."""

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        filters: Annotated[int, Min(1), Hint("the paper's is 32")],
    ) -> None:
        side = check_image(image_size, _LAYERS)
        super().__init__(*convolutions(in_channels, [filters] * 4, _LAYERS, _orthogonal))
        self.out_shape = (filters, side, side)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode ``pixels`` (B, C, H, W) float in [0, 1] as maps (B, filters, h, w) >= 0."""
        return super().forward(pixels - _CENTRE)


def _orthogonal(n_in: int, n_out: int, *layer: int) -> nn.Conv2d:
    """Rows of the (filters, channels x 9) matrix orthogonal, or its columns; biases zero."""
    conv = nn.Conv2d(n_in, n_out, *layer)  # type: ignore[arg-type]
    nn.init.orthogonal_(conv.weight, gain=nn.init.calculate_gain("relu"))
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return conv
