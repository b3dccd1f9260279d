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


@pytest.mark.parametrize("env_id", ["FetchPush-v4", "FetchPushDense-v4"])
def test_equal_to_the_environments_own_reward(env_id):
    env = FetchEnv(TaskSpec(env_id, 50, None))
    achieved, desired = pairs(env.distance_threshold)
    own = env.compute_reward(achieved, desired)
    twin = GoalReward(env.sparse_reward, env.distance_threshold)
    ours = twin(torch.from_numpy(achieved), torch.from_numpy(desired)).numpy()
    assert ours.dtype == own.dtype == np.float32
    assert np.array_equal(ours.view(np.int32), own.view(np.int32))
    if env.sparse_reward:
        assert 0.2 < -own.mean() < 0.8  # both rewards occur, near the threshold too
