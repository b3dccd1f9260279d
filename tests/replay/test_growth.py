"""A run that is extended gets a larger ring, whatever happens meanwhile."""

from __future__ import annotations

import json

import pytest
from replay_oracle import check_batch, filled, open_replay, saved


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_extended_run_grows_the_ring_and_keeps_every_row(tmp_path, wrapped):
    small = {"total_env_steps": 120, "margin_env_steps": 6, "capacity": 600}
    large = {**small, "total_env_steps": 10_000}
    replay, sim = filled(tmp_path, steps=0, **small)
    old = replay.storage.layout
    commits = []
    cursor = replay.storage._cursor
    while cursor.min() < (270 if wrapped else 30):
        replay.extend(sim.step())
        if replay.storage.commit_needed() or cursor[0] % 20 == 9:
            commits.append((saved(replay), sim.snapshot()))
    commits.append((saved(replay), sim.snapshot()))
    assert (cursor.min() > 4 * old.rows) == wrapped

    # The newest checkpoint grows the ring; the one before then reads the new files as well.
    for state, episodes in reversed(commits[-2:]):
        other = open_replay(tmp_path, **large)
        other.load_state_dict(state)
        other.storage.require_intact("full")
        check_batch(other.sample(60), episodes, stack=3)
        layout = other.storage.layout
        assert layout.window_steps == 200 and layout.rows > 200 > old.rows
        oldest = replay.storage.commits.previous.start
        assert ((oldest < layout.rows) & (layout.rows < cursor)).any() == wrapped
        assert {path.name for path in tmp_path.iterdir()} == {
            "layout.json",
            *(f"{name}.1.bin" for name in layout.arrays),
        }

    grown = open_replay(tmp_path, **large)
    grown.load_state_dict(commits[-1][0])
    sim.steps, sim.rows = layout.window_steps, layout.window_rows
    for step in range(layout.rows):
        if grown.storage.commit_needed():
            saved(grown)
        grown.extend(sim.step())
        if step % 20 == 0:
            check_batch(grown.sample(20), sim.snapshot(), stack=3)
    assert len(grown) > 3 * old.window_steps


def test_a_kill_while_growing_leaves_the_old_replay(tmp_path, monkeypatch):
    replay, sim = filled(tmp_path, steps=30, total_env_steps=60)
    state = saved(replay)
    for function in ("_open_maps", "write_text"):
        other = open_replay(tmp_path, total_env_steps=10_000)
        with monkeypatch.context() as patch:
            patch.setattr(f"fetchlab.replay.files.{function}", _die)
            with pytest.raises(KeyboardInterrupt):
                other.load_state_dict(state)
        assert (tmp_path / "pixels.1.bin").exists(), "it got as far as the new files"
        assert json.loads((tmp_path / "layout.json").read_text())["generation"] == 0
        again = open_replay(tmp_path, total_env_steps=60)
        again.load_state_dict(state)
        again.storage.require_intact("full")
        assert not (tmp_path / "pixels.1.bin").exists()
        check_batch(again.sample(50), sim.snapshot(), stack=3)


def _die(*args):
    raise KeyboardInterrupt


def test_a_run_asked_to_be_shorter_keeps_its_ring(tmp_path):
    replay, sim = filled(tmp_path, steps=60)
    state = saved(replay)
    other = open_replay(tmp_path, total_env_steps=30)
    other.load_state_dict(state)
    assert other.storage.layout == replay.storage.layout
    check_batch(other.sample(50), sim.snapshot(), stack=3)
