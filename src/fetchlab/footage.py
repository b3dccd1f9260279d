"""Episodes to look at: a seed and its actions, played again with a camera for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fetchlab.build import build_env
from fetchlab.collect.rollout import Episodes, rollout
from fetchlab.collect.video import side_by_side, write_video
from fetchlab.errors import RunFailedError
from fetchlab.schema import Pixels, Run

FRAMES_PER_S = 25  # an env step is 0.04 s
HOLD_S = 1.0  # the last picture stays
SIDE = 384  # pixels of each view, 12 x 32 and 6 x 64


def notable(played: Episodes) -> dict[str, int]:
    """Which episodes are the ``best``, ``median`` and ``worst``; each once where they are few.

    Success comes first, then the return, which says how soon, then the distance to the goal.
    """
    keys = (-played.goal_distance_m, played.returns, played.success)  # the last one is the first
    order = np.lexsort([key.numpy() for key in keys]).tolist()
    # An episode that is several of them has the last name.
    named = {order[len(order) // 2]: "median", order[0]: "worst", order[-1]: "best"}
    return dict(sorted((name, index) for index, name in named.items()))


def write_videos(
    run: Run,
    played: Episodes,
    seeds: Sequence[int],
    shown: Mapping[str, int],
    folder: Path,
    stem: str,
) -> list[str]:
    """Write the episodes ``shown`` to ``folder``, each as ``<stem>_<name>.mp4``: the paths."""
    if not shown:
        return []
    paths = []
    for name, pictures in zip(
        shown, footage(run, played, seeds, list(shown.values()), SIDE), strict=True
    ):
        held = np.repeat(pictures[-1:], round(HOLD_S * FRAMES_PER_S), axis=0)
        paths.append(folder / f"{stem}_{name}.mp4")
        write_video(np.concatenate((pictures, held)), paths[-1], FRAMES_PER_S)
    return [str(path) for path in paths]


def footage(
    run: Run, played: Episodes, seeds: Sequence[int], which: Sequence[int], side: int
) -> list[np.ndarray]:
    """What a person sees of episodes, and beside it what the agent sees, if it has a camera.

    Args:
        run: in which they were played.
        played: they and others.
        seeds: of ``played``.
        which: indices into ``played``.
        side: of each view, pixels.

    Returns:
        of each episode (T + 1, H, W, 3) uint8, see `side_by_side`.

    Raises:
        RunFailedError: an episode comes out otherwise when it is played again.
    """
    views = [_for_people(run, side)]
    if run.obs.sees_pixels:
        views.append(replace(run, obs=replace(run.obs, frame_stack=1)))
    again = [_again(view, played, seeds, which) for view in views]
    return [
        side_by_side(
            [one.frames[index].numpy() for one in again], again[0].succeeds[index].numpy(), side
        )
        for index in range(len(which))
    ]


def _for_people(run: Run, side: int) -> Run:
    """The agent's camera, or gymnasium's: larger, with shadows and the goal."""
    own = run.obs.pixels if run.obs.sees_pixels else None
    camera = None if own is None else own.camera
    pixels = Pixels(side, 1, camera, {}, show_goal=True, quality="reference")
    return replace(run, obs=replace(run.obs, frame_stack=1, pixels=pixels))


def _again(run: Run, played: Episodes, seeds: Sequence[int], which: Sequence[int]) -> Episodes:
    """Those episodes with their frames, from their seeds and actions."""
    taken = [played.actions[index] for index in which]
    moves = iter(torch.nn.utils.rnn.pad_sequence(taken).unbind())  # (N, A), step by step
    with closing(build_env(run, len(which), None, render=True)) as env:
        again = rollout(env, lambda _: next(moves), [seeds[i] for i in which], record=len(which))
    if not again.goal_distance_m.equal(played.goal_distance_m[list(which)]):
        reason = "an episode came out otherwise when it was played again from its seed and actions"
        raise RunFailedError(f"{reason}: this environment does not repeat itself, set video=false")
    return again
