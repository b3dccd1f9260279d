"""The residual encoder of IMPALA: deeper than DQN's, with the object's pixels kept longer.

Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL" (arXiv 1802.01561, figure 3, the large
network): sections of 16, 32, 32 channels, each a 3x3 convolution, a 3x3 max-pooling of stride 2 and
two residual blocks ``x + conv(relu(conv(relu(x))))``; a ReLU at the end. An 84x84 image becomes 42,
21, 11. The paper's linear layer of 256 and its LSTM are left out: what follows is the pooling.

One deviation: TensorFlow's "SAME" pooling pads an even image below and to the right only, this one
on all sides, so that the maps stay centred. Their sides are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fetchlab.errors import require
from fetchlab.networks.encoders.geometry import Layer, check_image

_CONV = Layer(kernel=3, stride=1, padding=1)
_POOL = Layer(kernel=3, stride=2, padding=1)
_BLOCKS = 2


class ImpalaCNN(nn.Sequential):
    """A section for each of ``depths``, its channels; three need images of 9 pixels or more.

    Raises:
        ConfigError: no section, a depth that is not positive, or the image is too small for them.
    """

    def __init__(self, in_channels: int, image_size: int, depths: Sequence[int]) -> None:
        fits, expected = min(depths, default=0) >= 1, "at least one positive number"
        remedy = "the paper's are [16, 32, 32]"
        require(fits, "encoder.depths", list(depths), expected, remedy)
        side = check_image(image_size, (_CONV, _POOL) * len(depths))
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((in_channels, *depths)):
            layers += [nn.Conv2d(n_in, n_out, *_CONV), nn.MaxPool2d(*_POOL)]
            layers += [_ResidualBlock(n_out) for _ in range(_BLOCKS)]
        super().__init__(*layers, nn.ReLU(inplace=True))
        self.out_shape = (depths[-1], side, side)


class _ResidualBlock(nn.Sequential):
    """``x + conv(relu(conv(relu(x))))``, same shape; the first ReLU keeps ``x`` for the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(channels, channels, *_CONV),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, *_CONV),
        )

    def forward(self, maps: Tensor) -> Tensor:
        return maps + super().forward(maps)
