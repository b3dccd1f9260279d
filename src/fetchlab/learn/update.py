"""One gradient update of soft actor-critic, read from top to bottom like the method.

DrQ-v2 (Yarats et al. 2021) around SAC (Haarnoja et al. 2018): encode the observation once with
gradients and the next one without, step the critics (and the encoder, where the routing puts it),
step the actor on the same features, average the targets. With pixels that is five encoder passes:
one forward and backward (three), next online and target; joint routing encodes once more.

Nothing here waits for the device or knows of Lightning, so an update runs alone, in a bare loop and
in a CUDA graph alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from fetchlab.entries import ACTION_DIM, DESIRED_GOAL, PIXELS, STATE, Augmentation, Routing
from fetchlab.learn.metrics import ENCODER_METRICS, GOAL_METRICS, UPDATE_METRICS
from fetchlab.learn.parameters import Trained
from fetchlab.learn.settings import SACSettings
from fetchlab.learn.steps import Held
from fetchlab.losses import sac
from fetchlab.losses.goal_prediction import goal_error_m, goal_prediction_loss
from fetchlab.networks.agent import Agent


class SACUpdate:
    """Critics, encoder, actor and targets, one step each.

    Args:
        agent: networks and targets.
        routing: which losses train the encoder.
        augment: of uint8 images.
        settings: of the update.
        log_alpha: scalar parameter.
        step: ``step(name, loss, held)`` steps the optimizers named in ``held`` on ``loss``.
    """

    def __init__(
        self,
        agent: Agent,
        routing: Routing,
        augment: Augmentation,
        settings: SACSettings,
        log_alpha: nn.Parameter,
        step: Callable[[str, Tensor, Held], None],
    ) -> None:
        self.agent, self.routing, self.augment, self.settings = agent, routing, augment, settings
        self.log_alpha, self._step = log_alpha, step
        self._trained = Trained(agent, routing, log_alpha, settings.learn_entropy)
        pairs: list[tuple[nn.Module, nn.Module]] = [(agent.critic_target, agent.critic)]
        if agent.encoder is not None and agent.encoder_target is not None:
            pairs.append((agent.encoder_target, agent.encoder))
        # Targets first, then what they follow.
        self._averaged: list[list[Tensor]] = [
            [p for pair in pairs for p in pair[i].parameters()] for i in (0, 1)
        ]
        self._copied = [[b for pair in pairs for b in pair[i].buffers()] for i in (0, 1)]

    def __call__(self, batch: TensorDictBase, rng: torch.Generator) -> tuple[Tensor, ...]:
        """Update once.

        Args:
            batch: [B] with ``state``, ``desired_goal``, ``action``, next ``state``, ``reward``,
                ``terminated``, with several steps ``discount``, and, for pixels, the uint8 block
                (B, S + 1, 3, H, W) of the replay.
            rng: of all draws, on the batch's device.

        Returns:
            Scalars on the device, in the order of `metric_names`.
        """
        agent, routing = self.agent, self.routing
        gradients = FeatureGradients(self.log_alpha)
        goal, next_obs = batch.get(DESIRED_GOAL), batch.get("next")
        vectors, next_vectors = agent.vectors(batch, goal), agent.vectors(next_obs, goal)
        pixels, next_pixels = self._images(batch, rng)
        features = None if pixels is None else agent.encode(pixels)

        target = self._target(next_obs, next_vectors, next_pixels, rng)
        seen = gradients.watch("critic", features, routing.for_critic)
        q = agent.critic(agent.critic_input(vectors, seen), batch.get("action"))
        critic_loss = loss = sac.critic_loss(q, target)
        predicted = None
        if agent.goal_head is not None and routing.encoder_optimizer == "critic":
            predicted, extra = self._predict_goal(batch, features, gradients)
            loss = loss + extra
        self._step("critic", loss, self._trained.by_critic)

        if pixels is not None and self._trained.encodes_again:
            features = agent.encode(pixels)
        seen = gradients.watch("actor", features, routing.for_actor)
        mean, log_std = agent.actor(agent.actor_input(vectors, seen))
        action, log_prob = sac.sample_action(mean, log_std, _noise(mean, rng))
        # The critics only judge here: the encoder is reached through the policy alone.
        judged = None if features is None else features.detach()
        q_pi = agent.critic(agent.critic_input(vectors, judged), action)
        if self.settings.actor_over == "mean":
            q_pi = q_pi.mean(dim=0, keepdim=True)
        alpha = self.log_alpha.exp().detach()
        actor_loss = loss = sac.actor_loss(q_pi, log_prob, alpha)
        if self.settings.learn_entropy:
            loss = actor_loss = loss + sac.entropy_coefficient_loss(
                self.log_alpha, log_prob, -float(ACTION_DIM)
            )
        if agent.goal_head is not None and routing.encoder_optimizer == "actor":
            predicted, extra = self._predict_goal(batch, features, gradients)
            loss = loss + extra
        self._step("actor", loss, self._trained.by_actor)

        self._average_targets()
        metrics: tuple[Tensor, ...] = (critic_loss, actor_loss, -log_prob.mean(), q.mean(), alpha)
        if agent.encoder is not None:
            metrics += gradients.norms()
        if predicted is not None:
            metrics += (goal_error_m(predicted, agent.achieved_goal(batch.get(STATE))),)
        return metrics

    def _predict_goal(
        self, batch: TensorDictBase, features: Tensor | None, gradients: FeatureGradients
    ) -> tuple[Tensor, Tensor]:
        """Predicted positions (B, 3) and the weighted loss."""
        head = self.agent.goal_head
        assert head is not None and features is not None
        predicted = head(gradients.watch("auxiliary", features, self.routing.for_auxiliary))
        achieved = self.agent.achieved_goal(batch.get(STATE))
        loss = goal_prediction_loss(predicted, achieved, head.scale_m)
        return predicted.detach(), self.settings.goal_weight * loss

    def _images(
        self, batch: TensorDictBase, rng: torch.Generator
    ) -> tuple[Tensor | None, Tensor | None]:
        """Augmented obs and next_obs (B, 3S, H, W) uint8: views of one block unless augmented."""
        if self.agent.encoder is None:
            return None, None
        block, stack = batch.get(PIXELS), self.agent.frame_stack
        if self.augment.shared_draw:
            block = self.augment(block.flatten(1, 2), rng).view_as(block)
            return block[:, :stack].flatten(1, 2), block[:, -stack:].flatten(1, 2)
        return (
            self.augment(block[:, :stack].flatten(1, 2), rng),
            self.augment(block[:, -stack:].flatten(1, 2), rng),
        )

    @torch.no_grad()
    def _target(
        self,
        next_obs: TensorDictBase,
        vectors: dict[str, Tensor],
        pixels: Tensor | None,
        rng: torch.Generator,
    ) -> Tensor:
        """The Bellman target (B,): next action from the online encoder, Q from the target one."""
        agent, settings = self.agent, self.settings
        online = target = None
        if pixels is not None:
            online, target = agent.encode_next(pixels)
        mean, log_std = agent.actor(agent.actor_input(vectors, online))
        action, log_prob = sac.sample_action(mean, log_std, _noise(mean, rng))
        next_q = agent.critic_target(agent.critic_input(vectors, target), action)
        return sac.td_target(
            next_obs.get("reward"),
            next_obs.get("terminated"),
            self._subset(next_q, rng),
            log_prob,
            self.log_alpha.exp(),
            discount=settings.discount,
            q_bounds=settings.q_bounds,
            backup_entropy=settings.backup_entropy,
            bootstrap=next_obs.get("discount", None),
        )

    def _subset(self, q: Tensor, rng: torch.Generator) -> Tensor:
        """The critics (M, B) of ``q`` (E, B) over which this update's target is the minimum."""
        chosen = self.settings.target_subset
        if chosen is None or chosen == len(q):
            return q
        order = torch.rand(len(q), generator=rng, device=q.device).argsort()
        return q.index_select(0, order[:chosen])

    @torch.no_grad()
    def _average_targets(self) -> None:
        targets, online = self._averaged
        torch._foreach_lerp_(targets, online, self.settings.tau)
        for old, new in zip(*self._copied, strict=True):
            old.copy_(new)  # statistics are measured, not learned


class FeatureGradients:
    """What each loss sends into the encoder: the norm of its gradient at the features.

    Losses share a backward pass, so the encoder's weights see only their sum; at the features, its
    output, they are still apart.

    Args:
        like: a scalar on the update's device.
    """

    def __init__(self, like: Tensor) -> None:
        zero = torch.zeros_like(like, requires_grad=False)
        self._norms = {name.rpartition("_")[2]: zero for name in ENCODER_METRICS}

    def watch(
        self, loss: str, features: Tensor | None, route: Callable[[Tensor], Tensor]
    ) -> Tensor | None:
        """Route ``features`` (B, D) to a loss, and remember the norm of what comes back."""
        if features is None:
            return None
        seen = route(features)
        if seen.requires_grad:
            seen = seen.view_as(seen)
            seen.register_hook(lambda gradient: self._keep(loss, gradient))
        return seen

    def _keep(self, loss: str, gradient: Tensor) -> None:
        self._norms[loss] = gradient.detach().float().norm()

    def norms(self) -> tuple[Tensor, ...]:
        """Of the critic's, the actor's and the auxiliary loss; 0 where a loss does not reach."""
        return tuple(self._norms.values())


def metric_names(agent: Agent) -> tuple[str, ...]:
    """What an update of this agent measures."""
    names = UPDATE_METRICS
    if agent.encoder is not None:
        names += ENCODER_METRICS
    return names + (GOAL_METRICS if agent.goal_head is not None else ())


def _noise(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, device=like.device)
