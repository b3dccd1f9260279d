"""Frames of real rollouts with random actions, few from each episode.

Under random actions the object rarely moves, so what tells one frame from the next is mostly which
episode it is from: each environment gives one moment an episode, and later ones in later waves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import TransformedEnv

from fetchlab.build import build_env
from fetchlab.collect.rollout import episode_seeds
from fetchlab.config import typed
from fetchlab.entries import DESIRED_GOAL, STATE, EnvSpec
from fetchlab.envs.transforms import FRAMES
from fetchlab.preflight.renderer import choose_renderer

ENVS = 8
GRIPPER = slice(0, 3)  # where every Fetch task's state has the gripper's position
_ROW = (STATE, DESIRED_GOAL)


class Moments(NamedTuple):
    """N moments, each from its own episode, with what came one step later.

    ``pixels`` and ``next_pixels`` (N, 3S, H, W) uint8; ``rows`` [N] with ``state`` and
    ``desired_goal``; ``visited`` [M], the same entries of every step on the way there.
    """

    pixels: Tensor
    next_pixels: Tensor
    rows: TensorDictBase
    visited: TensorDictBase
    layout: EnvSpec

    @property
    def gripper(self) -> Tensor:
        """(N, 3) metres."""
        return self.rows.get(STATE)[:, GRIPPER]

    @property
    def object(self) -> Tensor | None:
        """(N, 3) metres; None in Reach, which has none."""
        if self.layout.goal_slice == GRIPPER:
            return None
        return self.rows.get(STATE)[:, self.layout.goal_slice]


def collect(cfg: Mapping[str, Any], count: int) -> Moments:
    """Play episodes with uniform actions, on the seeds of evaluation.

    Args:
        cfg: resolved, plain; its task, camera, frame stack and seed count.
        count: N, at least 1.
    """
    choose_renderer()
    n_envs = min(count, ENVS)
    waves = math.ceil(count / n_envs)
    seeds = episode_seeds(cfg["seed"], waves * n_envs)
    rng = torch.Generator().manual_seed(cfg["seed"])
    env = build_env(typed(cfg), n_envs, None, render=True)
    try:
        layout = env.base_env.env_spec
        played = []
        for wave, time in enumerate(look_times(waves, cfg["task"]["max_episode_steps"])):
            env.base_env.seed_next_reset(seeds[wave * n_envs : (wave + 1) * n_envs])
            played.append(_play(env, time, rng))
    finally:
        env.close()
    before, after, visited = (torch.cat(column) for column in zip(*played, strict=True))
    before, after = before[:count], after[:count]
    rows = before.select(*_ROW)
    return Moments(before.get(FRAMES), after.get(FRAMES), rows, visited, layout)


def look_times(waves: int, episode_steps: int) -> list[int]:
    """The time at which each wave is looked at: spread over an episode, never its last step."""
    last = episode_steps - 2  # the moment after it still belongs to the episode
    return [int((wave + 0.5) / waves * (last + 1)) for wave in range(waves)]


@torch.no_grad()
def _play(
    env: TransformedEnv, time: int, rng: torch.Generator
) -> tuple[TensorDictBase, TensorDictBase, TensorDictBase]:
    """The observations [n] at ``time`` and one step later, and all rows [n (time + 2)]."""
    obs = env.reset()
    visited = [obs.select(*_ROW)]
    before = after = obs
    for _ in range(time + 1):
        before = obs.select(*_ROW, FRAMES)
        obs.set("action", torch.rand(env.action_spec.shape, generator=rng) * 2.0 - 1.0)
        step, obs = env.step_and_maybe_reset(obs)
        after = step.get("next").select(*_ROW, FRAMES)
        visited.append(after.select(*_ROW))
    return before, after, torch.cat(visited)
