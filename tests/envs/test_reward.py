"""The torch reward equals the environment's own on a million pairs, the hard ones included."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fetchlab.envs.batched import GoalReward
from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.spec import TaskSpec

PAIRS = 1_000_000


def pairs(threshold):
    """Goals anywhere on the table, half of them a rounding error away from the threshold."""
    rng = np.random.default_rng(0)
    desired = rng.uniform([1.0, 0.4, 0.4], [1.7, 1.1, 0.9], (PAIRS, 3))
    direction = rng.normal(size=(PAIRS, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    distance = rng.uniform(0, 0.6, PAIRS)
    distance[::2] = threshold * (1 + rng.uniform(-1e-6, 1e-6, PAIRS // 2))
    achieved = desired + distance[:, None] * direction
    return achieved.astype(np.float32), desired.astype(np.float32)


def reward_of(env, achieved, desired):
    """What the replay recomputes: the torch reward of goals (..., 3)."""
    twin = GoalReward(env.sparse_reward, env.distance_threshold)
    return twin(torch.from_numpy(achieved), torch.from_numpy(desired)).numpy()


@pytest.mark.parametrize("env_id", ["FetchPush-v4", "FetchPushDense-v4"])
def test_equal_to_the_environments_own_reward(env_id):
    env = FetchEnv(TaskSpec(env_id, 50, None))
    achieved, desired = pairs(env.distance_threshold)
    own = np.asarray(env._inner.compute_reward(achieved, desired, {}), np.float32)
    ours = reward_of(env, achieved, desired)
    assert ours.dtype == own.dtype == np.float32
    assert np.array_equal(ours.view(np.int32), own.view(np.int32))
    if env.sparse_reward:
        assert 0.2 < -own.mean() < 0.8  # both rewards occur, near the threshold too


def test_reward_by_hand():
    push = FetchEnv(TaskSpec("FetchPush-v4", 50, None))
    goal = np.zeros((3, 3), np.float32)
    achieved = np.array([[0.049, 0, 0], [0, 0.03, 0.03], [0, 0.03, 0.05]], np.float32)
    reward = reward_of(push, achieved, goal)
    assert reward.dtype == np.float32
    assert reward.tolist() == [0, 0, -1]  # distances 0.049, 0.0424, 0.0583 m against 0.05 m


def test_dense_reward_by_hand():
    env = FetchEnv(TaskSpec("FetchPushDense-v4", 50, None))
    achieved = np.array([[0.3, 0, 0.4]], np.float32)
    assert reward_of(env, achieved, np.zeros((1, 3), np.float32)) == pytest.approx([-0.5])


@pytest.mark.parametrize("task", ["Reach", "Push", "Slide", "PickAndPlace"])
def test_the_recomputed_dense_reward_is_the_steps(task):
    env = FetchEnv(TaskSpec(f"Fetch{task}Dense-v4", 50, None))
    env.reset(0)
    for _ in range(5):
        result = env.step(np.array([0.5, -0.5, 0.2, 0.0]))
        again = reward_of(env, result.obs.achieved_goal, result.obs.desired_goal)
        assert result.reward < -0.001
        assert again == pytest.approx(result.reward, rel=1e-4)
