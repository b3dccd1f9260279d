"""Convolutional encoder for small objects: 3x3 kernels that never step over one.

Nature-CNN's first layer (8x8, stride 4) erases an object of three to five pixels. Four 3x3 layers
with strides 2, 1, 1, 2 keep an 84x84 image at 42, 42, 42, 21: a quarter of its resolution, which a
spatial softmax turns into coordinates. The layout follows the convolution stack of DrQ (Kostrikov
et al. 2020, arXiv 2004.13649: 3x3, stride 2 first), with padding so that the maps stay centred on
the image, and with a last stride of 2. Small images keep more of it by fewer layers: strides 2, 1,
1 leave half of the resolution, 16x16 of 32x32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from torch import nn

from fetchlab.errors import require
from fetchlab.fields import Hint, Min
from fetchlab.networks.encoders.geometry import Layer, check_image, convolutions

_KERNEL = 3


class ManipulationCNN(nn.Sequential):
    """A convolution of ``filters`` channels for each of ``strides``, a ReLU after each.

    Raises:
        ConfigError: no stride, one that is not from 1 to 3, or the image is too small for them: the
            default ones need 5 pixels.
    """

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        filters: Annotated[int, Min(1), Hint("the study's is 32")],
        strides: Sequence[int],
    ) -> None:
        fits = len(strides) > 0 and all(1 <= stride <= _KERNEL for stride in strides)
        expected = f"at least one number from 1 to {_KERNEL}, longer ones step over pixels"
        remedy = "the study's are [2, 1, 1, 2]"
        require(fits, "encoder.strides", list(strides), expected, remedy)
        layers = [Layer(_KERNEL, stride, padding=1) for stride in strides]
        side = check_image(image_size, layers)
        super().__init__(*convolutions(in_channels, [filters] * len(layers), layers))
        self.out_shape = (filters, side, side)
