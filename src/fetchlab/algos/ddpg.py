"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv 1509.02971), HER's algorithm.

    J_Q  = E[ 1/2 (Q(s, a) - y)^2 ],   y = r + discount Q'(s', pi'(s'))
    J_pi = E[ -Q(s, pi(s)) + penalty mean_j pi_j(s)^2 ]

Hindsight experience replay (Andrychowicz et al. 2017, arXiv 1707.01495) used it with a bounded Q, a
share of uniform actions and a penalty on large ones, all options here; so are the exploration
schedule and the targets of several steps of DrQ-v2 (Yarats et al. 2021, arXiv 2107.09645), whose
order of an update this is. Its twin critics are ``ensemble: 2``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from tensordict import TensorDictBase
from torch import Tensor

from fetchlab.algos.bellman import critic_loss, least_q
from fetchlab.algos.off_policy import OffPolicy
from fetchlab.fields import Hint, Max, Min
from fetchlab.networks.actor import DeterministicActor
from fetchlab.networks.agent import Seen, frozen_copy
from fetchlab.networks.critic import CriticEnsemble
from fetchlab.schedule import Schedule


class DDPG(OffPolicy):
    """DDPG with a shared encoder and explicit gradient routing.

    Args:
        hidden: widths of the hidden layers of both heads.
        ensemble: critics, E; targets and the actor's loss take their minimum.
        layer_norm: in the critics.
        actor_layer_norm: in the actor.
        exploration_std: of the Gaussian noise on exploring actions; a number or a `Schedule`.
        random_share: of exploring actions that are uniform instead.
        action_penalty: weight of the mean squared action in the actor's loss.
        base: what every algorithm takes, see `OffPolicy`.
    """

    metrics = ("train/critic_loss", "train/actor_loss", "train/q_mean", "train/action_size")

    def __init__(
        self,
        hidden: Annotated[Sequence[int], Hint("HER's are [256, 256, 256]")],
        ensemble: Annotated[int, Min(1), Hint("DDPG uses 1, DrQ-v2 2")],
        layer_norm: bool,
        actor_layer_norm: bool,
        exploration_std: float | Mapping[str, Any],
        random_share: Annotated[float, Min(0), Max(1)],
        action_penalty: Annotated[float, Min(0)],
        **base: Any,
    ) -> None:
        super().__init__(**base)
        agent, action_dim = self.agent, self.agent.env_spec.action_dim
        self._exploration_std = Schedule("algo.exploration_std", exploration_std)
        self._random_share, self._action_penalty = random_share, action_penalty
        agent.actor = DeterministicActor(agent.actor_dim, action_dim, hidden, actor_layer_norm)
        agent.critic = CriticEnsemble(agent.critic_dim, action_dim, hidden, ensemble, layer_norm)
        agent.actor_target, agent.critic_target = map(frozen_copy, (agent.actor, agent.critic))

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Critic (+ encoder) first, actor second."""
        critic = [*self.agent.critic.parameters(), *self.seeing_parameters("critic")]
        actor = [*self.agent.actor.parameters(), *self.seeing_parameters("actor")]
        return [self.critic_optimizer(critic), self.actor_optimizer(actor)]

    @torch.no_grad()
    def explore(self, obs: TensorDictBase, env_steps: int) -> Tensor:
        """The policy's actions (N, A) with noise, some of them uniform."""
        self.agent.normalizer.freeze()
        action = self.act(obs).cpu()
        noise = torch.randn(action.shape, generator=self.explore_rng)
        noisy = (action + self._exploration_std.at(env_steps) * noise).clamp(-1, 1)
        uniform = torch.rand(action.shape, generator=self.explore_rng) * 2 - 1
        chance = torch.rand((len(action), 1), generator=self.explore_rng)
        return torch.where(chance < self._random_share, uniform, noisy)

    @torch.no_grad()
    def act(self, obs: TensorDictBase) -> Tensor:
        """The policy's actions (N, A)."""
        return torch.tanh(self.agent.actor(self.actor_input(obs)))

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
        action = torch.tanh(agent.actor(agent.actor_input(obs.vectors, seen)))
        # The critics only judge here: the encoder is reached through the policy alone.
        judged = None if features is None else features.detach()
        q_pi = agent.critic(agent.critic_input(obs.vectors, judged), action).amin(dim=0)
        size = action.square().mean()
        pi_loss = -q_pi.mean() + self._action_penalty * size
        self.step("actor", self.with_auxiliary("actor", pi_loss, features, pictured, next_features))

        self.average(
            (agent.critic_target, agent.critic),
            (agent.actor_target, agent.actor),
            (agent.encoder_target, agent.encoder),
        )
        values = (q_loss, pi_loss, q.mean(), size.sqrt())
        return dict(zip(self.metrics, values, strict=True))

    @torch.no_grad()
    def _target(self, after: TensorDictBase, next_obs: Seen) -> tuple[Tensor, Tensor | None]:
        """The Bellman target (B,), and the target encoder's features of the next observation."""
        agent = self.agent
        online, features = agent.encode_next(next_obs.images)
        action = torch.tanh(agent.actor_target(agent.actor_input(next_obs.vectors, online)))
        q = agent.critic_target(agent.critic_input(next_obs.vectors, features), action)
        return self.backup(after, least_q(q, self.q_range)), features
