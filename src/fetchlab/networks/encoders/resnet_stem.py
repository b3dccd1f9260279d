"""Frozen first layers of a ResNet-18, with weights from a file the user gives.

He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385, table 1): 7x7/2
convolution, 3x3/2 max-pooling, and the first stage, two basic blocks of 64 channels. An 84x84 image
becomes 42, 21, 21. Features of ImageNet, as they are, ask what the encoder's training is worth. The
pooling after it still learns.

The file is a ``state_dict`` with the names of torchvision's ``resnet18`` (torchvision itself is not
needed, and nothing is downloaded): ``torch.save(resnet18(weights=...).state_dict(), FILE)``, or the
file that torchvision caches. It is read as tensors only, each time the networks are built, so also
to resume or to evaluate; a checkpoint's weights then replace it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fetchlab.errors import ConfigError, require
from fetchlab.networks.encoders.geometry import Layer, check_image

_CHANNELS = 64
_RGB = 3
_STEM = Layer(kernel=7, stride=2, padding=3)
_POOL = Layer(kernel=3, stride=2, padding=1)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, in RGB
_KEY = "encoder.weights_path"
_EXPECTED = "a file with the state_dict of torchvision's resnet18"


class ResNetStem(nn.Module):
    """Each RGB frame of the stack through the same frozen stem, channels concatenated.

    No parameter asks for a gradient, and batch normalisation uses the file's statistics always.

    Frame s of a stack has channels 64 s to 64 s + 63. Images of 5 pixels or more. A relative
    ``weights_path`` lets a run resume only from the same directory.

    Raises:
        ConfigError: a file that is not given, cannot be read, or lacks a weight in its shape.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_channels: int, image_size: int, weights_path: str | None) -> None:
        super().__init__()
        side = check_image(image_size, (_STEM, _POOL))
        self.conv1 = nn.Conv2d(_RGB, _CHANNELS, *_STEM, bias=False)
        self.bn1 = _FrozenBatchNorm()
        self.maxpool = nn.MaxPool2d(*_POOL)
        self.layer1 = nn.Sequential(_BasicBlock(), _BasicBlock())
        _load(self, weights_path)
        self.requires_grad_(False)
        for name, values in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self._frames = in_channels // _RGB
        self.out_shape = (_CHANNELS * self._frames, side, side)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode ``pixels`` (B, 3S, H, W) float in [0, 1] as maps (B, 64 S, h, w) >= 0."""
        frames = pixels.unflatten(1, (self._frames, _RGB)).flatten(0, 1)
        maps = self.bn1(self.conv1((frames - self.mean) / self.std)).relu()
        maps = self.layer1(self.maxpool(maps))
        return maps.unflatten(0, (-1, self._frames)).flatten(1, 2)


class _FrozenBatchNorm(nn.Module):
    """``(x - running_mean) / sqrt(running_var + 1e-5) * weight + bias``, training or not."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.empty(_CHANNELS))

    def forward(self, maps: Tensor) -> Tensor:
        return functional.batch_norm(maps, **dict(self.named_buffers()))  # type: ignore[arg-type]


class _BasicBlock(nn.Module):
    """``relu(x + bn(conv(relu(bn(conv(x))))))``, same shape; torchvision's names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(_CHANNELS, _CHANNELS, kernel_size=3, padding=1, bias=False)
        self.bn1 = _FrozenBatchNorm()
        self.conv2 = nn.Conv2d(_CHANNELS, _CHANNELS, kernel_size=3, padding=1, bias=False)
        self.bn2 = _FrozenBatchNorm()

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.bn1(self.conv1(maps)).relu()
        return (maps + self.bn2(self.conv2(inner))).relu()


@torch.no_grad()
def _load(stem: nn.Module, path: str | None) -> None:
    """Copy the stem's weights and statistics from the file; its other layers are ignored."""
    stored = _read(path)
    for name, own in stem.state_dict().items():
        given = stored.get(name)
        shape = tuple(given.shape) if isinstance(given, Tensor) else "nothing"
        remedy = f"it has {shape} for {name}, needed {tuple(own.shape)}; give another file"
        require(shape == tuple(own.shape), _KEY, path, _EXPECTED, remedy)
        finite = bool(torch.as_tensor(given).isfinite().all())
        require(finite, _KEY, path, _EXPECTED, f"{name} is not finite; give another file")
        own.copy_(torch.as_tensor(given))


def _read(path: str | None) -> Mapping[Any, Any]:
    remedy = f"give {_KEY}=FILE, written by torch.save(resnet18(weights=...).state_dict(), FILE)"
    if path is None:
        raise ConfigError(_KEY, path, _EXPECTED, remedy)
    try:
        stored = torch.load(Path(path), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a crafted file makes the unpickler raise; not its text,
        # which for what is more than tensors advises to load it unsafely
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        raise ConfigError(_KEY, path, _EXPECTED, f"{remedy} ({reason})") from error
    if not isinstance(stored, Mapping):
        raise ConfigError(_KEY, path, _EXPECTED, f"{remedy} (it holds {type(stored).__name__})")
    return stored
