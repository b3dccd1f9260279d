"""Deterministic evaluation: N episodes with a given policy, each from its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import TransformedEnv

from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, PIXELS

Clip = tuple[list[Tensor], list[Tensor]]  # an episode's frames, and whether each succeeds


@dataclass(frozen=True)
class Episodes:
    """What N finished episodes gave; every tensor is (N,), in the order of the seeds."""

    success: Tensor  # bool, at the episode's last step
    returns: Tensor  # float32 sum of rewards
    goal_distance_m: Tensor  # float32, between achieved and desired goal at the last step, metres
    length_steps: Tensor  # int64
    first_success_step: Tensor  # int64, from 1; 0 where no step succeeds
    actions: list[Tensor]  # float32 (T, A) of each episode: with its seed, the episode itself
    frames: list[Tensor]  # uint8 (T + 1, C, H, W) of each episode, where they were asked for
    succeeds: list[Tensor]  # bool (T + 1,) of each of these frames


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Seeds of evaluation episodes: far from the training seeds, the same at every evaluation."""
    return [1_000_000 + 10_000 * seed + index for index in range(episodes)]


class StoppedError(RuntimeError):
    """A rollout was abandoned because somebody asked for it; what it played is lost."""


@torch.no_grad()
def rollout(
    env: TransformedEnv,
    policy: Callable[[TensorDictBase], Tensor],
    seeds: Sequence[int],
    record: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Episodes:
    """Play one episode per seed, in waves of as many as the environment holds.

    Args:
        env: batched environment with N environments.
        policy: observation -> actions (N, A) in [-1, 1].
        seeds: one per episode; the last wave is filled up with the last seed and cut.
        record: keep the frames of the first ``record`` episodes.
        stop: asked before every step; True abandons the rollout.

    Raises:
        StoppedError: ``stop`` said so.
    """
    n = int(env.batch_size[0])

    def act(obs: TensorDictBase) -> Tensor:
        if stop():
            raise StoppedError
        return policy(obs)

    waves = [_play_wave(env, act, seeds[i : i + n], i < record) for i in range(0, len(seeds), n)]
    columns = zip(*(ends for ends, _, _ in waves), strict=True)
    success, returns, distance, length, first = map(torch.cat, columns)
    actions = [one for _, taken, _ in waves for one in taken]
    clips = [clip for _, _, clips in waves for clip in clips][:record]
    frames, succeeds = ([torch.stack(clip[kind]) for clip in clips] for kind in (0, 1))
    return Episodes(success, returns, distance, length, first, actions, frames, succeeds)


def _play_wave(
    env: TransformedEnv,
    policy: Callable[[TensorDictBase], Tensor],
    seeds: Sequence[int],
    record: bool,
) -> tuple[list[Tensor], list[Tensor], list[Clip]]:
    """The first five of `Episodes`, the actions, and what was kept of each episode."""
    n = int(env.batch_size[0])
    env.base_env.seed_next_reset([*seeds, *[seeds[-1]] * (n - len(seeds))])
    obs = env.reset()
    running = torch.ones(n, dtype=torch.bool)
    kinds = (torch.bool, torch.float32, torch.float32, torch.int64, torch.int64)
    ends = [torch.zeros(n, dtype=kind) for kind in kinds]
    first, actions = ends[-1], []
    clips: list[Clip] = [([], []) for _ in seeds]
    while bool(running[: len(seeds)].any()):
        if record:
            _keep_frames(clips, obs, running)
        actions.append(policy(obs).cpu())
        obs.set("action", actions[-1])
        step, obs = env.step_and_maybe_reset(obs)
        after = step.get("next")
        ended = after.get("done").squeeze(-1) & running
        gap = (after.get(ACHIEVED_GOAL) - after.get(DESIRED_GOAL)).norm(dim=-1)
        names = ("success", "episode_return", "episode_length")
        success, returned, length = (after.get(name).squeeze(-1) for name in names)
        first = torch.where(success & running & (first == 0), length, first)
        now = (success, returned, gap, length, first)
        ends = [torch.where(ended, one, end) for one, end in zip(now, ends, strict=True)]
        if record:
            _keep_frames(clips, after, ended)
        running = running & ~ended
    ends, taken = [end[: len(seeds)] for end in ends], torch.stack(actions, dim=1)
    return ends, [row[:length] for row, length in zip(taken, ends[3], strict=False)], clips


def _keep_frames(clips: Sequence[Clip], obs: TensorDictBase, which: Tensor) -> None:
    for index, (frames, succeeds) in enumerate(clips):
        if bool(which[index]):
            frames.append(obs.get(PIXELS)[index].clone())
            succeeds.append(obs.get("success")[index, 0].clone())
