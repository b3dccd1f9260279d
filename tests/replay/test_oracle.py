"""The replay against brute force, over many wraps of the ring and simulated kills."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from replay_oracle import KINDS, LONGEST, SLICE, Simulation, check_batch, filled, open_replay

from fetchlab.replay.relabel import NoRelabel, UnmetFutureRelabel


def simulation_for(replay, **options):
    layout = replay.storage.layout
    return Simulation(layout.n_envs, layout.window_steps, layout.window_rows, **options)


@pytest.mark.parametrize(
    ("pixels", "n_envs", "kind"),
    [(True, 1, SLICE), (True, 3, SLICE), (False, 1, SLICE)]
    + [pytest.param(False, 3, kind, id=name) for name, kind in KINDS.items()],
)
def test_every_sample_is_what_brute_force_says(tmp_path, pixels, n_envs, kind):
    replay = open_replay(tmp_path, n_envs=n_envs, pixels=pixels, capacity=30 * n_envs, kind=kind)
    sim = simulation_for(replay, seed=n_envs, kind=kind)
    rows = replay.storage.layout.rows
    for step in range(4 * rows):
        replay.extend(sim.step(pixels))
        episodes = sim.snapshot()
        assert len(replay) == sum(e.length for e in episodes.values())
        if episodes and step % 7 == 0:
            times = check_batch(replay.sample(40), episodes, stack=3)
            assert min(times) == -1 or step < 20
    assert replay.storage._cursor.min() > 4 * rows
    assert max(times) > 0


def test_the_batch_holds_nothing_else_and_has_plain_shapes(tmp_path):
    replay = open_replay(tmp_path)
    sim = simulation_for(replay)
    for _ in range(30):
        replay.extend(sim.step())
    batch = replay.sample(5)
    shapes = {key: tuple(batch[key].shape) for key in batch.keys(True, True)}
    assert shapes == {
        "state": (5, 9),
        "desired_goal": (5, 3),
        "action": (5, 2),
        "pixels": (5, 4, 3, 2, 2),
        "index": (5,),
        ("next", "state"): (5, 9),
        ("next", "reward"): (5,),
        ("next", "terminated"): (5,),
    }
    assert batch["pixels"].dtype == torch.uint8
    assert batch["next", "terminated"].dtype == torch.bool
    assert batch["next", "reward"].dtype == batch["state"].dtype == torch.float32


def test_what_is_stored_beside_the_state_is_named_in_the_layout(tmp_path):
    plain, _ = filled(tmp_path / "plain", steps=1, pixels=False)
    beside, _ = filled(tmp_path / "beside", steps=1, pixels=False, kind=KINDS["stored"])
    names = {"state", "desired_goal", "action", "terminated"}
    assert set(plain.storage.layout.arrays) == names
    assert set(beside.storage.layout.arrays) == names | {"achieved_goal"}
    # 9 + 3 + 2 numbers and a flag; 9 + 2 + 2 and the goal's 2.
    assert plain.storage.layout.row_bytes() == 4 * 14 + 1
    assert beside.storage.layout.row_bytes() == 4 * 15 + 1


def test_episodes_that_cannot_go_on_are_left_out_and_their_rows_taken(tmp_path):
    replay, sim = filled(tmp_path, steps=61)
    finished = sim.snapshot()
    assert any(episode.actions for episode in sim.open)
    text = io.BytesIO()
    torch.save(replay.state_dict(), text)
    replay.storage.flush()
    replay.storage.committed()
    state = torch.load(io.BytesIO(text.getvalue()), weights_only=True)
    for _ in range(2):  # resumed, stopped, and resumed from the same checkpoint again
        other, again = open_replay(tmp_path), Simulation(3, 30, 36, seed=5)
        other.load_state_dict(state)
        other.storage.abandon_open()
        assert len(other) == sum(e.length for e in finished.values())
        again.count = 1000
        again.open = [again._begin(env) for env in range(3)]
        for _ in range(20):
            other.extend(again.step())
        known = finished | again.snapshot()
        assert set(check_batch_numbers(other.sample(400))) & set(again.snapshot())
        check_batch(other.sample(100), known, stack=3)
        other.storage.require_intact("full")


def check_batch_numbers(batch):
    return batch["state"][:, 1].int().tolist()


def test_no_relabel_keeps_every_goal(tmp_path):
    replay = open_replay(tmp_path, k=NoRelabel())
    sim = simulation_for(replay)
    for _ in range(60):
        replay.extend(sim.step())
    assert set(check_batch(replay.sample(100), sim.snapshot(), stack=3)) == {-1}


def test_goals_that_an_episode_began_at_are_passed_over(tmp_path):
    kind = SLICE._replace(still=True)
    replay = open_replay(tmp_path, k=UnmetFutureRelabel(4), pixels=False, kind=kind)
    sim = simulation_for(replay, kind=kind)
    for _ in range(60):
        replay.extend(sim.step(pixels=False))
    batch, episodes = replay.sample(4000), sim.snapshot()
    times = np.array(check_batch(batch, episodes, stack=3))
    still = np.array([episodes[number].still for number in check_batch_numbers(batch)])
    assert 0.3 < still.mean() < 0.7
    assert set(times[still]) == {-1}
    assert abs((times[~still] != -1).mean() - 0.8) < 4 * np.sqrt(0.8 * 0.2 / (~still).sum())


def test_transitions_are_drawn_uniformly(tmp_path):
    replay = open_replay(tmp_path)
    sim = simulation_for(replay)
    for _ in range(150):
        replay.extend(sim.step())
    window, n = replay.storage.window, 200_000
    places = window.locate(window.draw(n, torch.Generator().manual_seed(1)))
    rows = (places.ring + (places.start + places.t) % replay.storage.layout.rows).numpy()
    _, counts = np.unique(rows, return_counts=True)
    assert len(counts) == len(replay), "each stored transition is drawn, and nothing else"
    expected = n / len(replay)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("k", [4, 8])
def test_goals_are_relabelled_as_often_and_as_far_as_her_says(tmp_path, k):
    replay = open_replay(tmp_path, k=k, pixels=False)
    sim = simulation_for(replay, fixed_length=LONGEST)
    for _ in range(60):
        replay.extend(sim.step(pixels=False))
    n = 30_000
    batch = replay.sample(n)
    own = {tuple(np.float32(g)) for e in sim.snapshot().values() for g in e.goals}
    goals = batch["desired_goal"].numpy()
    relabelled = np.array([tuple(goal) not in own for goal in goals])
    share = k / (k + 1)
    assert abs(relabelled.mean() - share) < 4 * np.sqrt(share * (1 - share) / n)

    at = {tuple(state[3:6]): t for e in sim.snapshot().values() for t, state in enumerate(e.states)}
    for t in range(LONGEST):
        here = relabelled & (batch["state"][:, 2].numpy() == t)
        times = [at[tuple(goal)] for goal in goals[here]]
        counts = np.bincount(times, minlength=LONGEST + 1)
        assert not counts[: t + 1].any(), "only later times"
        later = counts[t + 1 :]
        expected = here.sum() / (LONGEST - t)
        freedom = max(1, len(later) - 1)
        assert ((later - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)
    rewards = batch["next", "reward"].numpy()
    assert set(rewards[~relabelled]) == {-1.0}
    assert rewards[relabelled].max() == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_step_resumes_from_either_of_the_two_newest_checkpoints(tmp_path, seed):
    replay = open_replay(tmp_path, margin_env_steps=45)
    sim = simulation_for(replay, seed=seed)
    rng = np.random.default_rng(seed)
    commits = []

    def commit():
        replay.storage.flush()
        text = io.BytesIO()
        torch.save(replay.state_dict(), text)
        replay.storage.committed()
        commits.append((text.getvalue(), sim.snapshot()))

    commit()
    forced = resumed = 0
    for _ in range(3 * replay.storage.layout.rows):
        replay.extend(sim.step())
        if replay.storage.commit_needed():
            forced += 1
            commit()
        elif rng.random() < 0.03:
            commit()
        if rng.random() < 0.15:  # the process dies here; another opens the files
            for text, episodes in commits[-2:]:
                other = open_replay(tmp_path, margin_env_steps=45)
                other.load_state_dict(torch.load(io.BytesIO(text), weights_only=True))
                other.storage.require_intact("full")
                assert len(other) == sum(e.length for e in episodes.values())
                if episodes:
                    check_batch(other.sample(30), episodes, stack=3)
                    resumed += 1
    assert forced > 0 and resumed > 20
    overwrite_what_no_checkpoint_needs(replay.storage)
    for text, episodes in commits[-2:]:
        other = open_replay(tmp_path, margin_env_steps=45)
        other.load_state_dict(torch.load(io.BytesIO(text), weights_only=True))
        other.storage.require_intact("full")
        check_batch(other.sample(200), episodes, stack=3)
    assert replay.storage._cursor.min() > 3 * replay.storage.layout.rows


def overwrite_what_no_checkpoint_needs(storage):
    """Torn writes, all at once: every row outside of the two newest checkpoints becomes garbage."""
    rows, two = storage.layout.rows, (storage.commits.previous, storage.commits.newest)
    for env in range(storage.layout.n_envs):
        start, end = min(c.start[env] for c in two), max(c.cursor[env] for c in two) + 1
        needed = {int(a) % rows for a in range(start, end)}
        assert 0 < rows - len(needed) < rows
        for place in set(range(rows)) - needed:
            for array in storage.files.arrays.values():
                array[env * rows + place] = 77


def test_a_resumed_replay_samples_the_same_and_goes_on_the_same(tmp_path):
    replay = open_replay(tmp_path)
    sim = simulation_for(replay)
    for _ in range(100):
        replay.extend(sim.step())
    text = io.BytesIO()
    torch.save(replay.state_dict(), text)
    replay.storage.committed()
    steps = [sim.step() for _ in range(20)]

    def go_on(one):
        batches = []
        for step in steps:
            batches.append(one.sample(50).clone())
            one.extend(step)
        return batches

    uninterrupted = go_on(replay)
    text.seek(0)
    other = open_replay(tmp_path, seed=99)
    other.load_state_dict(torch.load(text, weights_only=True))
    assert all((a == b).all() for a, b in zip(uninterrupted, go_on(other), strict=True))
    end = {name: part for name, part in other.storage.state_dict().items() if name != "version"}
    for name, part in replay.storage.state_dict().items():
        assert name == "version" or torch.equal(part, end[name]), name


def test_resumes_that_begin_new_episodes_take_no_rows(tmp_path):
    """However often: without a margin, with the window full, in the middle of episodes."""
    replay = open_replay(tmp_path, margin_env_steps=0)
    sim = simulation_for(replay)
    for _ in range(3 * replay.storage.layout.rows):
        step_and_commit(replay, sim)
    for nth in range(12):
        state = replay.state_dict()
        replay = open_replay(tmp_path, margin_env_steps=0)
        replay.load_state_dict(state)
        replay.storage.abandon_open()
        replay.storage.require_intact("tail" if nth % 2 else "full")
        sim.open = [sim._begin(env) for env in range(3)]
        for _ in range(1 + nth % LONGEST):
            step_and_commit(replay, sim)
        episodes = sim.snapshot()
        assert len(replay) == sum(e.length for e in episodes.values())
        check_batch(replay.sample(100), episodes, stack=3)


def step_and_commit(replay, sim):
    if replay.storage.commit_needed():
        for _ in range(2):
            replay.state_dict()
            replay.storage.flush()
            replay.storage.committed()
    replay.extend(sim.step())
