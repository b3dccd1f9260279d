"""A file of weights for the frozen ResNet stem: torchvision's names and shapes, random numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

BLOCKS = ("layer1.0", "layer1.1")


def resnet_weights() -> dict[str, Tensor]:
    """What torchvision's resnet18 stores for its stem and first stage; always the same numbers."""
    rng = torch.Generator().manual_seed(0)
    weights = {"conv1.weight": torch.randn(64, 3, 7, 7, generator=rng) / 12}
    norms = ["bn1"]
    for block in BLOCKS:
        for conv in ("conv1", "conv2"):
            weights[f"{block}.{conv}.weight"] = torch.randn(64, 64, 3, 3, generator=rng) / 24
        norms += [f"{block}.bn1", f"{block}.bn2"]
    for norm in norms:
        for name in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{name}"] = torch.rand(64, generator=rng) + 0.5
    return weights


def write_resnet_weights(path: Path) -> str:
    """Write them with two of the layers that the stem has no use for; returns the path."""
    others = {"layer2.0.conv1.weight": torch.ones(128, 64, 3, 3), "fc.bias": torch.ones(1000)}
    torch.save({**resnet_weights(), **others}, path)
    return str(path)
