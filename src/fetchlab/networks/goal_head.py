"""The goal-prediction head: from image features to the object's position in metres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from fetchlab.entries import GOAL_DIM
from fetchlab.errors import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class GoalPredictionHead(nn.Module):
    """``centre + scale * MLP(features)``, one hidden ReLU layer.

    The centre and the scale make the network's own output of the order of 1: positions on the table
    differ by a tenth of a metre around an offset ten times as large, which a learning rate of 1e-4
    would take ten thousand updates to reach.

    Args:
        in_dim: size of the encoder's features.
        hidden: width of the hidden layer.
        centre_m: (3,) metres, the middle of the table.
        scale_m: metres, > 0.

    Raises:
        ConfigError: a centre that is no point, or a scale that is not positive.
    """

    centre: Tensor

    def __init__(self, in_dim: int, hidden: int, centre_m: Sequence[float], scale_m: float) -> None:
        super().__init__()
        key = "algo.goal_prediction"
        require(
            len(centre_m) == GOAL_DIM,
            f"{key}.centre_m",
            list(centre_m),
            "three numbers, metres",
            "FetchPush's table has its middle at [1.34, 0.75, 0.43]",
        )
        require(scale_m > 0, f"{key}.scale_m", scale_m, "a positive length", "0.1 m is usual")
        self.layers = nn.Sequential(
            nn.Linear(in_dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, GOAL_DIM)
        )
        self.scale_m = scale_m
        self.register_buffer("centre", torch.tensor(list(centre_m)), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map ``features`` (B, D) to positions (B, 3), metres."""
        return self.centre + self.scale_m * self.layers(features)
