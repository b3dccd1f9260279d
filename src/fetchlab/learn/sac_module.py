"""Soft actor-critic as a LightningModule: manual optimization over two optimizers.

One update reads top to bottom like DrQ-v2 (Yarats et al. 2021) around SAC (Haarnoja et al. 2018):
encode the observation once with gradients and the next one without, step the critics (and the
encoder, where the routing puts it), step the actor on the same features, average the targets.
With pixels that is five encoder passes: one forward and backward (three), next online and target.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import lightning.pytorch as pl
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from fetchlab.learn.metrics import MetricSums
from fetchlab.learn.parameters import actor_parameters, check_routing, critic_parameters
from fetchlab.learn.settings import SACSettings
from fetchlab.losses import sac
from fetchlab.networks.agent import Agent
from fetchlab.types import (
    ACTION_DIM,
    DESIRED_GOAL,
    PIXELS,
    Augmentation,
    NonFiniteError,
    Routing,
)

METRICS = (
    "train/critic_loss",
    "train/actor_loss",
    "train/entropy",
    "train/q_mean",
    "train/entropy_coefficient",
)


class SACModule(pl.LightningModule):
    """SAC with a shared encoder and explicit gradient routing.

    Args:
        agent: networks and targets.
        routing: which loss trains the encoder.
        augment: of uint8 images, drawn anew for obs and next_obs.
        settings: of the update.
        critic_optimizer: ``params -> Optimizer``, for the critics (+ encoder under its routing).
        actor_optimizer: ``params -> Optimizer``, for the actor (+ log alpha when learned).
        explore_seed: of the noise in exploring actions.
        update_seed: of every random draw of the updates: action noise and augmentation.

    Raises:
        ConfigError: where the routing trains the encoder through a loss that does not see pixels.
    """

    def __init__(
        self,
        agent: Agent,
        routing: Routing,
        augment: Augmentation,
        settings: SACSettings,
        critic_optimizer: partial[torch.optim.Optimizer],
        actor_optimizer: partial[torch.optim.Optimizer],
        explore_seed: int,
        update_seed: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        check_routing(agent, routing)
        self.agent, self.routing, self.augment, self.settings = agent, routing, augment, settings
        self._critic_optimizer, self._actor_optimizer = critic_optimizer, actor_optimizer
        self.log_alpha = nn.Parameter(
            torch.tensor(math.log(settings.entropy_coefficient)),
            requires_grad=settings.learn_entropy,
        )
        self.grad_updates = 0
        self.sums = MetricSums(METRICS)
        self.latest_metrics: dict[str, float] = {}
        self._update_seed = update_seed
        self._update_rng: torch.Generator | None = None
        self._explore_rng = torch.Generator().manual_seed(explore_seed)

    def _actor_group(self) -> list[nn.Parameter]:
        learned = [self.log_alpha] if self.settings.learn_entropy else []
        return actor_parameters(self.agent, self.routing) + learned

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Critic (+ encoder) first, actor (+ log alpha) second; always two."""
        groups = [{"params": actor_parameters(self.agent, self.routing)}]
        if self.settings.learn_entropy:
            groups.append({"params": [self.log_alpha]})
        return [
            self._critic_optimizer(critic_parameters(self.agent, self.routing)),
            self._actor_optimizer(groups),
        ]

    # ------------------------------------------------------------------------------------- acting

    @torch.no_grad()
    def observe(self, rows: TensorDictBase) -> None:
        """Add rows that the simulator gave to the input statistics."""
        self.agent.observe(rows.to(self.device))

    @torch.no_grad()
    def explore(self, obs: TensorDictBase) -> Tensor:
        """Sample actions (N, A) in [-1, 1]; the first call freezes ``fixed`` input statistics.

        Args:
            obs: ``state`` (N, D), ``desired_goal`` (N, 3); for pixels ``frames`` (N, 3S, H, W).
        """
        self.agent.normalizer.freeze()
        mean, log_std = self._policy(obs)
        noise = torch.randn(mean.shape, generator=self._explore_rng).to(mean.device)
        return sac.sample_action(mean, log_std, noise)[0]

    @torch.no_grad()
    def act(self, obs: TensorDictBase) -> Tensor:
        """The policy's mode (N, A) in [-1, 1], for evaluation."""
        return torch.tanh(self._policy(obs)[0])

    def _policy(self, obs: TensorDictBase) -> tuple[Tensor, Tensor]:
        obs = obs.to(self.device)
        vectors = self.agent.vectors(obs, obs.get(DESIRED_GOAL))
        features = None
        if self.agent.encoder is not None and PIXELS in self.agent.actor_inputs:
            features = self.agent.encoder(obs.get("frames"))
        mean, log_std = self.agent.actor(self.agent.actor_input(vectors, features))
        return mean, log_std

    # ----------------------------------------------------------------------------------- learning

    def training_step(self, batch: TensorDictBase, batch_idx: int) -> None:
        """Run this round's updates.

        Args:
            batch: [U, B] of `fetchlab.replay`; U may be 0.
            batch_idx: unused; rounds are counted by the data module.
        """
        for one in batch.unbind(0):
            self.update(one)

    def update(self, batch: TensorDictBase) -> None:
        """One gradient update of critics, encoder, actor and targets.

        Args:
            batch: [B] with ``state``, ``desired_goal``, ``action``, next ``state``, ``reward``,
                ``terminated`` and, for pixels, the uint8 block (B, S + 1, 3, H, W).

        Raises:
            NonFiniteError: before any optimizer step that would use the value.
        """
        agent, routing = self.agent, self.routing
        critic_optimizer, actor_optimizer = cast(list[Any], self.optimizers())
        goal, next_obs = batch.get(DESIRED_GOAL), batch.get("next")
        vectors, next_vectors = agent.vectors(batch, goal), agent.vectors(next_obs, goal)
        pixels, next_pixels = self._images(batch)
        features = None if agent.encoder is None else agent.encoder(pixels)

        target = self._target(next_obs, next_vectors, next_pixels)
        critic_features = None if features is None else routing.for_critic(features)
        q = agent.critic(agent.critic_input(vectors, critic_features), batch.get("action"))
        critic_loss = sac.critic_loss(q, target)
        self._step(critic_optimizer, critic_loss, "critic", critic_parameters(agent, routing))

        actor_features = None if features is None else routing.for_actor(features)
        mean, log_std = agent.actor(agent.actor_input(vectors, actor_features))
        action, log_prob = sac.sample_action(mean, log_std, self._noise(mean))
        # The critics only judge here: the encoder is reached through the policy alone.
        judged = None if features is None else features.detach()
        q_pi = agent.critic(agent.critic_input(vectors, judged), action)
        alpha = self.log_alpha.exp().detach()
        actor_loss = sac.actor_loss(q_pi, log_prob, alpha)
        if self.settings.learn_entropy:
            actor_loss = actor_loss + sac.entropy_coefficient_loss(
                self.log_alpha, log_prob, -float(ACTION_DIM)
            )
        self._step(actor_optimizer, actor_loss, "actor", self._actor_group())

        self._average_targets()
        self.grad_updates += 1
        self.sums.add((critic_loss, actor_loss, -log_prob.mean(), q.mean(), alpha))

    def _images(self, batch: TensorDictBase) -> tuple[Tensor | None, Tensor | None]:
        """Augmented obs and next_obs (B, 3S, H, W) uint8: views of one block unless augmented."""
        if self.agent.encoder is None:
            return None, None
        block = batch.get(PIXELS)
        rng = self._generator()
        return (
            self.augment(block[:, :-1].flatten(1, 2), rng),
            self.augment(block[:, 1:].flatten(1, 2), rng),
        )

    @torch.no_grad()
    def _target(
        self, next_obs: TensorDictBase, vectors: dict[str, Tensor], pixels: Tensor | None
    ) -> Tensor:
        """The Bellman target (B,): next action from the online encoder, Q from the target one."""
        agent = self.agent
        online = target = None
        if agent.encoder is not None and agent.encoder_target is not None:
            online = agent.encoder(pixels) if PIXELS in agent.actor_inputs else None
            target = agent.encoder_target(pixels) if PIXELS in agent.critic_inputs else None
        mean, log_std = agent.actor(agent.actor_input(vectors, online))
        action, log_prob = sac.sample_action(mean, log_std, self._noise(mean))
        next_q = agent.critic_target(agent.critic_input(vectors, target), action)
        return sac.td_target(
            next_obs.get("reward"),
            next_obs.get("terminated"),
            next_q,
            log_prob,
            self.log_alpha.exp(),
            discount=self.settings.discount,
            q_bounds=self.settings.q_bounds,
            backup_entropy=self.settings.backup_entropy,
        )

    def _step(self, optimizer: Any, loss: Tensor, name: str, params: list[nn.Parameter]) -> None:
        optimizer.zero_grad(set_to_none=True)
        # Gradients of this optimizer's parameters alone: the actor's loss runs through the critics
        # too, and their gradients of it would be computed to be thrown away.
        self.manual_backward(loss, inputs=params)
        grads = [p.grad for p in params if p.grad is not None]
        # One number that is finite exactly when the loss and every gradient are.
        total = torch.stack(torch._foreach_norm(grads)).sum() + loss.detach()
        if not math.isfinite(total.item()):
            raise NonFiniteError(
                f"{name} loss or gradient is not finite at update {self.grad_updates + 1} "
                f"(loss {loss.item():g}); the weights are those of the last update"
            )
        optimizer.step()

    @torch.no_grad()
    def _average_targets(self) -> None:
        agent, tau = self.agent, self.settings.tau
        pairs: list[tuple[nn.Module, nn.Module]] = [(agent.critic_target, agent.critic)]
        if agent.encoder is not None and agent.encoder_target is not None:
            pairs.append((agent.encoder_target, agent.encoder))
        for target, online in pairs:
            torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), tau)

    # ------------------------------------------------------------------------------------- random

    def _generator(self) -> torch.Generator:
        if self._update_rng is None:
            self._update_rng = torch.Generator(self.device).manual_seed(self._update_seed)
        return self._update_rng

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._generator(), device=like.device)

    # --------------------------------------------------------------------------------- checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add counters, random states and the running sums; leave Lightning's loop state out.

        A resumed run starts a fresh Lightning loop: its position is ``env_steps``, kept by the data
        module, so nothing depends on how Lightning restores a partial epoch.
        """
        checkpoint["sac"] = {
            "grad_updates": self.grad_updates,
            "update_rng": self._generator().get_state(),
            "explore_rng": self._explore_rng.get_state(),
            "sums": self.sums.state_dict(),
        }
        checkpoint.pop("loops", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        state = checkpoint["sac"]
        self.grad_updates = int(state["grad_updates"])
        self._generator().set_state(state["update_rng"].cpu())
        self._explore_rng.set_state(state["explore_rng"].cpu())
        self.sums.load_state_dict(state["sums"])
