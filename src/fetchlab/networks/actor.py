"""Policy heads: a Gaussian before the tanh (SAC), or the action itself (DDPG, TD3).

ReLU MLPs. The Gaussian's layer names and initialisation are those of Stable-Baselines3's SAC actor,
so weights move between the two; sampling and the tanh are the algorithm's.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from fetchlab.errors import require


class GaussianActor(nn.Module):
    """Mean and log standard deviation of the pre-tanh Gaussian (arXiv 1812.05905).

    Args:
        in_dim: size D of the features.
        action_dim: size A of the action.
        hidden: widths of the hidden layers, at least one.
        layer_norm: normalise every hidden layer before its ReLU.
        log_std_min, log_std_max: clamp of the log standard deviation, nats (SB3: -20 and 2).
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
        fits, expected = log_std_min < log_std_max, f"less than log_std_max={log_std_max}"
        remedy = "Stable-Baselines3 uses -20 and 2"
        require(fits, "algo.log_std_min", log_std_min, expected, remedy)
        self.latent_pi = _hidden_layers(in_dim, hidden, layer_norm)
        self.mu = nn.Linear(hidden[-1], action_dim)
        self.log_std = nn.Linear(hidden[-1], action_dim)
        self._log_std_min, self._log_std_max = log_std_min, log_std_max

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map features ``x`` (B, D) to ``(mean, log_std)``, each (B, A), before the tanh."""
        x = self.latent_pi(x)
        return self.mu(x), self.log_std(x).clamp(self._log_std_min, self._log_std_max)


class DeterministicActor(nn.Module):
    """The action before its tanh (Lillicrap et al. 2016, arXiv 1509.02971).

    The arguments are those of `GaussianActor`.
    """

    def __init__(
        self, in_dim: int, action_dim: int, hidden: Sequence[int], layer_norm: bool
    ) -> None:
        super().__init__()
        self.latent_pi = _hidden_layers(in_dim, hidden, layer_norm)
        self.mu = nn.Linear(hidden[-1], action_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map features ``x`` (B, D) to the action (B, A) before the tanh."""
        return self.mu(self.latent_pi(x))


def check_hidden(hidden: Sequence[int]) -> None:
    """Refuse (`ConfigError`) heads without a hidden layer, and layers without units."""
    fits, expected = min(hidden, default=0) >= 1, "at least one positive number"
    require(fits, "algo.hidden", list(hidden), expected, "the study's are [256, 256]")


def _hidden_layers(in_dim: int, hidden: Sequence[int], layer_norm: bool) -> nn.Sequential:
    check_hidden(hidden)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise((in_dim, *hidden)):
        norm = [nn.LayerNorm(n_out)] if layer_norm else []
        layers += [nn.Linear(n_in, n_out), *norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
