"""The agent's networks: one shared pixel encoder, a squashed-Gaussian actor, several critics.

``actor_inputs`` and ``critic_inputs`` are lists of observation entries (`fetchlab.entries`); either
may hold ``pixels``. What can be derived from ``state`` is derived here, so the simulator's
observation and a replayed row are read by the same code.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from fetchlab.entries import (
    ACHIEVED_GOAL,
    ACTION_DIM,
    DESIRED_GOAL,
    GOAL_DIM,
    PIXELS,
    PROPRIO,
    STATE,
    check_inputs,
)
from fetchlab.networks.actor import GaussianActor
from fetchlab.networks.critic import CriticEnsemble
from fetchlab.networks.goal_head import GoalPredictionHead
from fetchlab.networks.normalizer import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder, scaled


@dataclass(frozen=True)
class StateLayout:
    """Where the derived entries lie in the simulator's ``state`` vector.

    Args:
        state_dim: size of ``state``.
        proprio_indices: entries of ``state`` that make ``proprio``.
        goal_slice: entries of ``state`` that make ``achieved_goal``.
    """

    state_dim: int
    proprio_indices: tuple[int, ...]
    goal_slice: slice

    def dim(self, name: str) -> int:
        """Size of a vector entry."""
        sizes = {
            STATE: self.state_dim,
            PROPRIO: len(self.proprio_indices),
            ACHIEVED_GOAL: GOAL_DIM,
            DESIRED_GOAL: GOAL_DIM,
        }
        return sizes[name]


class AgentSizes(NamedTuple):
    """Sizes of the two heads (`GaussianActor`, `CriticEnsemble`)."""

    hidden: Sequence[int]
    ensemble: int
    layer_norm: bool
    log_std_min: float
    log_std_max: float


class Vision(NamedTuple):
    """What an agent with pixels has beside its two heads.

    Args:
        encoder: shared by actor and critics.
        frame_stack: frames of an observation, S.
        goal_head: predicts the object's position from the encoder's features; None: nothing does.
        bfloat16: convolve in bfloat16, under autocast; features are float32 again.
        channels_last: convolve in that memory format.
    """

    encoder: PixelEncoder
    frame_stack: int
    goal_head: GoalPredictionHead | None
    bfloat16: bool
    channels_last: bool


class Agent(nn.Module):
    """Encoder, actor, critics and their targets.

    Args:
        layout: of the ``state`` vector.
        actor_inputs: entries the actor sees.
        critic_inputs: entries the critics see.
        vision: None exactly when neither list holds ``pixels``.
        normalizer: of ``state`` and ``desired_goal``; the other entries are slices of ``state``.
        sizes: of the heads.

    Raises:
        ConfigError: for a list that names a missing entry.
    """

    def __init__(
        self,
        layout: StateLayout,
        actor_inputs: Sequence[str],
        critic_inputs: Sequence[str],
        vision: Vision | None,
        normalizer: VectorNormalizer,
        sizes: AgentSizes,
    ) -> None:
        super().__init__()
        check_inputs("obs.actor_inputs", actor_inputs)
        check_inputs("obs.critic_inputs", critic_inputs)
        self.layout = layout
        self.actor_inputs, self.critic_inputs = tuple(actor_inputs), tuple(critic_inputs)
        self.sees_pixels = PIXELS in actor_inputs or PIXELS in critic_inputs
        used = dict.fromkeys((*actor_inputs, *critic_inputs))
        self._vector_names = tuple(name for name in used if name != PIXELS)
        self.encoder = encoder = None if vision is None else vision.encoder
        self.frame_stack = 1 if vision is None else vision.frame_stack
        self.goal_head = None if vision is None else vision.goal_head
        self._bfloat16 = vision is not None and vision.bfloat16
        self._memory_format = torch.preserve_format
        if vision is not None and vision.channels_last:
            self._memory_format = torch.channels_last
            nn.Module.to(vision.encoder, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalizer = normalizer
        features = 0 if encoder is None else encoder.out_dim
        self.actor = GaussianActor(
            self._in_dim(self.actor_inputs, features),
            ACTION_DIM,
            sizes.hidden,
            sizes.log_std_min,
            sizes.log_std_max,
        )
        self.critic = CriticEnsemble(
            self._in_dim(self.critic_inputs, features),
            ACTION_DIM,
            sizes.hidden,
            sizes.ensemble,
            sizes.layer_norm,
        )
        self.critic_target = copy.deepcopy(self.critic).requires_grad_(False)
        self.encoder_target = copy.deepcopy(encoder)
        if self.encoder_target is not None:
            self.encoder_target.requires_grad_(False)
        index = torch.tensor(layout.proprio_indices, dtype=torch.int64)
        self.register_buffer("_proprio_index", index, persistent=False)

    def _in_dim(self, names: Sequence[str], features: int) -> int:
        return sum(features if name == PIXELS else self.layout.dim(name) for name in names)

    def vectors(self, obs: TensorDictBase, desired_goal: Tensor) -> dict[str, Tensor]:
        """The normalised vector entries that the agent uses.

        Args:
            obs: holds ``state`` (..., D) float32.
            desired_goal: (..., 3) metres; given apart because hindsight replaces it, also for the
                next observation.

        Returns:
            name -> (..., dim) float32, in the agent's normalised units.
        """
        # Normalising is elementwise, so it commutes with the slices that derive the other entries.
        state = self.normalizer(STATE, obs.get(STATE))
        entries: dict[str, Tensor] = {}
        for name in self._vector_names:
            if name == STATE:
                entries[name] = state
            elif name == PROPRIO:
                entries[name] = state.index_select(-1, self._proprio_index)
            elif name == ACHIEVED_GOAL:
                entries[name] = state[..., self.layout.goal_slice]
            else:
                entries[name] = self.normalizer(DESIRED_GOAL, desired_goal)
        return entries

    def encode(self, pixels: Tensor) -> Tensor:
        """Features (B, F) float32 of images (B, 3S, H, W) uint8."""
        return self._features(self.encoder, self._images(pixels))

    def encode_next(self, pixels: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Features of next images for the actor, and those of the target encoder for the critics.

        Each None where these do not see pixels. The images are converted once for both.
        """
        images, online, target = self._images(pixels), None, None
        if PIXELS in self.actor_inputs:
            online = self._features(self.encoder, images)
        if PIXELS in self.critic_inputs:
            target = self._features(self.encoder_target, images)
        return online, target

    def _images(self, pixels: Tensor) -> Tensor:
        dtype = torch.bfloat16 if self._bfloat16 else torch.float32
        return scaled(pixels, dtype, self._memory_format)

    def _features(self, encoder: PixelEncoder | None, images: Tensor) -> Tensor:
        assert encoder is not None
        if not self._bfloat16:
            return encoder(images, is_scaled=True)
        # Without the cache of casted weights: it would outlive the CUDA graph that filled it.
        with torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False):
            return encoder(images, is_scaled=True).float()

    def achieved_goal(self, state: Tensor) -> Tensor:
        """The object's position (B, 3) in metres, from ``state`` (B, D) as it was stored."""
        return state[..., self.layout.goal_slice]

    def actor_input(self, vectors: dict[str, Tensor], features: Tensor | None) -> Tensor:
        """Concatenate the actor's entries in the order of ``actor_inputs``: (B, sum of dims)."""
        return _concatenate(self.actor_inputs, vectors, features)

    def critic_input(self, vectors: dict[str, Tensor], features: Tensor | None) -> Tensor:
        """Concatenate the critics' entries in the order of ``critic_inputs``: (B, sum of dims)."""
        return _concatenate(self.critic_inputs, vectors, features)

    def observe(self, obs: TensorDictBase) -> None:
        """Add simulator rows to the input statistics (``obs.normalize``).

        Args:
            obs: ``state`` (N, D) and ``desired_goal`` (N, 3) as the simulator gave them.
        """
        self.normalizer.update(STATE, obs.get(STATE))
        self.normalizer.update(DESIRED_GOAL, obs.get(DESIRED_GOAL))


def _concatenate(
    names: Sequence[str], vectors: dict[str, Tensor], features: Tensor | None
) -> Tensor:
    parts = [features if name == PIXELS else vectors[name] for name in names]
    return torch.cat([part for part in parts if part is not None], dim=-1)
