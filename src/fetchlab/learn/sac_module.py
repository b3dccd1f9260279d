"""Soft actor-critic as a LightningModule: manual optimization over two optimizers.

What one update does is in `fetchlab.learn.update`. Here is what surrounds it: acting, the two
optimizers, the random streams, the metrics, and what a checkpoint holds.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from fetchlab.entries import DESIRED_GOAL, PIXELS, STATE, Augmentation, Routing
from fetchlab.errors import NonFiniteError
from fetchlab.learn.captured import AT_ONCE, CapturedUpdates
from fetchlab.learn.metrics import MetricSums
from fetchlab.learn.parameters import actor_parameters, check_routing, critic_parameters
from fetchlab.learn.settings import SACSettings, Seeds
from fetchlab.learn.steps import CheckedSteps, Held, MaskedSteps
from fetchlab.learn.update import SACUpdate, metric_names
from fetchlab.networks.agent import Agent

STEP_HOOKS = ("on_before_backward", "on_after_backward", "on_before_optimizer_step")


class RoundOfBatches(Protocol):
    """A round's U batches [U, B]: a TensorDict, or one that draws them when they are asked for."""

    def split(self, updates: int) -> Iterable[Iterable[TensorDictBase]]:
        """Pieces of so many batches [B] at most, each used up before the next one is taken."""


class SACModule(pl.LightningModule):
    """SAC with a shared encoder and explicit gradient routing.

    Args:
        agent: networks and targets.
        routing: which losses train the encoder.
        augment: of uint8 images.
        settings: of the update.
        critic_optimizer: ``params -> Optimizer``, for the critics (+ encoder under its routing).
        actor_optimizer: ``params -> Optimizer``, for the actor (+ log alpha when learned).
        seeds: of exploration and updates.
        cuda_graphs: run a round's updates as one CUDA graph, with steps masked on the device; on a
            CPU the same path without the recording.

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
        seeds: Seeds,
        cuda_graphs: bool,
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
        self.sums = MetricSums(metric_names(agent))
        self.latest_metrics: dict[str, float] = {}
        self._cuda_graphs = cuda_graphs
        self._seeds = seeds
        self._update_rng: torch.Generator | None = None
        self._explore_rng = torch.Generator().manual_seed(seeds.explore)
        self._run: Callable[[Sequence[TensorDictBase]], None] | None = None
        self._masked: MaskedSteps | None = None

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
        if self.agent.normalizer.counting:
            self.agent.observe(self._here(rows, STATE, DESIRED_GOAL))

    @torch.no_grad()
    def explore(self, obs: TensorDictBase) -> Tensor:
        """Sample actions (N, A) in [-1, 1]; the first call freezes ``fixed`` input statistics.

        Args:
            obs: ``state`` (N, D), ``desired_goal`` (N, 3); for pixels ``frames`` (N, 3S, H, W).
        """
        self.agent.normalizer.freeze()
        mean, log_std = self._policy(obs)
        noise = torch.randn(mean.shape, generator=self._explore_rng)
        noise = noise.to(mean.device, non_blocking=True)
        return torch.tanh(mean + log_std.exp() * noise)  # `sac.sample_action` without its density

    @torch.no_grad()
    def act(self, obs: TensorDictBase) -> Tensor:
        """The policy's mode (N, A) in [-1, 1], for evaluation."""
        return torch.tanh(self._policy(obs)[0])

    def _policy(self, obs: TensorDictBase) -> tuple[Tensor, Tensor]:
        sees = PIXELS in self.agent.actor_inputs
        obs = self._here(obs, STATE, DESIRED_GOAL, *(("frames",) if sees else ()))
        vectors = self.agent.vectors(obs, obs.get(DESIRED_GOAL))
        features = self.agent.encode(obs.get("frames")) if sees else None
        mean, log_std = self.agent.actor(self.agent.actor_input(vectors, features))
        return mean, log_std

    def _here(self, rows: TensorDictBase, *names: str) -> TensorDictBase:
        """Those entries of what the simulators gave, on the module's device."""
        if self.device.type == "cpu":
            return rows
        moved = {name: rows.get(name).to(self.device, non_blocking=True) for name in names}
        return TensorDict(moved, rows.batch_size)

    # ----------------------------------------------------------------------------------- learning

    def training_step(self, batch: RoundOfBatches, batch_idx: int) -> None:
        """Run this round's updates, `AT_ONCE` of them on batches that are in memory together.

        Args:
            batch: of `fetchlab.learn.datamodule`; U may be 0.
            batch_idx: unused; rounds are counted by the data module.
        """
        for piece in batch.split(AT_ONCE):
            self.update(*piece)

    def update(self, *batches: TensorDictBase) -> None:
        """One gradient update of critics, encoder, actor and targets for each batch.

        Args:
            batches: [B] each, see `SACUpdate`.

        Raises:
            NonFiniteError: instead of a step with a value that is not finite; with ``cuda_graphs``
                later, see `raise_if_failed`.
        """
        if self._run is None:
            self._run = self._prepare()
        self._run(batches)

    def _prepare(self) -> Callable[[Sequence[TensorDictBase]], None]:
        """What runs updates, now that device and optimizers are known."""
        rng = self._generator()
        self.sums.to(self.device)
        parts = (self.agent, self.routing, self.augment, self.settings, self.log_alpha)
        one = SACUpdate(*parts, self._steps())

        def update(batch: TensorDictBase) -> None:
            self.sums.add(one(batch, rng))

        if not self._cuda_graphs:
            return partial(self._update_in_turn, update)
        captured = CapturedUpdates(update, [rng], self.device)

        def update_captured(batches: Sequence[TensorDictBase]) -> None:
            captured(batches)
            self.grad_updates += len(batches)

        return update_captured

    def _update_in_turn(
        self, update: Callable[[TensorDictBase], None], batches: Sequence[TensorDictBase]
    ) -> None:
        for batch in batches:
            try:
                update(batch)
            except NonFiniteError as error:
                raise NonFiniteError(f"update {self.grad_updates + 1}: {error}") from None
            self.grad_updates += 1

    def _steps(self) -> Callable[[str, Tensor, Held], None]:
        """How a loss becomes a step of the two optimizers."""
        wrapped = not self._cuda_graphs and self._hooked()
        both = cast(list[Any], self.optimizers(wrapped))
        optimizers = dict(zip(("critic", "actor"), both, strict=True))
        if not self._cuda_graphs:
            return CheckedSteps(optimizers, self.manual_backward if wrapped else Tensor.backward)
        self._masked = MaskedSteps(optimizers)
        for optimizer in both if self.device.type == "cuda" else ():
            for group in optimizer.param_groups:
                group["capturable"] = True
        return self._masked

    def _hooked(self) -> bool:
        """Whether a callback, or a subclass, follows backward passes or optimizer steps.

        Lightning's wrappers exist for them; asking all callbacks again and again, to find that
        none does, took 1.3 ms of a round of 26 ms under a profiler.
        """
        listeners: list[tuple[Any, type]] = [(self, pl.LightningModule)]
        listeners += [(callback, pl.Callback) for callback in self._callbacks()]
        return any(
            is_overridden(hook, one, parent) for one, parent in listeners for hook in STEP_HOOKS
        )

    def _callbacks(self) -> list[Any]:
        trainer: Any = self._trainer
        return [] if trainer is None else trainer.callbacks

    def raise_if_failed(self) -> None:
        """Wait for the device, with ``cuda_graphs``, and look at what it counted.

        Raises:
            NonFiniteError: an update had a loss or gradient that was not finite.
        """
        if self._masked is not None:
            self._masked.raise_if_failed()

    def pop_metrics(self) -> dict[str, float]:
        """Means of the updates' metrics since the last call.

        Raises:
            NonFiniteError: see `raise_if_failed`.
        """
        self.raise_if_failed()
        return self.sums.pop()

    def _generator(self) -> torch.Generator:
        if self._update_rng is None:
            self._update_rng = torch.Generator(self.device).manual_seed(self._seeds.update)
        return self._update_rng

    # --------------------------------------------------------------------------------- checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add counters, random states and the running sums; leave Lightning's loop state out.

        A resumed run starts a fresh Lightning loop: its position is ``env_steps``, kept by the data
        module, so nothing depends on how Lightning restores a partial epoch.
        """
        self.raise_if_failed()
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


# Lightning asks for this signature every round; made anew each time it takes 0.05 ms.
SACModule.training_step.__signature__ = inspect.signature(SACModule.training_step)  # type: ignore[attr-defined]
