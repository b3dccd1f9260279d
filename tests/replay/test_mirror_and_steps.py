"""The copy on another device, forced on the CPU; and transitions of several steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from replay_oracle import KINDS, Simulation, compute_reward, equal, filled, open_replay, saved

from fetchlab.errors import ConfigError
from fetchlab.replay import mirror

N_STEP, DISCOUNT, STACK = 3, 0.9, 3


@pytest.fixture
def forced_copy(monkeypatch):
    monkeypatch.setattr(mirror, "needs_copy", lambda device: True)


def own_memory(replay):
    """Whether torch reads other memory than the mapped files."""
    files, mirrors = replay.storage.files.arrays, replay.storage.reader._mirrors
    return all(m.tensor.data_ptr() != files[name].ctypes.data for name, m in mirrors.items())


def assert_same(a, b):
    keys = set(a.keys(True, True))
    assert keys == set(b.keys(True, True))
    assert all(torch.equal(a[key], b[key]) for key in keys)


def test_a_mirrored_replay_gives_the_same_batches_over_many_wraps(tmp_path, monkeypatch):
    plain, sim = filled(tmp_path / "plain", steps=0, capacity=30)
    monkeypatch.setattr(mirror, "needs_copy", lambda device: True)
    mirrored = open_replay(tmp_path / "mirrored", capacity=30)
    assert own_memory(mirrored)
    assert not own_memory(plain)
    for step in range(4 * plain.storage.layout.rows):
        data = sim.step()
        plain.extend(data)
        mirrored.extend(data)
        if step > 20 and step % 7 == 0:
            assert_same(plain.sample(40), mirrored.sample(40))


def test_a_mirrored_replay_is_resumed_from_the_files(tmp_path, forced_copy):
    first, sim = filled(tmp_path, steps=100, capacity=30)
    state = saved(first)
    second = open_replay(tmp_path, capacity=30)
    second.load_state_dict(state)
    assert_same(first.sample(60), second.sample(60))
    data = sim.step()
    first.extend(data)
    second.extend(data)
    assert_same(first.sample(60), second.sample(60))


def brute_force(episode, t, goal):
    """Reward, bootstrap factor, time of the next observation, and whether it is terminal."""
    m = min(N_STEP, episode.length - t)
    reward = 0.0
    for i in range(m):
        achieved = torch.from_numpy(episode.achieved[t + i + 1])
        reward += DISCOUNT**i * compute_reward(achieved, torch.from_numpy(goal)).item()
        if episode.ends(t + i, goal):
            return reward, DISCOUNT**m, t + m, True
    return reward, DISCOUNT**m, t + m, False


@pytest.mark.parametrize(
    ("mirrored", "kind"), [(False, "slice"), (True, "slice"), (False, "stored_ends")]
)
def test_several_steps_are_what_brute_force_says(tmp_path, monkeypatch, mirrored, kind):
    kind = KINDS[kind]
    monkeypatch.setattr(mirror, "needs_copy", lambda device: mirrored)
    replay = open_replay(
        tmp_path, n_step=N_STEP, discount=DISCOUNT, stack=STACK, capacity=30, kind=kind
    )
    layout = replay.storage.layout
    sim = Simulation(layout.n_envs, layout.window_steps, layout.window_rows, kind=kind)
    for _ in range(3 * layout.rows):
        replay.extend(sim.step())
    episodes, batch = sim.snapshot(), replay.sample(300)
    factors = set()
    for row in batch:
        _, number, t = (int(x) for x in row["state"][:3])
        episode, goal = episodes[number], row["desired_goal"].numpy()
        reward, factor, after, terminal = brute_force(episode, t, goal)
        assert row["next", "reward"].item() == pytest.approx(reward, abs=1e-6)
        assert row["next", "discount"].item() == pytest.approx(factor, rel=1e-6)
        assert bool(row["next", "terminated"]) == terminal
        equal(row["next", "state"], episode.states[after])
        stacks = [range(end - STACK + 1, end + 1) for end in (t, after)]
        frames = [episode.frames[max(0, i)] for stack in stacks for i in stack]
        equal(row["pixels"], np.stack(frames))
        factors.add(round(factor, 4))
    assert factors == {0.9, 0.81, 0.729}


def test_more_steps_than_an_episode_has_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^algo.n_step=7"):
        open_replay(tmp_path, n_step=7)


def test_what_one_round_wrote_is_pushed_together(tmp_path, forced_copy, monkeypatch):
    replay = open_replay(tmp_path, n_envs=20, capacity=200)
    sim = Simulation(
        20, *(getattr(replay.storage.layout, f"window_{x}") for x in ("steps", "rows"))
    )
    for env, episode in enumerate(sim.open):
        episode.length = 2 if env < 19 else 1
    pushed, plain = [], mirror.Mirrored.take
    monkeypatch.setattr(
        mirror.Mirrored,
        "take",
        lambda self, rows, there: (pushed.append((self, rows)), plain(self, rows, there)),
    )
    counts = []
    for _ in range(2):
        pushed.clear()
        replay.extend(sim.step())
        replay.sample(10)
        counts.append([len(rows) for _, rows in pushed])
    # First observations and next ones in one push of each, then goal, action and flag.
    # One episode of one transition: a row of the table, its number, and the counts of all.
    assert counts[0] == [40, 40, 20, 20, 20, 1, 1, 20, 20]
    # Environment 19 begins anew; the other episodes, of two transitions, end at once.
    assert counts[1] == [21, 21, 20, 20, 20, 19, 38, 20, 20]
