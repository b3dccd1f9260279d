"""Relabelling strategies by themselves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from fetchlab.replay.relabel import (
    EpisodeRelabel,
    FinalRelabel,
    FutureRelabel,
    NoRelabel,
    UnmetFutureRelabel,
)

STRATEGIES = [FutureRelabel, UnmetFutureRelabel, FinalRelabel, EpisodeRelabel]
N = 40_000


def generator(seed):
    return torch.Generator().manual_seed(seed)


def chosen_times(relabel, t, length, seed=0, env_steps=0):
    """Goal times of ``N`` transitions at time ``t`` of an episode of ``length``, in a list."""
    goal = relabel(torch.full((N,), t), torch.full((N,), length), generator(seed), env_steps)
    assert goal.dtype == torch.int64
    return goal.numpy()


@pytest.mark.parametrize(
    ("strategy", "t", "length", "allowed"),
    [
        (FutureRelabel, 0, 5, {1, 2, 3, 4, 5}),
        (FutureRelabel, 3, 5, {4, 5}),
        (FutureRelabel, 4, 5, {5}),
        (FinalRelabel, 0, 5, {5}),
        (FinalRelabel, 4, 5, {5}),
        (EpisodeRelabel, 0, 5, {1, 2, 3, 4, 5}),
        (EpisodeRelabel, 4, 5, {1, 2, 3, 4, 5}),
        (EpisodeRelabel, 0, 1, {1}),
    ],
)
def test_each_allowed_time_is_equally_likely_and_no_other_is_chosen(strategy, t, length, allowed):
    goal = chosen_times(strategy(4), t, length)
    share = (goal != -1).mean()
    assert abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / N)  # k = 4: 4 of 5 are relabelled
    times, counts = np.unique(goal[goal != -1], return_counts=True)
    assert set(times) == allowed
    expected = counts.sum() / len(allowed)
    freedom = len(allowed) - 1
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square <= freedom + 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_share_follows_the_line_over_env_steps(strategy):
    relabel = strategy({"from": 3, "to": 0, "over_env_steps": 1000})
    # k = 3, 1.5, 0.75, 0, 0: shares k / (k + 1)
    expected = {0: 0.75, 500: 0.6, 750: 0.75 / 1.75, 1000: 0.0, 5000: 0.0}
    for env_steps, share in expected.items():
        goal = chosen_times(relabel, 1, 5, env_steps=env_steps)
        assert abs((goal != -1).mean() - share) <= 4 * np.sqrt(share * (1 - share) / N)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_falling_k_only_takes_goals_back(strategy):
    relabel = strategy({"from": 8, "to": 1, "over_env_steps": 100})
    goals = [chosen_times(relabel, 1, 7, env_steps=steps) for steps in (0, 50, 100)]
    for before, after in pairwise(goals):
        kept = after != -1
        assert 0 < kept.sum() < (before != -1).sum()
        np.testing.assert_array_equal(before[kept], after[kept])


def test_the_numbers_that_future_draws_stay():
    """Runs of the first release drew these: a seed must go on giving its curve."""
    t, length = torch.arange(0, 50, 5), torch.full((10,), 50)
    for env_steps in (0, 10**9):
        goal = FutureRelabel(4)(t, length, generator(0), env_steps)
        assert goal.tolist() == [-1, 13, 25, -1, 35, 37, 39, 39, 47, 49]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_randomness_used_does_not_depend_on_the_data(strategy):
    relabel = strategy({"from": 4, "to": 0, "over_env_steps": 10})
    states = []
    for t, length, env_steps in ((0, 50, 0), (49, 50, 0), (0, 1, 20)):
        g = generator(3)
        relabel(torch.full((7,), t), torch.full((7,), length), g, env_steps)
        states.append(g.get_state())
    assert not torch.equal(states[0], generator(3).get_state())
    assert all(torch.equal(a, b) for a, b in pairwise(states))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_arguments_are_left_alone(strategy):
    t, length = torch.arange(50), torch.full((50,), 50)
    strategy(4)(t, length, generator(0), 0)
    assert torch.equal(t, torch.arange(50))
    assert bool((length == 50).all())


def test_none_keeps_the_goal():
    t, g = torch.arange(5), generator(0)
    assert NoRelabel()(t, t + 1, g, 0).tolist() == [-1] * 5
    assert torch.equal(g.get_state(), generator(0).get_state())
