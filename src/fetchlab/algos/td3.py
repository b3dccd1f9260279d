"""Twin delayed DDPG (Fujimoto et al. 2018, arXiv 1802.09477).

J_Q(i) = E[ 1/2 (Q_i(s, a) - y)^2 ],   y = r + discount min_i Q'_i(s', a')
a'     = clip(pi'(s') + clip(noise, -c, c), -1, 1)
J_pi   = E[ -Q_1(s, pi(s)) ],   in every d-th update, which then moves the targets too
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from fetchlab.algos.bellman import critic_loss, least_q
from fetchlab.algos.off_policy import OffPolicy
from fetchlab.fields import Hint, Min
from fetchlab.networks.actor import DeterministicActor
from fetchlab.networks.agent import Seen, frozen_copy
from fetchlab.networks.critic import CriticEnsemble
from fetchlab.schedule import Schedule


class TD3(OffPolicy):
    """TD3 with a shared encoder and explicit gradient routing.

    Args:
        hidden: widths of the hidden layers of both heads.
        ensemble: critics, E; the target takes their minimum, the actor follows the first.
        layer_norm: in the critics.
        actor_layer_norm: in the actor.
        exploration_std: of the Gaussian noise on exploring actions; a number or a `Schedule`.
        target_noise_std: of the noise on the target's actions.
        target_noise_clip: c, its bound.
        policy_delay: d, updates of the critics for each one of the actor and the targets.
        base: what every algorithm takes, see `OffPolicy`.
    """

    metrics = ("train/critic_loss", "train/actor_loss", "train/q_mean")
    actor_loss: Tensor

    def __init__(
        self,
        hidden: Annotated[Sequence[int], Hint("the paper's are [256, 256]")],
        ensemble: Annotated[int, Min(1), Hint("TD3 uses 2")],
        layer_norm: bool,
        actor_layer_norm: bool,
        exploration_std: float | Mapping[str, Any],
        target_noise_std: Annotated[float, Min(0), Hint("the paper used 0.2")],
        target_noise_clip: Annotated[float, Min(0), Hint("the paper used 0.5")],
        policy_delay: Annotated[int, Min(1), Hint("the paper used 2")],
        **base: Any,
    ) -> None:
        super().__init__(**base)
        agent, action_dim = self.agent, self.agent.env_spec.action_dim
        self._exploration_std = Schedule("algo.exploration_std", exploration_std)
        self._noise_std, self._noise_clip = target_noise_std, target_noise_clip
        self.actor_every = policy_delay
        agent.actor = DeterministicActor(agent.actor_dim, action_dim, hidden, actor_layer_norm)
        agent.critic = CriticEnsemble(agent.critic_dim, action_dim, hidden, ensemble, layer_norm)
        agent.actor_target, agent.critic_target = map(frozen_copy, (agent.actor, agent.critic))
        # What an update without the actor's step reports; in the checkpoint, so a resumed run too.
        self.register_buffer("actor_loss", torch.zeros(()))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Critic (+ encoder) first, actor second."""
        critic = [*self.agent.critic.parameters(), *self.seeing_parameters("critic")]
        actor = [*self.agent.actor.parameters(), *self.seeing_parameters("actor")]
        return [self.critic_optimizer(critic), self.actor_optimizer(actor)]

    @torch.no_grad()
    def explore(self, obs: TensorDictBase, env_steps: int) -> Tensor:
        """The policy's actions (N, A) with Gaussian noise."""
        self.agent.normalizer.freeze()
        action = self.act(obs).cpu()
        noise = torch.randn(action.shape, generator=self.explore_rng)
        return (action + self._exploration_std.at(env_steps) * noise).clamp(-1, 1)

    @torch.no_grad()
    def act(self, obs: TensorDictBase) -> Tensor:
        """The policy's actions (N, A)."""
        return torch.tanh(self.agent.actor(self.actor_input(obs)))

    def update(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """Critics and encoder; in every ``policy_delay``-th update the actor and the targets."""
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

        if self.due(self.actor_every):
            self._follow(pictured, obs, features, next_features)
        values = (q_loss, self.actor_loss, q.mean())
        return dict(zip(self.metrics, values, strict=True))

    def _follow(
        self, pictured: TensorDictBase, obs: Seen, features: Tensor | None, ahead: Tensor | None
    ) -> None:
        """Actor, then targets."""
        agent = self.agent
        if self.routing.encodes_again:
            features = self.encode(obs.images)
        seen = self.route("actor", features)
        action = torch.tanh(agent.actor(agent.actor_input(obs.vectors, seen)))
        # The critics only judge here: the encoder is reached through the policy alone.
        judged = None if features is None else features.detach()
        loss = -agent.critic(agent.critic_input(obs.vectors, judged), action)[0].mean()
        self.step("actor", self.with_auxiliary("actor", loss, features, pictured, ahead))
        self.actor_loss.copy_(loss.detach())
        self.average(
            (agent.critic_target, agent.critic),
            (agent.actor_target, agent.actor),
            (agent.encoder_target, agent.encoder),
        )

    @torch.no_grad()
    def _target(self, after: TensorDictBase, next_obs: Seen) -> tuple[Tensor, Tensor | None]:
        """The Bellman target (B,), and the target encoder's features of the next observation."""
        agent = self.agent
        online, features = agent.encode_next(next_obs.images)
        action = torch.tanh(agent.actor_target(agent.actor_input(next_obs.vectors, online)))
        noise = self._noise_std * self.noise(action)
        action = (action + noise.clamp(-self._noise_clip, self._noise_clip)).clamp(-1, 1)
        q = agent.critic_target(agent.critic_input(next_obs.vectors, features), action)
        return self.backup(after, least_q(q, self.q_range)), features
