"""Gaussian policy head of SAC (Haarnoja et al. 2018, arXiv 1812.05905).

A ReLU MLP with a state-dependent diagonal covariance. Layer names and initialisation are those of
Stable-Baselines3's SAC actor, so weights move between the two. Sampling and the tanh live in
`fetchlab.losses.sac`: this module only says where the Gaussian is.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn
from torch.nn import functional

from fetchlab.errors import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class GaussianActor(nn.Module):
    """Mean and log standard deviation of the pre-tanh Gaussian.

    Args:
        in_dim: size D of the features.
        action_dim: size A of the action.
        hidden: widths of the hidden layers, at least one.
        log_std_min: lower clamp of the log standard deviation, nats (SB3: -20).
        log_std_max: upper clamp (SB3: 2).

    Raises:
        ConfigError: a size is not positive, no hidden layer, or the clamp is empty.
    """

    def __init__(
        self,
        in_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        log_std_min: float,
        log_std_max: float,
    ) -> None:
        super().__init__()
        sizes = (in_dim, *hidden, action_dim)
        require(
            len(hidden) >= 1 and min(sizes) >= 1,
            "actor sizes (in_dim, *hidden, action_dim)",
            sizes,
            "positive sizes and at least one hidden layer",
            "the study's hidden layers are [256, 256]",
        )
        require(
            log_std_min < log_std_max,
            "log_std_min",
            log_std_min,
            f"less than log_std_max={log_std_max}",
            "Stable-Baselines3 uses -20 and 2",
        )
        layers: list[nn.Module] = []
        for n_in, n_out in pairwise((in_dim, *hidden)):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(inplace=True)]
        self.latent_pi = nn.Sequential(*layers)
        self.mu = nn.Linear(hidden[-1], action_dim)
        self.log_std = nn.Linear(hidden[-1], action_dim)
        self._log_std_min = log_std_min
        self._log_std_max = log_std_max
        # A module call costs more than a small batch's products: forward uses the parameters.
        linears = [layer for layer in layers if isinstance(layer, nn.Linear)]
        self._hidden = tuple((layer.weight, layer.bias) for layer in linears)
        self._heads = tuple((head.weight, head.bias) for head in (self.mu, self.log_std))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features ``x`` (B, D) to ``(mean, log_std)``, each (B, A), before the tanh."""
        for weight, bias in self._hidden:
            x = functional.linear(x, weight, bias).relu_()
        mean, log_std = (functional.linear(x, weight, bias) for weight, bias in self._heads)
        return mean, log_std.clamp(self._log_std_min, self._log_std_max)
