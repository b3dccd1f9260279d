"""An episode is its seed and its actions: gymnasium's own environment gives the same from them."""

from __future__ import annotations

from contextlib import closing

import gymnasium
import gymnasium_robotics
import numpy as np
import pytest
import torch

from fetchlab.build import build_env
from fetchlab.collect.rollout import rollout
from fetchlab.config import typed

SEEDS = (5, 6, 7)
STEPS = 12


def towards_the_goal(obs):
    """Reaches it, at another step in each episode; the last of the actions leaves it again."""
    offset = obs["desired_goal"] - obs["achieved_goal"]
    action = torch.cat((8 * offset, torch.zeros(len(offset), 1)), 1)
    return torch.where(obs["episode_length"] < STEPS - 1, action, 1.0).clamp(-1, 1)


def test_what_an_episode_gave_is_what_gymnasium_gives_for_its_seed_and_actions(compose_run):
    run = typed(compose_run("state_reach", f"task.max_episode_steps={STEPS}", "trainer=cpu"))
    with closing(build_env(run, 2, 1)) as env:  # two waves, the second one with a place left over
        played = rollout(env, towards_the_goal, SEEDS)
    gymnasium.register_envs(gymnasium_robotics)
    with closing(gymnasium.make(run.task.env_id, max_episode_steps=STEPS)) as single:
        for index, seed in enumerate(SEEDS):
            obs, _ = single.reset(seed=seed)
            rewards, succeeds = [], []
            for action in played.actions[index].numpy():
                obs, reward, _, _, info = single.step(action)
                rewards.append(reward)
                succeeds.append(bool(info["is_success"]))
            gap = np.linalg.norm(obs["achieved_goal"] - obs["desired_goal"])
            assert played.goal_distance_m[index].item() == pytest.approx(gap, abs=1e-6)
            assert played.returns[index].item() == sum(rewards)
            assert played.success[index].item() is succeeds[-1]
            assert played.first_success_step[index].item() == succeeds.index(True) + 1
            assert played.length_steps[index].item() == len(rewards) == STEPS
    assert len(set(played.first_success_step.tolist())) > 1
    assert played.frames == played.succeeds == []
