"""The convolutions of DQN: wide kernels with long strides, made for Atari.

Mnih et al. 2015, "Human-level control through deep reinforcement learning" (Nature 518, Methods,
"Model architecture"): 8x8 stride 4, 4x4 stride 2, 3x3 stride 1, no padding, a ReLU after each. An
84x84 image becomes 20, 9, 7. Stable-Baselines3 calls it NatureCNN and adds a linear layer of 512;
here the layer after the convolutions is the pooling's choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import nn

from fetchlab.fields import Hint, Length, Min
from fetchlab.networks.encoders.geometry import Layer, check_image, convolutions

_LAYERS = (
    Layer(kernel=8, stride=4, padding=0),
    Layer(kernel=4, stride=2, padding=0),
    Layer(kernel=3, stride=1, padding=0),
)


class NatureCNN(nn.Sequential):
    """Three convolutions, each with its ``filters`` and a ReLU; images of 44 pixels or more."""

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        filters: Annotated[
            Sequence[Annotated[int, Min(1)]],
            Length(3),
            Hint("the paper's are [32, 64, 64]", "3 positive numbers"),
        ],
    ) -> None:
        side = check_image(image_size, _LAYERS)
        super().__init__(*convolutions(in_channels, filters, _LAYERS))
        self.out_shape = (filters[-1], side, side)
