"""Symmetries of a task: each sampled transition stands for all that are its mirror images.

On a table it does not matter to what is pushed whether it goes left or right, and hardly whether it
goes along or across. A learner that draws for each sampled transition one of the symmetries, and
maps observation, goals, action and what followed by it, learns from every env step what it would
learn from up to eight (kaleidoscope experience replay, Lin et al. 2020, arXiv 1909.10707). Rewards
and ends stay: distances do not change.

Where cameras are mirror images of each other, so are their pictures: of the mirrored world each
shows what the other one saw, left and right exchanged. They show a mirrored robot, too, which none
is; that a policy may learn from such pictures is what Wang et al. 2022 found (arXiv 2211.09231).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, PIXELS, STATE, EnvSpec
from fetchlab.errors import require
from fetchlab.fields import Hint, Length
from fetchlab.schema import Camera

ACTION = "action"
Element = tuple[int, int, bool]
#: Signed permutations of (x, y): -1 mirrors x, -1 mirrors y, whether the two are exchanged then.
GROUPS = {
    "mirror_x": ((1, 1, False), (-1, 1, False)),
    "mirror_y": ((1, 1, False), (1, -1, False)),
    "mirrors": tuple((x, y, False) for x in (1, -1) for y in (1, -1)),
    "square": tuple((x, y, turn) for x in (1, -1) for y in (1, -1) for turn in (False, True)),
}
SAME = 1e-3  # metres, degrees: two cameras that are as near are one
NEAR = 0.05  # and that are nearer than that were meant to be
Indices = Annotated[dict[str, list[int]], Hint("e.g. {state: [0, 3]}")]


class PlaneSymmetry(nn.Module):
    """The symmetries of a horizontal plane, drawn anew for each transition, each equally likely.

    An entry's numbers that no argument names stay as they are: heights, fingers.

    Args:
        env_spec: of the environment.
        cameras: whose pictures are mapped, in the order of a frame's channels; none: they stay.
        group: ``mirror_y`` exchanges left and right, ``mirror_x`` near and far; ``mirrors`` both;
            ``square`` also x and y, which makes quarter turns.
        center: (x, y) of the point that stays where it is, in the unit of the positions.
        positions: by entry (``state``, ``achieved_goal``, ``desired_goal``), the indices of each x
            of a position; its y follows.
        directions: the same of velocities and differences, which have no centre; also ``action``.
        spins: the same of angles and angular velocities about x, y, z, which turn the other way in
            a mirror. Exact for angular velocities; for Euler angles, of mirrors.

    Raises:
        ConfigError: a group under which the task is not itself, an entry that is not stored, an
            index outside of it, a goal that is moved otherwise than what is achieved, or cameras
            that the group does not map onto each other.
    """

    seen_by: Tensor
    mirrored: Tensor

    def __init__(
        self,
        env_spec: EnvSpec,
        cameras: Sequence[Camera | None],
        group: Literal["mirror_x", "mirror_y", "mirrors", "square"],
        center: Annotated[list[float], Length(2), Hint("give x, y", "a list of 2 numbers")],
        positions: Indices,
        directions: Indices,
        spins: Indices,
    ) -> None:
        super().__init__()
        fits = env_spec.symmetries
        if fits is not None:
            expected = f"{' or '.join(fits)}, which leave this task what it is"
            remedy = "symmetry=mirror, or one of them with its symmetry.center"
            require(group in fits, "symmetry.group", group, expected, remedy)
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
            asked, achieved = (
                sorted(one) for one in (places.get(DESIRED_GOAL, ()), _achieved(places, env_spec))
            )
            expected = f"those of what is achieved, {achieved}, which must stay comparable"
            remedy = "name them of both, or use symmetry=none"
            require(asked == achieved, f"symmetry.{key}.{DESIRED_GOAL}", asked, expected, remedy)
        self._names = tuple(dims)
        for name, dim in (*dims.items(), (ACTION, env_spec.action_dim)):
            table = self._table(name, dim, center, positions, directions, spins)
            for kind, values in zip(("origin", "source", "sign"), table, strict=True):
                self.register_buffer(f"{kind}_{name}", values, persistent=False)
        self.maps_images = len(cameras) > 0
        if self.maps_images:
            seen_by = [_seen_by(one, cameras, center) for one in self._elements]
            mirrored = [_determinant(one) < 0 for one in self._elements]
            self.register_buffer("seen_by", torch.tensor(seen_by), persistent=False)
            self.register_buffer("mirrored", torch.tensor(mirrored), persistent=False)

    def _table(
        self, name: str, dim: int, center: Sequence[float], *named: Indices
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each number's origin (D,), and of G elements which one is taken, and its sign (G, D)."""
        origin = torch.zeros(dim)
        source = torch.arange(dim).repeat(len(self._elements), 1)
        sign = torch.ones(len(self._elements), dim)
        points, arrows, spins = (one.get(name, ()) for one in named)
        for x in points:
            origin[x], origin[x + 1] = center[0], center[1]
        for row, element in enumerate(self._elements):
            for x in (*points, *arrows):
                _turn(source[row], sign[row], x, element)
            for x in spins:  # pseudovectors: times the determinant
                mirrored = _determinant(element)
                _turn(source[row], sign[row], x, element, mirrored)
                sign[row, x + 2] = mirrored
        return origin, source, sign

    def forward(self, batch: TensorDictBase, rng: torch.Generator) -> TensorDictBase:
        """The transitions' images: vectors and action of ``batch`` [B], and of ``next``; pixels.

        A new batch; its other entries, pixels among them without cameras, are those of ``batch``.
        """
        n = len(self._elements)
        which = torch.randint(n, batch.batch_size, generator=rng, device=rng.device)
        images, after = batch.copy(), batch.get("next").copy()
        for name in (*self._names, ACTION):
            both = (images,) if name in (DESIRED_GOAL, ACTION) else (images, after)
            found = self._images(name, [rows.get(name) for rows in both], which)
            for rows, image in zip(both, found, strict=True):
                rows.set(name, image)
        if self.maps_images:
            images.set(PIXELS, self._pictures(batch.get(PIXELS), which))
        return images.set("next", after)

    def _pictures(self, frames: Tensor, which: Tensor) -> Tensor:
        """Frames (B, S, 3V, H, W) uint8, each row's V pictures under its element ``which`` (B,)."""
        rows, stack, channels, height, width = frames.shape
        views = channels // 3
        first = torch.arange(rows * stack, device=which.device).view(rows, stack, 1) * views
        taken = first + self.seen_by.index_select(0, which).unsqueeze(1)
        pictures = frames.reshape(-1, 3, height, width).index_select(0, taken.flatten())
        moved = pictures.view(frames.shape)
        mirrored = self.mirrored.index_select(0, which).view(-1, 1, 1, 1, 1)
        return torch.where(mirrored, moved.flip(-1), moved)

    def _images(self, name: str, entries: Sequence[Tensor], which: Tensor) -> list[Tensor]:
        """Of entries (B, D) of that name, each row under its element ``which`` (B,)."""
        origin = getattr(self, f"origin_{name}")
        source, sign = (
            getattr(self, f"{kind}_{name}").index_select(0, which) for kind in ("source", "sign")
        )
        return [(one - origin).gather(-1, source) * sign + origin for one in entries]


def _achieved(places: Indices, env_spec: EnvSpec) -> list[int]:
    """Which of the achieved goal's numbers these places name."""
    of_state = env_spec.goal_slice
    if of_state is None:
        return places.get(ACHIEVED_GOAL, [])
    inside = range(of_state.start, of_state.stop)
    return [x - of_state.start for x in places.get(STATE, ()) if x in inside]


def _parts(element: Element) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of an image's x and of its y: which of the two it was (0: x, 1: y), and its sign."""
    of_x, of_y, turned = element
    return ((1, of_y), (0, of_x)) if turned else ((0, of_x), (1, of_y))


def _determinant(element: Element) -> int:
    """-1 of a mirror, 1 of a turn."""
    of_x, of_y, turned = element
    return of_x * of_y * (-1 if turned else 1)


def _turn(source: Tensor, sign: Tensor, x: int, element: Element, times: int = 1) -> None:
    """The element's effect on one pair of numbers (x, x + 1), ``times`` a sign."""
    for nth, (which, of) in enumerate(_parts(element)):
        source[x + nth], sign[x + nth] = x + which, of * times


def _mapped(element: Element, *vector: float) -> list[float]:
    """The element's effect on one vector (x, y)."""
    return [of * vector[which] for which, of in _parts(element)]


def _seen_by(
    element: Element, cameras: Sequence[Camera | None], center: Sequence[float]
) -> list[int]:
    """Of each camera, which one saw what it shows of the world under that element."""
    images = [_image(one, element, center) for one in cameras]
    found = []
    for number, camera in enumerate(cameras):
        place = _image(camera, (1, 1, False), center)
        apart = [math.dist(place, image) for image in images]
        alike = [one < SAME for one in apart]
        where = f"camera {number}" if camera is None else f"azimuth {camera.azimuth:g}"
        expected = f"cameras that are mirror images of each other; the one of {where} is of none"
        remedy = "use symmetry=none, or symmetry=mirrors with obs=pixels_strict_two"
        if min(apart) < NEAR:
            middle = [sum(one.lookat[i] for one in cameras if one) / len(cameras) for i in (0, 1)]
            remedy = f"symmetry.center=[{middle[0]:g},{middle[1]:g}], what they look at, is nearer"
        known = ", ".join("default" if one is None else f"{one.azimuth:g}" for one in cameras)
        require(any(alike), "symmetry", f"azimuths {known}", expected, remedy)
        found.append(alike.index(True))
    return found


def _image(camera: Camera | None, element: Element, center: Sequence[float]) -> tuple[float, ...]:
    """What tells one place of a camera from another: where it looks, and from where."""
    if camera is None:  # the environment's own, which is not known here: like no other
        return (math.nan,) * 7
    x, y = _mapped(element, camera.lookat[0] - center[0], camera.lookat[1] - center[1])
    angle = math.radians(camera.azimuth)
    direction = _mapped(element, math.cos(angle), math.sin(angle))
    return x, y, camera.lookat[2], camera.distance, camera.elevation, *direction
