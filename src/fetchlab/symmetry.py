"""Symmetries of a task: each sampled transition stands for all that are its mirror images.

On a table it does not matter to what is pushed whether it goes left or right, and hardly whether it
goes along or across. A learner that draws for each sampled transition one of the symmetries, and
maps observation, goals, action and what followed by it, learns from every env step what it would
learn from up to eight (kaleidoscope experience replay, Lin et al. 2020, arXiv 1909.10707). Rewards
and ends stay: distances do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, STATE, EnvSpec
from fetchlab.errors import require
from fetchlab.fields import Hint, Length

ACTION = "action"
#: Signed permutations of (x, y): -1 mirrors x, -1 mirrors y, whether the two are exchanged then.
GROUPS = {
    "mirror_y": ((1, 1, False), (1, -1, False)),
    "mirrors": tuple((x, y, False) for x in (1, -1) for y in (1, -1)),
    "square": tuple((x, y, turn) for x in (1, -1) for y in (1, -1) for turn in (False, True)),
}
Indices = Annotated[dict[str, list[int]], Hint("e.g. {state: [0, 3]}")]


class PlaneSymmetry(nn.Module):
    """The symmetries of a horizontal plane, drawn anew for each transition, each equally likely.

    An entry's numbers that no argument names stay as they are: heights, fingers.

    Args:
        env_spec: of the environment.
        group: ``mirror_y`` exchanges left and right; ``mirrors`` also near and far; ``square`` also
            x and y, which makes quarter turns.
        center: (x, y) of the point that stays where it is, in the unit of the positions.
        positions: by entry (``state``, ``achieved_goal``, ``desired_goal``), the indices of each x
            of a position; its y follows.
        directions: the same of velocities and differences, which have no centre; also ``action``.
        spins: the same of angles and angular velocities about x, y, z, which turn the other way in
            a mirror. Exact for angular velocities; for Euler angles, of mirrors.

    Raises:
        ConfigError: an entry that is not stored, or an index outside of it.
    """

    def __init__(
        self,
        env_spec: EnvSpec,
        group: Literal["mirror_y", "mirrors", "square"],
        center: Annotated[list[float], Length(2), Hint("give x, y", "a list of 2 numbers")],
        positions: Indices,
        directions: Indices,
        spins: Indices,
    ) -> None:
        super().__init__()
        dims = {STATE: env_spec.state_dim, DESIRED_GOAL: env_spec.goal_dim}
        if env_spec.goal_slice is None:
            dims[ACHIEVED_GOAL] = env_spec.goal_dim
        self._elements = GROUPS[group]
        kinds = (("positions", positions, 2), ("directions", directions, 2), ("spins", spins, 3))
        for key, places, size in kinds:
            allowed = {**dims, ACTION: env_spec.action_dim} if key == "directions" else dims
            for name, starts in places.items():
                where, known = f"symmetry.{key}", ", ".join(allowed)
                require(name in allowed, where, name, f"one of {known}", "remove it")
                last = allowed[name] - size
                for start in starts:
                    expected = f"indices from 0 to {last}: {name} has {allowed[name]} numbers here"
                    remedy = "use a task that it fits, or symmetry=none"
                    require(0 <= start <= last, f"{where}.{name}", start, expected, remedy)
        self._names = tuple(dims)
        for name, dim in (*dims.items(), (ACTION, env_spec.action_dim)):
            origin, source, sign = self._table(name, dim, center, positions, directions, spins)
            self.register_buffer(f"origin_{name}", origin, persistent=False)
            self.register_buffer(f"source_{name}", source, persistent=False)
            self.register_buffer(f"sign_{name}", sign, persistent=False)

    def _table(
        self,
        name: str,
        dim: int,
        center: Sequence[float],
        positions: Indices,
        directions: Indices,
        spins: Indices,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each number's origin (D,), and of G elements which one is taken, and its sign (G, D)."""
        origin = torch.zeros(dim)
        source = torch.arange(dim).repeat(len(self._elements), 1)
        sign = torch.ones(len(self._elements), dim)
        points = positions.get(name, ())
        for x in points:
            origin[x], origin[x + 1] = center[0], center[1]
        for row, (of_x, of_y, turned) in enumerate(self._elements):
            for x in (*points, *directions.get(name, ())):
                _turn(source[row], sign[row], x, of_x, of_y, turned)
            for x in spins.get(name, ()):  # pseudovectors: times the determinant
                mirrored = of_x * of_y * (-1 if turned else 1)
                _turn(source[row], sign[row], x, of_x * mirrored, of_y * mirrored, turned)
                sign[row, x + 2] = mirrored
        return origin, source, sign

    def forward(self, batch: TensorDictBase, rng: torch.Generator) -> TensorDictBase:
        """The transitions' images: vectors and action of ``batch`` [B], and of ``next``.

        A new batch; its other entries, pixels among them, are those of ``batch``.
        """
        n = len(self._elements)
        which = torch.randint(n, batch.batch_size, generator=rng, device=rng.device)
        images, after = batch.copy(), batch.get("next").copy()
        for name in (*self._names, ACTION):
            both = (images,) if name in (DESIRED_GOAL, ACTION) else (images, after)
            found = self._images(name, [rows.get(name) for rows in both], which)
            for rows, image in zip(both, found, strict=True):
                rows.set(name, image)
        return images.set("next", after)

    def _images(self, name: str, entries: Sequence[Tensor], which: Tensor) -> list[Tensor]:
        """Of entries (B, D) of that name, each row under its element ``which`` (B,)."""
        origin = getattr(self, f"origin_{name}")
        source, sign = (
            getattr(self, f"{kind}_{name}").index_select(0, which) for kind in ("source", "sign")
        )
        return [(one - origin).gather(-1, source) * sign + origin for one in entries]


def _turn(source: Tensor, sign: Tensor, x: int, of_x: int, of_y: int, turned: bool) -> None:
    """The element's effect on one pair of numbers (x, x + 1)."""
    first, second = (x + 1, x) if turned else (x, x + 1)
    signs = (of_y, of_x) if turned else (of_x, of_y)
    source[x], source[x + 1] = first, second
    sign[x], sign[x + 1] = signs
