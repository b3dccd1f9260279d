"""Auxiliary losses on the encoder, `fetchlab.entries.AuxiliaryLoss`: one YAML each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from fetchlab.entries import EnvSpec
from fetchlab.errors import require
from fetchlab.fields import Above, Min


class GoalPrediction(nn.Module):
    """Where is the object? ``centre + scale * MLP(features)`` predicts ``achieved_goal``.

    After Jaderberg et al. 2016 (arXiv 1611.05397) and the study's hypothesis: if success stays flat
    because nothing forces the features to hold the object's position, asking for it from the first
    episode on should end the flat part. The label is free, every stored row has it; it is used for
    learning only and never becomes an input of a policy that acts; the prediction may.

    The loss is the mean squared distance in units of ``scale_m``, beyond ``huber_m`` linear in it
    (Huber 1964): where an object that fell off the table lies can only be guessed, and squares of
    half a metre would drown those of a centimetre; with the centre that makes the
    network's own output of the order of 1: positions on the table differ by a tenth of a metre
    around an offset ten times as large.

    Args:
        feature_dim, env_spec, weight: see `fetchlab.entries.AuxiliaryLoss`.
        hidden: width of the hidden ReLU layer.
        centre_m: metres, one number for each of the goal's; the middle of the table.
        scale_m: metres; how far the object usually lies from there.
        huber_m: metres; None: squares everywhere.
    """

    metrics = ("train/goal_error_m",)
    needs_next_features = False
    centre: Tensor

    def __init__(
        self,
        feature_dim: int,
        env_spec: EnvSpec,
        weight: Annotated[float, Above(0)],
        hidden: Annotated[int, Min(1)],
        centre_m: Sequence[float],
        scale_m: Annotated[float, Above(0)],
        huber_m: Annotated[float, Above(0)] | None,
    ) -> None:
        super().__init__()
        goal_dim, key = env_spec.goal_dim, "auxiliary.goal_prediction.centre_m"
        expected, remedy = (
            f"{goal_dim} numbers, metres",
            "FetchPush's table is at [1.34, 0.75, 0.43]",
        )
        require(len(centre_m) == goal_dim, key, list(centre_m), expected, remedy)
        self._env_spec, self.weight, self._scale_m = env_spec, weight, scale_m
        self._huber = None if huber_m is None else huber_m / scale_m
        self.layers = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, goal_dim)
        )
        self.register_buffer("centre", torch.tensor(list(centre_m)), persistent=False)

    def predict_goal(self, features: Tensor) -> Tensor:
        """The achieved goal (B, goal_dim), metres, of features (B, D)."""
        return self.centre + self._scale_m * self.layers(features)

    def forward(
        self, features: Tensor, batch: TensorDictBase, next_features: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and the mean distance in metres as ``train/goal_error_m``."""
        offset = self.predict_goal(features) - self._env_spec.achieved_goal(batch)
        error_m = torch.linalg.vector_norm(offset.detach(), dim=-1).mean()
        squared = (offset / self._scale_m).square().sum(dim=-1)
        if self._huber is not None:
            # The squares themselves up to there: sqrt has no gradient at 0.
            far = 2 * self._huber * squared.clamp(min=self._huber**2).sqrt() - self._huber**2
            squared = torch.where(squared < self._huber**2, squared, far)
        return squared.mean(), {self.metrics[0]: error_m}


class NextFeatures(nn.Module):
    """What will it look like? An MLP of features and action predicts the next features.

    Self-predictive representations (Schwarzer et al. 2021, arXiv 2007.05929), one step ahead,
    or ``algo.n_step``: the target comes from the slowly averaged encoder, whose collapse that
    averaging prevents (with ``algo.target_encoder=false`` from the encoder itself); both sides are
    normalised, so the loss is ``2 - 2 cos``. The arguments are `GoalPrediction`'s.
    """

    metrics = ("train/next_features_cosine",)
    needs_next_features = True

    def __init__(
        self,
        feature_dim: int,
        env_spec: EnvSpec,
        weight: Annotated[float, Above(0)],
        hidden: Annotated[int, Min(1)],
    ) -> None:
        super().__init__()
        self.weight = weight
        self.layers = nn.Sequential(
            nn.Linear(feature_dim + env_spec.action_dim, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, feature_dim),
        )

    def forward(
        self, features: Tensor, batch: TensorDictBase, next_features: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, in [0, 4], and the mean cosine."""
        assert next_features is not None
        predicted = self.layers(torch.cat((features, batch.get("action")), dim=-1))
        predicted, target = (nn.functional.normalize(x, dim=-1) for x in (predicted, next_features))
        loss = features.shape[-1] * mse_loss(predicted, target)
        return loss, {self.metrics[0]: 1 - loss.detach() / 2}
