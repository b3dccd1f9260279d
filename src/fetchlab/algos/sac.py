"""Soft actor-critic (Haarnoja et al. 2018, arXiv 1812.05905), from state and from pixels.

    J_Q(i)   = E[ 1/2 (Q_i(s, a) - y)^2 ]                    eq. 5
    y        = r + discount (min_i Q'_i(s', a') - alpha log pi(a'|s'))
    J_pi     = E[ alpha log pi(a|s) - min_i Q_i(s, a) ]      eq. 7
    J(alpha) = E[ -log alpha (log pi(a|s) + target entropy) ]

The last is the form everyone implements, in log alpha; the paper's eq. 18 has alpha itself there.
With pixels an update is DrQ-v2's (Yarats et al. 2021, arXiv 2107.09645): encode the observation
once with gradients and the next one without, step the critics (and the encoder, where the routing
puts it), step the actor on the same features, average the targets. That is five encoder passes: one
forward and backward (three), next online and target (one with ``target_encoder=false``, theirs);
joint routing encodes once more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn.functional import softplus

from fetchlab.algos.bellman import critic_loss, least_q
from fetchlab.algos.off_policy import OffPolicy
from fetchlab.errors import require
from fetchlab.fields import Above, Hint, Min
from fetchlab.networks.actor import GaussianActor
from fetchlab.networks.agent import Seen, frozen_copy
from fetchlab.networks.critic import CriticEnsemble

_LOG_2 = math.log(2)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class SAC(OffPolicy):
    """SAC with an ensemble of critics, a shared encoder and explicit gradient routing.

    Args:
        hidden: widths of the hidden layers of both heads.
        ensemble: critics, E.
        target_subset: critics, drawn anew for each update, over which the target takes its minimum
            (REDQ: 2 of 10, arXiv 2101.05982); None: all of them.
        actor_over: whether the actor's loss takes the minimum over all critics or, as REDQ does,
            their mean.
        layer_norm: in the critics (DroQ, arXiv 2110.02034, without its dropout).
        actor_layer_norm: in the actor.
        log_std_min, log_std_max: clamp of the policy's log standard deviation, nats.
        entropy_coefficient: alpha, fixed; or its initial value when it is learned.
        learn_entropy: learn log alpha towards the target entropy ``-action_dim``.
        backup_entropy: keep the entropy term in the target; without it ``q_bounds`` is exact, which
            bounds Q and not the entropy bonus, as its authors do.
        base: what every algorithm takes, see `OffPolicy`.
    """

    metrics = (
        "train/critic_loss",
        "train/actor_loss",
        "train/entropy",
        "train/q_mean",
        "train/entropy_coefficient",
    )

    def __init__(
        self,
        hidden: Annotated[Sequence[int], Hint("the study's are [256, 256]")],
        ensemble: Annotated[int, Min(1), Hint("SAC uses 2")],
        target_subset: Annotated[int, Min(1)] | None,
        actor_over: Annotated[Literal["min", "mean"], Hint("SAC takes min")],
        layer_norm: bool,
        actor_layer_norm: bool,
        log_std_min: float,
        log_std_max: float,
        entropy_coefficient: Annotated[
            float, Above(0), Hint("the study used 0.05; algo.learn_entropy=true learns it")
        ],
        learn_entropy: bool,
        backup_entropy: bool,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        agent, action_dim = self.agent, self.agent.env_spec.action_dim
        fits = target_subset is None or target_subset <= ensemble
        expected = f"null or from 1 to algo.ensemble={ensemble}"
        remedy = "raise algo.ensemble, or use null for all critics"
        require(fits, "algo.target_subset", target_subset, expected, remedy)
        self._subset, self._actor_over = target_subset, actor_over
        self._backup_entropy = backup_entropy
        agent.actor = GaussianActor(
            agent.actor_dim, action_dim, hidden, actor_layer_norm, log_std_min, log_std_max
        )
        agent.critic = CriticEnsemble(agent.critic_dim, action_dim, hidden, ensemble, layer_norm)
        agent.critic_target = frozen_copy(agent.critic)
        self._learn_entropy, self._target_entropy = learn_entropy, -float(action_dim)
        self.log_alpha = nn.Parameter(
            torch.tensor(math.log(entropy_coefficient)), requires_grad=learn_entropy
        )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if not self._learn_entropy:  # then it is a setting of this run, not of those weights'
            state_dict[f"{prefix}log_alpha"] = self.log_alpha.detach()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Critic (+ encoder) first, actor (+ log alpha) second."""
        critic = [*self.agent.critic.parameters(), *self.seeing_parameters("critic")]
        actor = [*self.agent.actor.parameters(), *self.seeing_parameters("actor")]
        alpha = [{"params": [self.log_alpha]}] if self._learn_entropy else []
        return [self.critic_optimizer(critic), self.actor_optimizer([{"params": actor}, *alpha])]

    @torch.no_grad()
    def explore(self, obs: TensorDictBase, env_steps: int) -> Tensor:
        """Sample actions (N, A); the first call freezes ``fixed`` input statistics."""
        self.agent.normalizer.freeze()
        mean, log_std = self.agent.actor(self.actor_input(obs))
        noise = torch.randn(mean.shape, generator=self.explore_rng)
        return torch.tanh(mean + log_std.exp() * noise.to(mean.device, non_blocking=True))

    @torch.no_grad()
    def act(self, obs: TensorDictBase) -> Tensor:
        """The policy's mode (N, A)."""
        return torch.tanh(self.agent.actor(self.actor_input(obs))[0])

    def update(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Critics and encoder, then the actor, then the targets."""
        agent = self.agent
        obs, taken, next_obs, pictured = agent.look(batch, self.rng)
        features = self.encode(obs.images)

        target, next_features = self._target(batch.get("next"), next_obs)
        seen = self.route("critic", features)
        q = agent.critic(agent.critic_input(obs.vectors, seen), taken)
        q_loss = critic_loss(q, target)
        self.step(
            "critic", self.with_auxiliary("critic", q_loss, features, pictured, next_features)
        )

        if self.routing.encodes_again:
            features = self.encode(obs.images)
        seen = self.route("actor", features)
        mean, log_std = agent.actor(agent.actor_input(obs.vectors, seen))
        action, log_prob = sample_action(mean, log_std, self.noise(mean))
        # The critics only judge here: the encoder is reached through the policy alone.
        judged = None if features is None else features.detach()
        q_pi = agent.critic(agent.critic_input(obs.vectors, judged), action)
        if self._actor_over == "mean":
            q_pi = q_pi.mean(dim=0, keepdim=True)
        alpha = self.log_alpha.exp().detach()
        pi_loss = actor_loss(q_pi, log_prob, alpha)
        if self._learn_entropy:
            desired = self._target_entropy
            pi_loss = pi_loss + entropy_coefficient_loss(self.log_alpha, log_prob, desired)
        self.step("actor", self.with_auxiliary("actor", pi_loss, features, pictured, next_features))

        self.average((agent.critic_target, agent.critic), (agent.encoder_target, agent.encoder))
        values = (q_loss, pi_loss, -log_prob.mean(), q.mean(), alpha)
        return dict(zip(self.metrics, values, strict=True))

    @torch.no_grad()
    def _target(self, after: TensorDictBase, next_obs: Seen) -> tuple[Tensor, Tensor | None]:
        """The Bellman target (B,): next action from the online encoder, Q from the target one."""
        agent = self.agent
        online, features = agent.encode_next(next_obs.images)
        mean, log_std = agent.actor(agent.actor_input(next_obs.vectors, online))
        action, log_prob = sample_action(mean, log_std, self.noise(mean))
        q = agent.critic_target(agent.critic_input(next_obs.vectors, features), action)
        if self._subset is not None and self._subset < len(q):
            order = torch.rand(len(q), generator=self.rng, device=q.device).argsort()
            q = q.index_select(0, order[: self._subset])
        alpha = self.log_alpha.exp() if self._backup_entropy else None
        return self.backup(after, soft_value(q, log_prob, alpha, self.q_range)), features


def sample_action(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Squash a Gaussian sample: ``a = tanh(u)``, ``u = mean + std * noise`` (appendix C).

    ``log pi(a) = sum_j [log N(u_j) - log(1 - tanh(u_j)^2)]``, the last term by the identity
    ``2 (log 2 - u - softplus(-2u))``, exact for every u. Stable-Baselines3 takes
    ``log(1 - a^2 + 1e-6)``, which cannot fall below -13.8: it calls saturated actions less likely
    than they are, by 4.8 nats per dimension at u = 10.

    Args:
        mean: (B, A) of the Gaussian.
        log_std: (B, A), nats.
        noise: (B, A) standard normal.

    Returns:
        Action (B, A) in [-1, 1] and its log probability density (B,), both differentiable.
    """
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - _HALF_LOG_2PI
    log_jacobian = 2 * (_LOG_2 - u - softplus(-2 * u))
    return u.tanh(), (log_normal - log_jacobian).sum(dim=-1)


def soft_value(
    q: Tensor, log_prob: Tensor, alpha: float | Tensor | None, bounds: tuple[float, float] | None
) -> Tensor:
    """`least_q` ``- alpha log pi`` (B,) of the target's actions; without ``alpha`` no entropy."""
    value = least_q(q, bounds)
    return value if alpha is None else value - alpha * log_prob


def actor_loss(q: Tensor, log_prob: Tensor, alpha: float | Tensor) -> Tensor:
    """Mean of ``alpha log pi - min_i Q_i`` over sampled actions; (E, B) and (B,) to a scalar."""
    return (alpha * log_prob - q.min(dim=0).values).mean()


def entropy_coefficient_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Loss of the learned ``log_alpha``: it falls while the entropy is above its target, in nats.

    No gradient flows into ``log_prob`` (B,), of the current policy's actions.
    """
    return -(log_alpha * (log_prob.detach() + target_entropy)).mean()
