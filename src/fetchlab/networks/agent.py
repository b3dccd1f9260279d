"""What every algorithm's agent has: how it sees. The algorithm adds the heads that act and judge.

``actor_inputs`` and ``critic_inputs`` are lists of observation entries (`fetchlab.entries`); either
may hold ``pixels``. What can be derived from ``state`` is derived here, so the simulator's
observation and a replayed row are read by the same code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from fetchlab.entries import (
    ACHIEVED_GOAL,
    DESIRED_GOAL,
    ESTIMATED_GOAL,
    PIXELS,
    PROPRIO,
    SEEING,
    STATE,
    Augmentation,
    EnvSpec,
    Symmetry,
    check_inputs,
)
from fetchlab.errors import require
from fetchlab.networks.norms import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder, scaled

Module = TypeVar("Module", bound=nn.Module)


class Seen(NamedTuple):
    """One observation of a batch: vectors (B, dim) by name, normalised, and its images.

    ``images`` are (B, 3S, H, W) uint8, augmented; None for an agent without pixels.
    """

    vectors: Mapping[str, Tensor]
    images: Tensor | None


class Transition(NamedTuple):
    """A batch as the heads see it, both observations towards the batch's goal."""

    obs: Seen
    action: Tensor  # (B, A)
    next_obs: Seen
    pictured: TensorDictBase  # the rows [B] that the images show: what is asked of an encoder


class Vision(NamedTuple):
    """What an agent with pixels has."""

    encoder: PixelEncoder  # shared by actor and critics
    frame_stack: int
    augment: Augmentation
    auxiliary: Mapping[str, nn.Module]  # losses on the encoder, `fetchlab.entries.AuxiliaryLoss`
    bfloat16: bool  # convolve in it, under autocast; features are float32 again
    channels_last: bool  # convolve in that memory format
    compiled: bool  # by `torch.compile`, the passes of updates


class Agent(nn.Module):
    """Encoder, its target, auxiliary losses and input statistics.

    ``actor`` and ``critic``, and their targets, are the algorithm's: it sets them.

    Args:
        env_spec: of the environment.
        actor_inputs, critic_inputs: entries they see, see `check_inputs`.
        vision: None exactly when neither list holds an entry that takes a camera.
        normalizer: of what is stored: ``state``, ``desired_goal``, and ``achieved_goal`` where it
            is no slice of ``state``.
        symmetry: maps the transitions of an update; None: as they were.

    Attributes:
        actor_dim, critic_dim: sizes of the two inputs, the critics' without the action.
    """

    actor: nn.Module
    actor_target: nn.Module
    critic: nn.Module
    critic_target: nn.Module

    def __init__(
        self,
        env_spec: EnvSpec,
        actor_inputs: Sequence[str],
        critic_inputs: Sequence[str],
        vision: Vision | None,
        normalizer: VectorNormalizer,
        symmetry: Symmetry | None = None,
    ) -> None:
        super().__init__()
        check_inputs("obs.actor_inputs", actor_inputs)
        check_inputs("obs.critic_inputs", critic_inputs)
        sees = PIXELS in (*actor_inputs, *critic_inputs)
        fits = symmetry is None or not sees or symmetry.maps_images
        expected = f"one that maps images, where {PIXELS} are an input"
        remedy = "use symmetry=none, or obs=estimate"
        require(fits, "symmetry", type(symmetry).__name__, expected, remedy)
        self.symmetry = symmetry
        self.env_spec = env_spec
        self.actor_inputs, self.critic_inputs = tuple(actor_inputs), tuple(critic_inputs)
        used = dict.fromkeys((*actor_inputs, *critic_inputs))
        self._vector_names = tuple(name for name in used if name != PIXELS)
        self.vision, self.normalizer = vision, normalizer
        self.encoder = self.encoder_target = None
        self.auxiliary = nn.ModuleDict()
        self._memory_format = torch.preserve_format
        self._compiled: Callable[[nn.Module, Tensor], Tensor] | None = None
        if vision is not None:
            self.encoder = vision.encoder
            if vision.channels_last:
                self._memory_format = torch.channels_last
                nn.Module.to(vision.encoder, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.encoder_target = frozen_copy(vision.encoder)
            self.auxiliary.update(vision.auxiliary)
            if vision.compiled:
                self._compiled = _compile(self._from_pixels)
        features = 0 if vision is None else vision.encoder.out_dim
        self.actor_dim, self.critic_dim = (
            sum(features if name == PIXELS else env_spec.dim(name) for name in names)
            for names in (actor_inputs, critic_inputs)
        )
        if ESTIMATED_GOAL in (*actor_inputs, *critic_inputs):
            self._check_estimate()
        index = torch.tensor(env_spec.proprio, dtype=torch.int64)
        self.register_buffer("_proprio_index", index, persistent=False)

    @property
    def actor_looks(self) -> bool:
        """Whether acting takes frames."""
        return any(name in self.actor_inputs for name in SEEING)

    @property
    def stored(self) -> tuple[str, ...]:
        """The vector entries that simulators give and the replay stores, the rest is derived."""
        return self.normalizer.names

    @property
    def losses(self) -> tuple[Any, ...]:
        """The auxiliary losses, `fetchlab.entries.AuxiliaryLoss`."""
        return tuple(self.auxiliary.values())

    def _check_estimate(self) -> None:
        told = ESTIMATED_GOAL in self.critic_inputs
        expected = "no estimated_goal: critics only learn, and learn from the stored goal"
        remedy = f"use {ACHIEVED_GOAL}"
        require(not told, "obs.critic_inputs", [*self.critic_inputs], expected, remedy)
        expected = f"one that predicts the goal, since the actor is given {ESTIMATED_GOAL}"
        remedy = "add auxiliary=[goal_prediction], or routing=auxiliary"
        require(len(self.guessers) == 1, "auxiliary", [*self.auxiliary], expected, remedy)

    @property
    def guessers(self) -> list[Any]:
        """The auxiliary losses that predict the achieved goal."""
        return [loss for loss in self.losses if hasattr(loss, "predict_goal")]

    def with_guess(self, rows: TensorDictBase, features: Tensor | None) -> TensorDictBase:
        """``rows`` [B], their achieved goal replaced by what features (B, D) say it is."""
        guess, goal_slice = self.guessers[0].predict_goal(features), self.env_spec.goal_slice
        if goal_slice is None:
            return rows.copy().set(ACHIEVED_GOAL, guess)
        state = rows.get(STATE).clone()
        state[..., goal_slice] = guess
        return rows.copy().set(STATE, state)

    def look(self, batch: TensorDictBase, rng: torch.Generator) -> Transition:
        """What an update sees of a batch [B] under ``symmetry``; images are augmented, too."""
        rows = pictured = batch
        if self.symmetry is not None:
            rows = self.symmetry(batch, rng)
            pictured = rows if self.symmetry.maps_images else batch
        goal, action = rows.get(DESIRED_GOAL), rows.get("action")
        vectors, next_vectors = self.vectors(rows, goal), self.vectors(rows.get("next"), goal)
        images, next_images = self._images(pictured, rng)
        obs, next_obs = Seen(vectors, images), Seen(next_vectors, next_images)
        return Transition(obs, action, next_obs, pictured)

    def _images(
        self, batch: TensorDictBase, rng: torch.Generator
    ) -> tuple[Tensor | None, Tensor | None]:
        """Augmented images of observation and next observation (B, 3S, H, W), if there are any."""
        if self.vision is None:
            return None, None
        # Views of one block unless augmented: (B, S + 1, C, H, W) holds both stacks.
        block, stack, augment = batch.get(PIXELS), self.vision.frame_stack, self.vision.augment
        if augment.shared_draw:
            block = augment(block.flatten(1, 2), rng).view_as(block)
            return block[:, :stack].flatten(1, 2), block[:, -stack:].flatten(1, 2)
        images = augment(block[:, :stack].flatten(1, 2), rng)
        return images, augment(block[:, -stack:].flatten(1, 2), rng)

    def vectors(self, obs: TensorDictBase, desired_goal: Tensor) -> dict[str, Tensor]:
        """The normalised vector entries (..., dim) that the agent uses, by name.

        The goal is given apart because hindsight replaces it, also for the next observation.
        """
        # Normalising is elementwise, so it commutes with the slices that derive the other entries.
        state, goal_slice = self.normalizer(STATE, obs.get(STATE)), self.env_spec.goal_slice
        entries: dict[str, Tensor] = {}
        for name in self._vector_names:
            if name == STATE:
                entries[name] = state
            elif name == PROPRIO:
                entries[name] = state.index_select(-1, self._proprio_index)
            elif name == DESIRED_GOAL:
                entries[name] = self.normalizer(DESIRED_GOAL, desired_goal)
            elif goal_slice is None:
                entries[name] = self.normalizer(ACHIEVED_GOAL, obs.get(ACHIEVED_GOAL))
            else:
                entries[name] = state[..., goal_slice]
        return entries

    def encode(self, images: Tensor | None) -> Tensor | None:
        """Features (B, F) float32 of images (B, 3S, H, W) uint8, in an update; None of None."""
        return None if images is None else self._each(images, [self.encoder])[0]

    def glance(self, images: Tensor | None) -> Tensor | None:
        """What `encode` gives, to act on: never compiled, so no compiler is needed to act.

        Few images are looked at, of several numbers, and each would be compiled for itself.
        """
        return None if images is None else self._from_pixels(self.encoder, images)

    def encode_next(self, images: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Features of next images, and the target encoder's; each None where nobody reads them.

        Not in one pass with the observation's, although online both have the same weights: beside a
        pass with gradients that is 1.35 times the time (the backward pass would run over both), and
        without them 0.95 to 1.04 times (batch 256, one core, 32x32x3 and 84x84x12).
        """
        if images is None:
            return None, None
        ahead = any(loss.needs_next_features for loss in self.losses)
        judged = PIXELS in self.critic_inputs or ahead
        if self.encoder_target is None:
            seen = self.encode(images) if judged or PIXELS in self.actor_inputs else None
            return seen, seen
        online = self.encoder if PIXELS in self.actor_inputs else None
        target = self.encoder_target if judged else None
        first, second = self._each(images, [online, target])
        return first, second

    def _each(self, images: Tensor, encoders: Sequence[PixelEncoder | None]) -> list[Tensor | None]:
        """Features of the same images by each encoder; None of None."""
        if self._compiled is not None:  # each pass scales them itself: it costs nothing there
            return [None if one is None else self._compiled(one, images) for one in encoders]
        if any(one is not None for one in encoders):
            images = self._scaled(images)
        return [None if one is None else self._features(one, images) for one in encoders]

    def _from_pixels(self, encoder: PixelEncoder | None, images: Tensor) -> Tensor:
        return self._features(encoder, self._scaled(images))

    def _scaled(self, images: Tensor) -> Tensor:
        assert self.vision is not None
        dtype = torch.bfloat16 if self.vision.bfloat16 else torch.float32
        return scaled(images, dtype, self._memory_format)

    def _features(self, encoder: PixelEncoder | None, images: Tensor) -> Tensor:
        assert encoder is not None and self.vision is not None
        if not self.vision.bfloat16:
            return encoder(images, is_scaled=True)
        # Without the cache of casted weights: it would outlive the CUDA graph that filled it.
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            return encoder(images, is_scaled=True).float()

    def actor_input(self, vectors: Mapping[str, Tensor], features: Tensor | None) -> Tensor:
        """Concatenate the actor's entries in the order of ``actor_inputs``: (B, actor_dim)."""
        return _concatenate(self.actor_inputs, vectors, features)

    def critic_input(self, vectors: Mapping[str, Tensor], features: Tensor | None) -> Tensor:
        """Concatenate the critics' entries in the order of ``critic_inputs``: (B, critic_dim)."""
        return _concatenate(self.critic_inputs, vectors, features)


def frozen_copy(module: Module) -> Module:
    """A target network: a copy that no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)


def _compile(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``function`` compiled for each shape and mode when it first comes: 1 to 20 s each.

    Not for shapes in general: which of them came first would then move later numbers, and a resumed
    run would not repeat its own. Nor with kernels chosen by measured times, in deterministic mode.
    """
    options: Any = {"deterministic": torch.are_deterministic_algorithms_enabled()}
    compiled: Callable[..., Tensor] = torch.compile(function, dynamic=False, options=options)
    return compiled


def _concatenate(
    names: Sequence[str], vectors: Mapping[str, Tensor], features: Tensor | None
) -> Tensor:
    parts = [features if name == PIXELS else vectors[name] for name in names]
    return torch.cat([part for part in parts if part is not None], dim=-1)
