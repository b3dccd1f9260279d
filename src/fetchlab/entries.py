"""Names of observation entries, the shape legend, and the protocols of the swap-in points.

Shape legend used in every docstring: ``N`` environments, ``B`` transitions in a batch, ``U``
updates in a round, ``E`` critics in the ensemble, ``S`` stacked frames, ``(C, H, W)`` an image,
``A`` action size.

One environment step yields these entries (float32 unless said):

==================  ==================  =========================================================
``pixels``          (C, H, W) uint8     one frame, C = 3 of each camera
``state``           (D,)                the simulator's observation vector
``proprio``         (P,)                the robot's own sensors, entries of ``state``
``achieved_goal``   (G,)                from ``state``, where it is a slice of it
``desired_goal``    (G,)
``estimated_goal``  (G,)                where the actor acts: ``achieved_goal`` as its encoder reads
                                        it off the pixels; where it learns: the stored one
==================  ==================  =========================================================

D, P, G and A are the environment's (`EnvSpec`): 25, 10, 3 and 4 on FetchPush,
whose goals are positions of the object in metres.

This module imports no torch at run time: simulator workers import it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from fetchlab.errors import require

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from tensordict import TensorDictBase
    from torch import Tensor

    #: A reward (float32), or an end (bool), of goals (..., G), achieved and desired: (...,).
    GoalFunction = Callable[[Tensor, Tensor], Tensor]

PIXELS = "pixels"
STATE = "state"
PROPRIO = "proprio"
ACHIEVED_GOAL = "achieved_goal"
DESIRED_GOAL = "desired_goal"
ESTIMATED_GOAL = "estimated_goal"
VECTOR_ENTRIES = (STATE, PROPRIO, ACHIEVED_GOAL, DESIRED_GOAL)
ENTRIES = (PIXELS, *VECTOR_ENTRIES, ESTIMATED_GOAL)
SEEING = (PIXELS, ESTIMATED_GOAL)  # entries that take a camera


@dataclass(frozen=True)
class EnvSpec:
    """What an environment yields and pays.

    Args:
        state_dim: size of ``state``.
        goal_dim: size of both goals.
        action_dim: size of an action.
        proprio: entries of ``state`` that make ``proprio``.
        goal_slice: entries of ``state`` that make ``achieved_goal``; None: it is stored beside it.
        reward_range: least and largest reward of a step; infinite where there is no bound.
        terminates: whether reaching a goal ends the episode, so that ``terminated`` depends on it.
        restorable: whether its state can be saved; else a resume restarts the running episodes.
        symmetries: of a horizontal plane, the groups that leave the task what it is (names as in
            `fetchlab.symmetry`); None: not known, so any is taken.
    """

    state_dim: int
    goal_dim: int
    action_dim: int
    proprio: tuple[int, ...]
    goal_slice: slice | None
    reward_range: tuple[float, float]
    terminates: bool
    restorable: bool
    symmetries: tuple[str, ...] | None = None

    def dim(self, name: str) -> int:
        """Size of a vector entry."""
        sizes = {STATE: self.state_dim, PROPRIO: len(self.proprio)}
        return sizes.get(name, self.goal_dim)

    def achieved_goal(self, rows: TensorDictBase) -> Tensor:
        """The achieved goal (..., goal_dim) of stored rows, as the simulator gave it."""
        if self.goal_slice is None:
            return rows.get(ACHIEVED_GOAL)
        return rows.get(STATE)[..., self.goal_slice]


def check_inputs(key: str, names: Sequence[str]) -> None:
    """Refuse an agent's input list that is empty, repeats itself or names what does not exist.

    Raises:
        ConfigError: with the list, what it may hold, and the remedy.
    """
    known = ", ".join(ENTRIES)
    require(len(names) > 0, key, list(names), "at least one entry", f"choose from {known}")
    for name in names:
        require(name in ENTRIES, key, name, f"one of {known}", "remove it or correct its name")
    once = len(set(names)) == len(names)
    require(once, key, list(names), "each entry once", "remove the duplicate")
    require(
        DESIRED_GOAL in names,
        key,
        list(names),
        f"{DESIRED_GOAL} among them (without it relabelling means nothing)",
        f"add {DESIRED_GOAL}",
    )


class Encoder(Protocol):
    """Images to feature maps: (B, C, H, W) float in [0, 1] -> (B, *out_shape)."""

    out_shape: tuple[int, int, int]

    def __call__(self, pixels: Tensor) -> Tensor: ...


class Pooling(Protocol):
    """Feature maps to a vector: (B, F, h, w) -> (B, out_dim)."""

    out_dim: int

    def __call__(self, maps: Tensor) -> Tensor: ...


class Augmentation(Protocol):
    """Images to images of the same shape and dtype: (B, C, H, W) uint8 -> (B, C, H, W) uint8.

    One random draw per image, the same for all its channels. ``shared_draw`` says what an image is
    in an update. False: obs and next_obs (B, S C, H, W) are augmented one after the other, each
    with its own draws (DrQ). True: the block of frames that holds both, (B, 3 (S + 1), H, W) in the
    one-step case, is augmented once, and obs and next_obs are views of the result.
    """

    shared_draw: bool

    def __call__(self, pixels: Tensor, generator: torch.Generator) -> Tensor: ...


class Symmetry(Protocol):
    """Transitions to transitions that are as true, which actor and critics learn from instead.

    ``__call__(batch, rng)`` takes a batch [B] and returns one with other vectors and actions,
    under ``next`` too; rewards and ends stay. An ``nn.Module``, built with ``env_spec`` and
    ``cameras``: those of an agent whose actor or critics are given pixels, else none.

    ``maps_images``: whether pixels are mapped, too, as those agents need; else they stay.
    """

    maps_images: bool

    def __call__(self, batch: TensorDictBase, rng: torch.Generator) -> TensorDictBase: ...


class Relabeller(Protocol):
    """Which time of the same episode gives each transition its goal.

    ``__call__(t, length, generator, env_steps)`` takes the transition's time ``t`` (B,) int64 in
    [0, length - 1], its episode's number of transitions (B,) int64, and the env steps collected so
    far, a plain int that a resumed run repeats exactly, for what changes as training goes on. It
    returns the goal's time (B,) int64: the row whose ``achieved_goal`` becomes the desired goal, in
    [1, length], or -1 to keep the episode's own goal.

    ``unmet_only``: keep the episode's own goal too where the chosen one was met when it began.
    """

    unmet_only: bool

    def __call__(
        self, t: Tensor, length: Tensor, generator: torch.Generator, env_steps: int
    ) -> Tensor: ...


class AuxiliaryLoss(Protocol):
    """A loss on the encoder beside those of actor and critics, with a head of its own.

    ``__call__(features, batch, next_features)`` takes the encoder's features (B, D), the batch,
    and the target encoder's features of the next observation (B, D; None unless
    ``needs_next_features``). It returns the loss, a scalar, and the metrics by the names in
    ``metrics``. Built with ``feature_dim`` and ``env_spec``.

    One that has ``predict_goal(features)``, the achieved goal (B, goal_dim), is what an actor acts
    on that is given ``estimated_goal``.
    """

    weight: float
    metrics: tuple[str, ...]
    needs_next_features: bool

    def __call__(
        self, features: Tensor, batch: TensorDictBase, next_features: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]: ...
