"""Teacher and student: what a policy that knows the state does, from what a camera shows.

    J = E_student[ |pi(o) - teacher(s)|^2 ]

Ross et al. 2011 (DAgger, arXiv 1011.0686): the student acts, the teacher says what it would have
done there, and the student learns that from all that was ever visited. With pixels for the student
and the state for the teacher this is State-to-Visual DAgger (arXiv 2412.13662). A label is the mode
of the teacher's policy at the stored state and the batch's goal, found when it is asked for: so a
goal of hindsight is as good as the episode's own, and nothing is stored.

Two students. ``actor`` is a policy of its own, for any teacher. ``estimate`` is the teacher itself
on a guess of the one thing that the camera must tell, where the object is: the encoder learns by
`fetchlab.algos.auxiliary.GoalPrediction` alone, and how to push is not learned again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor

from fetchlab.algos.off_policy import OffPolicy
from fetchlab.entries import ACHIEVED_GOAL
from fetchlab.errors import require
from fetchlab.fields import Hint
from fetchlab.networks.actor import DeterministicActor
from fetchlab.networks.agent import Agent
from fetchlab.schedule import Schedule


class Distill(OffPolicy):
    """A student that learns from a teacher's actions; there are no critics, and no rewards.

    Its one optimizer is the actor's: it holds the encoder, too (``routing=actor``).

    Args:
        teacher: an agent without pixels, of the same task; its weights stay as they are, and are
            part of the student's checkpoints.
        student: ``actor`` or ``estimate``, see above.
        hidden: widths of the actor's hidden layers.
        actor_layer_norm: in the actor.
        exploration_std: of the Gaussian noise on exploring actions; a number or a `Schedule`.
        teacher_share: of exploring actions that are the teacher's own (DAgger's beta), likewise.
        base: what every algorithm takes, see `OffPolicy`; what is critics' alone has no effect.

    Raises:
        ConfigError: an encoder of the critic's optimizer; or ``estimate`` where not exactly one
            auxiliary loss predicts the goal, or of a teacher that knows more than the student and
            that one thing.
    """

    metrics = ("train/actor_loss",)
    optimizer_names = ("actor",)

    def __init__(
        self,
        teacher: OffPolicy,
        student: Annotated[Literal["actor", "estimate"], Hint("actor suits every teacher")],
        hidden: Annotated[Sequence[int], Hint("the study's are [256, 256]")],
        actor_layer_norm: bool,
        exploration_std: float | Mapping[str, Any],
        teacher_share: float | Mapping[str, Any],
        **base: Any,
    ) -> None:
        super().__init__(**{**base, "q_bounds": False})
        agent, holder, key = self.agent, self.routing.encoder_optimizer, "routing.encoder_optimizer"
        fits, expected = holder == "actor" or agent.vision is None, "actor: there are no critics"
        require(fits, key, holder, expected, "use routing=actor")
        told, expected = type(agent.symmetry).__name__, "none: the teacher sees each row as it was"
        require(agent.symmetry is None, "symmetry", told, expected, "use symmetry=none")
        self.teacher = teacher.requires_grad_(False)
        self._exploration_std = Schedule("algo.exploration_std", exploration_std)
        self._teacher_share = Schedule("algo.teacher_share", teacher_share)
        self._estimates = student == "estimate"
        if self._estimates:
            _check_estimate(agent, teacher)
            expected, remedy = "1 with algo.student=estimate, which learns by it alone", "use 1"
            every = self.auxiliary_every
            require(every == 1, "algo.auxiliary_every", every, expected, remedy)
        else:
            action_dim = agent.env_spec.action_dim
            agent.actor = DeterministicActor(agent.actor_dim, action_dim, hidden, actor_layer_norm)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One, of all that learns."""
        actor = [] if self._estimates else [*self.agent.actor.parameters()]
        return [self.actor_optimizer([*actor, *self.seeing_parameters("actor")])]

    @torch.no_grad()
    def explore(self, obs: TensorDictBase, env_steps: int) -> Tensor:
        """The student's actions (N, A) with noise, some of them the teacher's."""
        self.agent.normalizer.freeze()
        action, label = self.act(obs), self.teacher.act(obs)
        noise = torch.randn(action.shape, generator=self.explore_rng)
        chance = torch.rand((len(action), 1), generator=self.explore_rng)
        noise, chance = (one.to(action.device, non_blocking=True) for one in (noise, chance))
        noisy = (action + self._exploration_std.at(env_steps) * noise).clamp(-1, 1)
        return torch.where(chance < self._teacher_share.at(env_steps), label, noisy)

    @torch.no_grad()
    def act(self, obs: TensorDictBase) -> Tensor:
        """The student's actions (N, A)."""
        if not self._estimates:
            return torch.tanh(self.agent.actor(self.actor_input(obs)))
        rows = self._here(obs, (*self.agent.stored, "frames"))
        return self._act_on_estimate(rows, self.agent.glance(rows.get("frames")))

    def update(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """The student on the teacher's labels, the encoder by what the routing says."""
        agent = self.agent
        obs, _, next_obs, pictured = agent.look(batch, self.rng)
        features, ahead = agent.encode(obs.images), None
        if any(loss.needs_next_features for loss in agent.losses):
            with torch.no_grad():
                _, ahead = agent.encode_next(next_obs.images)
        if self._estimates:  # the distance of its actions is measured, and no gradient is in it
            action = self._act_on_estimate(batch, features)
        else:
            seen = self.route("actor", features)
            action = torch.tanh(agent.actor(agent.actor_input(obs.vectors, seen)))
        loss = (action - self.teacher.act(batch)).square().sum(dim=-1).mean()
        self.step("actor", self.with_auxiliary("actor", loss, features, pictured, ahead))
        if ahead is not None:
            self.average((agent.encoder_target, agent.encoder))
        return {"train/actor_loss": loss}

    @torch.no_grad()
    def _act_on_estimate(self, rows: TensorDictBase, features: Tensor | None) -> Tensor:
        """The teacher's actions (B, A) where the achieved goal is what the features (B, D) say."""
        return self.teacher.act(self.agent.with_guess(rows, features))


def _check_estimate(agent: Agent, teacher: OffPolicy) -> None:
    """Refuse (`ConfigError`) an estimate that nothing makes, or that is not enough to act on."""
    key, remedy, other = "algo.student", "use actor", "a teacher of experiment=vector_push"
    expected = "actor where not exactly one auxiliary loss predicts the goal"
    made = len(agent.guessers) == 1
    require(made, key, "estimate", expected, f"use auxiliary=[goal_prediction], or {remedy}")
    spec = agent.env_spec
    told = sorted({*range(spec.state_dim)[spec.goal_slice or slice(0)]} & {*spec.proprio})
    expected = f"actor, for the proprioception tells the achieved goal (task.proprio has {told})"
    require(not told, key, "estimate", expected, remedy)
    more = {*teacher.agent.actor_inputs} - {*agent.actor_inputs, ACHIEVED_GOAL}
    expected = f"actor, for the teacher is given {', '.join(sorted(more))}, which is not estimated"
    require(not more, key, "estimate", expected, f"{remedy}, or {other}")
