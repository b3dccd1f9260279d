"""Policy heads: a Gaussian before the tanh (SAC), or the action itself (DDPG, TD3).

ReLU MLPs. The Gaussian's layer names and initialisation are those of Stable-Baselines3's SAC actor,
so weights move between the two; sampling and the tanh are the algorithm's.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from fetchlab.errors import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class GaussianActor(nn.Module):
    """Mean and log standard deviation of the pre-tanh Gaussian (arXiv 1812.05905).

    Args:
        in_dim: size D of the features.
        action_dim: size A of the action.
        hidden: widths of the hidden layers, at least one.
        layer_norm: normalise every hidden layer before its ReLU.
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
        layer_norm: bool,
        log_std_min: float,
        log_std_max: float,
    ) -> None:
        super().__init__()
        require(
            log_std_min < log_std_max,
            "algo.log_std_min",
            log_std_min,
            f"less than log_std_max={log_std_max}",
            "Stable-Baselines3 uses -20 and 2",
        )
        self.latent_pi = _hidden_layers(in_dim, action_dim, hidden, layer_norm)
        self.mu = nn.Linear(hidden[-1], action_dim)
        self.log_std = nn.Linear(hidden[-1], action_dim)
        self._log_std_min, self._log_std_max = log_std_min, log_std_max

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features ``x`` (B, D) to ``(mean, log_std)``, each (B, A), before the tanh."""
        x = self.latent_pi(x)
        return self.mu(x), self.log_std(x).clamp(self._log_std_min, self._log_std_max)


class DeterministicActor(nn.Module):
    """The action before its tanh (Lillicrap et al. 2016, arXiv 1509.02971).

    Args:
        in_dim: size D of the features.
        action_dim: size A of the action.
        hidden: widths of the hidden layers, at least one.
        layer_norm: normalise every hidden layer before its ReLU.

    Raises:
        ConfigError: a size is not positive, or no hidden layer.
    """

    def __init__(
        self, in_dim: int, action_dim: int, hidden: Sequence[int], layer_norm: bool
    ) -> None:
        super().__init__()
        self.latent_pi = _hidden_layers(in_dim, action_dim, hidden, layer_norm)
        self.mu = nn.Linear(hidden[-1], action_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``x`` (B, D) to the action (B, A) before the tanh."""
        return self.mu(self.latent_pi(x))


def _hidden_layers(
    in_dim: int, action_dim: int, hidden: Sequence[int], layer_norm: bool
) -> nn.Sequential:
    sizes = (in_dim, *hidden, action_dim)
    require(
        len(hidden) >= 1 and min(sizes) >= 1,
        "actor sizes (in_dim, *hidden, action_dim)",
        sizes,
        "positive sizes and at least one hidden layer",
        "the study's hidden layers are [256, 256]",
    )
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((in_dim, *hidden)):
        norm = [nn.LayerNorm(n_out)] if layer_norm else []
        layers += [nn.Linear(n_in, n_out), *norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
