"""Convolutional encoder for small objects: 3x3 kernels that never step over one.

Nature-CNN's first layer (8x8, stride 4) erases an object of three to five pixels. These four 3x3
layers with strides 2, 1, 1, 2 keep an 84x84 image at 42, 42, 42, 21: a quarter of its resolution,
which a spatial softmax turns into coordinates. The layout follows the convolution stack of DrQ
(Kostrikov et al. 2020, arXiv 2004.13649: 3x3, stride 2 first), with padding so that the maps stay
centred on the image, and with a last stride of 2.
"""

from __future__ import annotations

from typing import Annotated

from torch import nn

from fetchlab.fields import Hint, Min
from fetchlab.networks.encoders.geometry import Layer, check_image, convolutions

_LAYERS = tuple(Layer(kernel=3, stride=stride, padding=1) for stride in (2, 1, 1, 2))


class ManipulationCNN(nn.Sequential):
    """Four convolutions of ``filters`` channels, a ReLU after each; images of 5 pixels or more."""

    def __init__(
        self,
        in_channels: int,
        image_size: int,
        filters: Annotated[int, Min(1), Hint("the study's is 32")],
    ) -> None:
        side = check_image(image_size, _LAYERS)
        super().__init__(*convolutions(in_channels, [filters] * 4, _LAYERS))
        self.out_shape = (filters, side, side)
