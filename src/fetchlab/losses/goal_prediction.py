"""Goal prediction: the encoder is asked where the object is.

An auxiliary loss after Jaderberg et al. 2016 (arXiv 1611.05397) and the study's next hypothesis: if
success stays flat because nothing forces the features to hold the object's position, asking for it
from the first episode on should end the flat part. ``achieved_goal`` is known for every stored row,
so the label is free; it is used for learning only and never becomes an input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def goal_prediction_loss(predicted: Tensor, achieved_goal: Tensor, scale_m: float) -> Tensor:
    """Mean squared distance in units of ``scale_m``, so that its size is of the order of 1.

    Args:
        predicted: (B, 3) metres.
        achieved_goal: (B, 3) metres.
        scale_m: metres, > 0; how far the object usually lies from the middle of the table.

    Returns:
        Scalar.
    """
    return ((predicted - achieved_goal) / scale_m).square().sum(dim=-1).mean()


@torch.no_grad()
def goal_error_m(predicted: Tensor, achieved_goal: Tensor) -> Tensor:
    """Mean distance in metres of ``predicted`` and ``achieved_goal``, both (B, 3)."""
    return torch.linalg.vector_norm(predicted - achieved_goal, dim=-1).mean()
