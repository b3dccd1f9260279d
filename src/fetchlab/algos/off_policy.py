"""What lies under every off-policy algorithm: a LightningModule with manual optimization.

An algorithm (`fetchlab.algos.sac`, `ddpg`, `td3`) is one page: its networks, two optimizers,
``explore``, ``act`` and ``update``. Here is what surrounds it: how a round's updates run, the
random streams, gradient routing, the metrics' sums, and what a checkpoint holds.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Protocol, get_args

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from fetchlab.algos.bellman import q_range, td_target
from fetchlab.algos.metrics import MetricSums
from fetchlab.algos.routing import LossName, Routing
from fetchlab.algos.steps import AT_ONCE, CapturedUpdates, CheckedSteps, Held, MaskedSteps
from fetchlab.entries import DESIRED_GOAL, ESTIMATED_GOAL, PIXELS
from fetchlab.errors import NonFiniteError
from fetchlab.fields import Above, Below, Hint, Max, Min
from fetchlab.networks.agent import Agent
from fetchlab.random_states import restore_generator

STEP_HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")
OptimizerMaker = partial[torch.optim.Optimizer]


class RoundOfBatches(Protocol):
    """A round's U batches [U, B]: a TensorDict, or one that draws them when they are asked for."""

    def split(self, updates: int) -> Iterable[Iterable[TensorDictBase]]:
        """Pieces of so many batches [B] at most, each used up before the next one is taken."""


class OffPolicy(pl.LightningModule):
    """An actor and critics over a shared encoder, learned from replayed batches.

    Args:
        agent: how it sees; an algorithm adds ``actor``, ``critic`` and their targets.
        routing: which losses train the encoder.
        explore_seed: of the noise in exploring actions.
        update_seed: of every random draw of the updates: action noise, augmentation, and the like.
        cuda_graphs: run a round's updates as one CUDA graph, with steps masked on the device; on a
            CPU the same path without the recording.
        critic_optimizer: ``params -> Optimizer``, for the critics (+ encoder under its routing).
        actor_optimizer: ``params -> Optimizer``, for the actor, likewise.
        discount: gamma.
        n_step: rewards summed before the target bootstraps.
        q_bounds: clamp the target's Q to what the rewards can return, see `q_range`.
        tau: Polyak step of the targets.
        target_encoder: average a target of the encoder too; else the critics' target sees by the
            encoder itself, as DrQ-v2's (arXiv 2107.09645), and next images are encoded once.
        auxiliary_every: k; every k-th update has the auxiliary losses, if it steps the optimizer
            that holds the encoder (TD3 steps its actor's more rarely). Where they alone train the
            encoder, the others do not run backwards through it.

    Attributes:
        metrics: of a class, names of what its `update` returns.
        optimizer_names: of a class, in the order of its `configure_optimizers`.
        q_range: least and largest Q of a target, None without ``q_bounds``.
        actor_every: updates for each step of the actor.
        grad_updates: updates so far.
        nth: within `update`, its number in the run, modulo ``period``.
    """

    metrics: ClassVar[tuple[str, ...]] = ()
    optimizer_names: ClassVar[tuple[str, ...]] = ("critic", "actor")
    actor_every: int = 1

    def __init__(
        self,
        agent: Agent,
        routing: Routing,
        explore_seed: int,
        update_seed: int,
        cuda_graphs: bool,
        critic_optimizer: OptimizerMaker,
        actor_optimizer: OptimizerMaker,
        discount: Annotated[float, Above(0), Below(1), Hint("0.95 is usual")],
        n_step: Annotated[int, Min(1)],
        q_bounds: bool,
        tau: Annotated[float, Above(0), Max(1), Hint("0.005 is usual")],
        target_encoder: bool,
        auxiliary_every: Annotated[int, Min(1)],
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.agent, self.routing = agent, routing
        self.critic_optimizer, self.actor_optimizer = critic_optimizer, actor_optimizer
        self.discount, self.tau, self.auxiliary_every = discount, tau, auxiliary_every
        if not target_encoder:
            agent.encoder_target = None
        self.q_range = q_range(agent.env_spec, discount, n_step) if q_bounds else None
        of_seeing: list[str] = []
        if agent.vision is not None:
            routing.check(agent.actor_inputs, agent.critic_inputs, len(agent.auxiliary) > 0)
            of_seeing += [_gradient_name(loss) for loss in get_args(LossName)]
            of_seeing += [name for loss in agent.losses for name in loss.metrics]
        #: What an update reports of what it does not have: nothing, or an earlier one's losses.
        self._of_seeing = {name: torch.zeros(()) for name in of_seeing}
        self._seen: dict[str, Tensor] = {}
        self.grad_updates = self.nth = 0
        self._sums = MetricSums((*self.metrics, *of_seeing))
        self._cuda_graphs, self._update_seed = cuda_graphs, update_seed
        self.explore_rng = torch.Generator().manual_seed(explore_seed)
        self._update_rng: torch.Generator | None = None
        self._run: Callable[[Sequence[TensorDictBase], int], None] | None = None
        self._step: Callable[[str, Tensor, Held], None]
        self._held: dict[str, Held] = {}
        self._masked: MaskedSteps | None = None
        self._averaged: tuple[list[list[Tensor]], list[list[Tensor]]] | None = None

    @abstractmethod
    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """As `optimizer_names` says; one of them holds `seeing_parameters`."""

    def on_train_start(self) -> None:
        """Keep to the configured settings of the optimizers where a checkpoint has others."""
        configured = self.configure_optimizers()
        for optimizer, fresh in zip(self.trainer.optimizers, configured, strict=True):
            for group, asked in zip(optimizer.param_groups, fresh.param_groups, strict=True):
                group.update({key: asked[key] for key in asked.keys() - {"params"}})

    @abstractmethod
    def explore(self, obs: TensorDictBase, env_steps: int) -> Tensor:
        """Actions (N, A) in [-1, 1] for training, ``env_steps`` into the run; see `actor_input`."""

    @abstractmethod
    def act(self, obs: TensorDictBase) -> Tensor:
        """The best known actions (N, A) in [-1, 1], for evaluation."""

    @abstractmethod
    def update(self, batch: TensorDictBase) -> dict[str, Tensor]:
        """One gradient update of critics, actor and targets on a batch [B] of `HindsightReplay`.

        Must wait for nothing on the host and draw from ``rng`` alone, so that it can be captured.
        Returns scalars on the device by the names in ``metrics``.
        """

    def observe(self, rows: TensorDictBase) -> None:
        """Add rows that the simulator gave to the input statistics (``obs.normalize``)."""
        agent = self.agent
        if agent.normalizer.counting:
            here = self._here(rows, agent.stored)
            for name in agent.stored:
                agent.normalizer.update(name, here.get(name))

    @torch.no_grad()
    def actor_input(self, obs: TensorDictBase) -> Tensor:
        """What the actor sees (N, D) of simulator rows: stored vectors, and ``frames``."""
        agent = self.agent
        looks = ("frames",) if agent.actor_looks else ()
        rows = self._here(obs, (*agent.stored, *looks))
        features = agent.glance(rows.get("frames")) if looks else None
        goal = rows.get(DESIRED_GOAL)
        vectors = agent.vectors(rows, goal)
        if ESTIMATED_GOAL in agent.actor_inputs:  # nothing else that the achieved goal is part of
            guessed = agent.vectors(agent.with_guess(rows, features), goal)
            vectors[ESTIMATED_GOAL] = guessed[ESTIMATED_GOAL]
        return agent.actor_input(vectors, features)

    def seeing_parameters(self, optimizer: str) -> list[nn.Parameter]:
        """Those of encoder and auxiliary heads, where this optimizer holds them; else none."""
        agent = self.agent
        if agent.encoder is None or self.routing.encoder_optimizer != optimizer:
            return []
        return [*agent.encoder.parameters(), *agent.auxiliary.parameters()]

    @property
    def period(self) -> int:
        """Updates after which `update` repeats what it does; 1 where all are alike."""
        return math.lcm(self.actor_every, self.auxiliary_every)

    def due(self, every: int) -> bool:
        """Whether this update is the last of so many."""
        return self.nth % every == every - 1

    def encode(self, images: Tensor | None) -> Tensor | None:
        """What `Agent.encode` sees, without its graph where no loss of this update trains it.

        None where nobody looks: heads that are given no pixels, and no auxiliary loss this time.
        """
        idle = set(self.routing.trained_by) == {"auxiliary"} and not self.due(self.auxiliary_every)
        if idle and PIXELS not in (*self.agent.actor_inputs, *self.agent.critic_inputs):
            return None
        with torch.set_grad_enabled(not idle):
            return self.agent.encode(images)

    @property
    def rng(self) -> torch.Generator:
        """Of every random draw of the updates, on the module's device."""
        if self._update_rng is None:
            self._update_rng = torch.Generator(self.device).manual_seed(self._update_seed)
        return self._update_rng

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers of that shape."""
        return torch.randn(like.shape, generator=self.rng, device=like.device)

    def route(self, loss: LossName, features: Tensor | None) -> Tensor | None:
        """``features`` (B, D) as that loss sees them: with their graph where it trains the encoder.

        The norm of what comes back is a metric of its own. Losses share a backward pass, so the
        encoder's weights see only their sum; at the features, its output, they are still apart.
        """
        if features is None or loss not in self.routing.trained_by:
            return None if features is None else features.detach()
        if features.requires_grad:
            features = features.view_as(features)
            features.register_hook(partial(self._keep_norm, _gradient_name(loss)))
        return features

    def _keep_norm(self, name: str, gradient: Tensor) -> None:
        self._seen[name] = gradient.detach().float().norm()

    def with_auxiliary(
        self,
        name: str,
        loss: Tensor,
        features: Tensor | None,
        batch: TensorDictBase,
        next_features: Tensor | None,
    ) -> Tensor:
        """``loss`` plus the weighted auxiliary losses, where optimizer ``name`` has the encoder."""
        if self.routing.encoder_optimizer == name and self.due(self.auxiliary_every):
            seen = self.route("auxiliary", features)
            for one in self.agent.losses:
                extra, metrics = one(seen, batch, next_features)
                loss = loss + one.weight * extra
                self._seen |= metrics
        return loss

    def backup(self, after: TensorDictBase, value: Tensor) -> Tensor:
        """`td_target` (B,) of what followed and its value (B,)."""
        reward, ended = after.get("reward"), after.get("terminated")
        return td_target(reward, ended, value, self.discount, after.get("discount", None))

    def step(self, name: str, loss: Tensor) -> None:
        """Step the optimizer ``name`` on ``loss``; where routing says so, the encoder's too."""
        self._step(name, loss, self._held[name])

    @torch.no_grad()
    def average(self, *pairs: tuple[nn.Module | None, nn.Module | None]) -> None:
        """Move each target a step ``tau`` towards what it follows; statistics are copied.

        The pairs are those of the first call; collecting their tensors takes longer than averaging.
        """
        if self._averaged is None:
            present = [(old, new) for old, new in pairs if old is not None and new is not None]
            self._averaged = (
                [[p for pair in present for p in pair[side].parameters()] for side in (0, 1)],
                [[b for pair in present for b in pair[side].buffers()] for side in (0, 1)],
            )
        (targets, online), (copies, measured) = self._averaged
        if targets:  # none without critics and algo.target_encoder=false
            torch._foreach_lerp_(targets, online, self.tau)
        for old, new in zip(copies, measured, strict=True):
            old.copy_(new)

    def training_step(self, batch: RoundOfBatches, batch_idx: int) -> None:
        """Run this round's updates, `AT_ONCE` of them on batches that are in memory together."""
        for piece in batch.split(AT_ONCE):
            self.learn(*piece)

    def learn(self, *batches: TensorDictBase) -> None:
        """One `update` for each batch [B], or `NonFiniteError`; see `raise_if_failed`."""
        if self._run is None:
            self._run = self._prepare()
        first = self.grad_updates
        self._run(batches, first)
        self.grad_updates = first + len(batches)

    def _prepare(self) -> Callable[[Sequence[TensorDictBase], int], None]:
        """What runs updates, now that device and optimizers are known."""
        self._sums.to(self.device)
        self._of_seeing = {name: zero.to(self.device) for name, zero in self._of_seeing.items()}
        self._make_steps()
        if self._cuda_graphs:
            return CapturedUpdates(self._update_once, [self.rng], self.device, self.period)
        return self._in_turn

    def _in_turn(self, batches: Sequence[TensorDictBase], first: int) -> None:
        for nth, batch in enumerate(batches, first):
            try:
                self._update_once(batch, nth)
            except NonFiniteError as error:
                raise NonFiniteError(f"update {nth + 1}: {error}") from None
            self.grad_updates = nth + 1

    def _update_once(self, batch: TensorDictBase, nth: int) -> None:
        self.nth, self._seen = nth % self.period, dict(self._of_seeing)
        metrics = self.update(batch)
        self._sums.add(metrics | self._seen)
        if self.period > 1:  # an update without some of these reports the last one that had them
            for name, held in self._of_seeing.items():
                held.copy_(self._seen[name].detach())

    def _make_steps(self) -> None:
        """How a loss becomes a step of an optimizer, and which parameters it moves."""
        wrapped = not self._cuda_graphs and self._hooked()
        found: Any = self.optimizers(wrapped)
        both = found if isinstance(found, list) else [found]  # Lightning unpacks a single one
        optimizers = dict(zip(self.optimizer_names, both, strict=True))
        if self._cuda_graphs:
            self._step = self._masked = MaskedSteps(optimizers)
            for optimizer in both if self.device.type == "cuda" else ():
                for group in optimizer.param_groups:
                    group["capturable"] = True
        else:
            backward = self.manual_backward if wrapped else Tensor.backward
            self._step = CheckedSteps(optimizers, backward)
        encoder = [] if self.agent.encoder is None else list(self.agent.encoder.parameters())
        reached = {self.routing.encoder_optimizer, *(["auxiliary"] if self.agent.auxiliary else [])}
        still = set() if reached & set(self.routing.trained_by) else {id(p) for p in encoder}
        for name, optimizer in optimizers.items():
            params = [p for group in optimizer.param_groups for p in group["params"]]
            moved = [p for p in params if p.requires_grad and id(p) not in still]
            self._held[name] = {name: moved}
        again = [p for p in encoder if p.requires_grad and self.routing.encodes_again]
        if again:
            self._held["actor"] = {**self._held["actor"], "critic": again}

    def _hooked(self) -> bool:
        """Whether a callback, or a subclass, follows backward passes or optimizer steps.

        Lightning's wrappers exist for them; asking all callbacks again and again, to find that
        none does, takes 0.6 ms of an update of 9.5 ms from state.
        """
        trainer: Any = self._trainer
        listeners: list[tuple[Any, type]] = [(self, pl.LightningModule)]
        listeners += [(one, pl.Callback) for one in (trainer.callbacks if trainer else ())]
        return any(
            is_overridden(hook, one, parent) for one, parent in listeners for hook in STEP_HOOKS
        )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """All that `pop_metrics` gives once there was an update."""
        return self._sums.names

    @property
    def optimizer_steps(self) -> int:
        """Steps of the optimizers since the run began: Lightning's ``global_step``."""
        per_step = 2 if self.routing.encodes_again and self.agent.vision else 1
        of_critics = self.grad_updates if "critic" in self.optimizer_names else 0
        return of_critics + self.grad_updates // self.actor_every * per_step

    def raise_if_failed(self) -> None:
        """Wait for the device, with ``cuda_graphs``; `NonFiniteError` where it skipped a step."""
        if self._masked is not None:
            self._masked.raise_if_failed()

    def pop_metrics(self) -> dict[str, float]:
        """Means of the updates' metrics since the last call; see `raise_if_failed`."""
        self.raise_if_failed()
        return self._sums.pop()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add counters, random states and the running sums; leave Lightning's loop state out.

        A resumed run starts a fresh Lightning loop: its position is ``env_steps``, kept by the data
        module, so nothing depends on how Lightning restores a partial epoch.
        """
        self.raise_if_failed()
        checkpoint[type(self).__name__.lower()] = {
            "grad_updates": self.grad_updates,
            "update_rng": self.rng.get_state(),
            "explore_rng": self.explore_rng.get_state(),
            "sums": self._sums.state_dict(),
        }
        if self.period > 1:
            seen = {name: value.cpu().clone() for name, value in self._of_seeing.items()}
            checkpoint[type(self).__name__.lower()]["seen"] = seen
        checkpoint.pop("loops", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        state = checkpoint[type(self).__name__.lower()]
        self.grad_updates = int(state["grad_updates"])
        restore_generator(self.rng, state["update_rng"])
        restore_generator(self.explore_rng, state["explore_rng"])
        self._sums.load_state_dict(state["sums"])
        for name, value in state.get("seen", {}).items():
            self._of_seeing[name].copy_(value)

    def _here(self, rows: TensorDictBase, names: Sequence[str]) -> TensorDictBase:
        """Those entries of what the simulators gave, on the module's device."""
        if self.device.type == "cpu":
            return rows
        moved = {name: rows.get(name).to(self.device, non_blocking=True) for name in names}
        return TensorDict(moved, rows.batch_size)


def _gradient_name(loss: str) -> str:
    return f"train/feature_gradient_{loss}"
