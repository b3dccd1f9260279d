"""What the storage refuses, protects and detects."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
import torch
from replay_oracle import LONGEST, Simulation, check_batch, filled, open_replay, saved

from fetchlab.errors import ConfigError
from fetchlab.replay.files import ReplayError


def test_rows_of_the_two_newest_checkpoints_cannot_be_overwritten(tmp_path):
    replay, sim = filled(tmp_path, steps=0)
    saved(replay), saved(replay)
    rows = replay.storage.layout.rows
    warned_at = None
    with pytest.raises(ReplayError, match="commit a checkpoint"):
        for _ in range(2 * rows):
            if warned_at is None and replay.storage.commit_needed():
                warned_at = replay.storage._cursor.max()
            replay.extend(sim.step())
    # The first checkpoint needs row 0 (episodes begin there), so row R may not be written.
    assert rows - 2 <= replay.storage._cursor.max() < rows
    assert rows - 7 <= warned_at < replay.storage._cursor.max()
    saved(replay)
    assert replay.storage.commit_needed(), "the second newest checkpoint still needs row 0"
    saved(replay)
    assert not replay.storage.commit_needed()
    replay.extend(sim.step())


def test_a_checkpoint_that_replaces_the_newest_takes_no_protection_from_the_one_before(tmp_path):
    replay, sim = filled(tmp_path, steps=0)
    saved(replay)
    for _ in range(30):
        replay.extend(sim.step())
    once = saved(replay)
    limit, previous = replay.storage.commits.limit.copy(), replay.storage.commits.previous
    replay.storage.replace_commit()
    again = saved(replay)
    np.testing.assert_array_equal(replay.storage.commits.limit, limit)
    np.testing.assert_array_equal(limit, replay.storage.layout.rows)  # row 0 is still needed
    assert replay.storage.commits.previous is previous
    # So that a resume checks every row that was added since the one before.
    states = [once["_storage"], again["_storage"]]
    for name in ("previous_start", "previous_cursor", "cursor"):
        assert torch.equal(*(state[name] for state in states))
    assert (states[0]["previous_cursor"] == 0).all()


def test_a_refused_step_stores_nothing(tmp_path):
    replay, sim = filled(tmp_path)
    before = saved(replay)
    arrays = {name: array.copy() for name, array in replay.storage.files.arrays.items()}
    step = sim.step()
    for change, message in (
        (lambda s: s["action"].__setitem__((1, 0), float("nan")), r"action of environments \[1\]"),
        (lambda s: s["next", "state"].__setitem__((2, 0), float("inf")), r"state of environments"),
        (lambda s: s.set("state", s["state"].double()), "float64"),
        (lambda s: s.set("desired_goal", torch.zeros(3, 1)), r"\(3, 1\) given"),
    ):
        bad = step.clone()
        change(bad)
        with pytest.raises(ValueError, match=message):
            replay.extend(bad)
    after = saved(replay)
    assert torch.equal(before["_storage"]["cursor"], after["_storage"]["cursor"])
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, replay.storage.files.arrays[name])


def test_an_episode_longer_than_announced_is_refused(tmp_path):
    replay = open_replay(tmp_path)
    sim = Simulation(3, 30, 35, fixed_length=LONGEST + 1)
    for _ in range(LONGEST - 1):
        replay.extend(sim.step())
    with pytest.raises(ReplayError, match=r"environments \[0, 1, 2\] go on after 6 steps"):
        replay.extend(sim.step())


def test_nothing_can_be_sampled_before_an_episode_ends(tmp_path):
    replay = open_replay(tmp_path)
    sim = Simulation(3, 30, 35, fixed_length=LONGEST)
    for _ in range(LONGEST - 1):
        replay.extend(sim.step())
    with pytest.raises(RuntimeError, match="learning_starts"):
        replay.sample(1)
    replay.extend(sim.step())
    assert len(replay.sample(8)) == 8
    with pytest.raises(RuntimeError, match="cannot draw 0"):
        replay.sample(0)


def test_a_shortened_file_is_refused_before_mapping(tmp_path):
    replay, _ = filled(tmp_path)
    saved(replay)
    path = tmp_path / "pixels.bin"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 1)
    with pytest.raises(ReplayError, match=rf"pixels.bin: {size:,} bytes expected, {size - 1:,} f"):
        open_replay(tmp_path)
    path.unlink()
    with pytest.raises(ReplayError, match=rf"pixels.bin: {size:,} bytes expected, 0 found"):
        open_replay(tmp_path)


def test_another_layout_is_refused_with_the_difference(tmp_path):
    open_replay(tmp_path)
    with pytest.raises(ReplayError, match="n_envs: 3 on disk, 2 asked for"):
        open_replay(tmp_path, n_envs=2)
    with pytest.raises(ReplayError, match=r"arrays: .*pixels"):
        open_replay(tmp_path, pixels=False)
    (tmp_path / "layout.json").write_text("{}")
    with pytest.raises(ReplayError, match="not a replay layout"):
        open_replay(tmp_path)


def test_existing_rows_are_not_overwritten_by_a_run_that_did_not_load_them(tmp_path):
    _, sim = filled(tmp_path)
    with pytest.raises(ReplayError, match="load its checkpoint first"):
        open_replay(tmp_path).extend(sim.step())


def test_files_left_by_a_kill_during_creation_are_replaced(tmp_path):
    (tmp_path / "pixels.bin").write_bytes(b"half")
    replay, sim = filled(tmp_path)
    check_batch(replay.sample(20), sim.snapshot(), stack=3)


def test_too_little_disk_is_refused_with_both_numbers(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("fetchlab.replay.files.shutil.disk_usage", lambda path: usage)
    with pytest.raises(ReplayError, match=r"needs [\d,]+ bytes of disk, 1,000 are free"):
        open_replay(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fetchlab.replay.files.shutil.disk_usage", lambda path: big)
    big = type("Usage", (), {"free": 10**12})
    monkeypatch.setattr("fetchlab.replay.files.os.posix_fallocate", full)
    with pytest.raises(ReplayError, match="bytes of disk"):
        open_replay(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG, errno.ENOSPC])
def test_a_refused_file_says_the_system_s_reason_and_not_what_is_free(
    tmp_path, monkeypatch, number
):
    def refuse(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fetchlab.replay.files.os.posix_fallocate", refuse)
    with pytest.raises(ReplayError, match=os.strerror(number)) as caught:
        open_replay(tmp_path)
    assert "are free" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_any_flipped_byte_of_a_stored_episode_is_found(tmp_path):
    replay, _ = filled(tmp_path, steps=100)
    state = saved(replay)
    rng = np.random.default_rng(0)
    episodes = replay.storage.window.episodes()
    rows = replay.storage.layout.rows
    for name, array in replay.storage.files.arrays.items():
        for k in rng.integers(0, len(episodes.env), 5):
            env, start, length = (int(part[k]) for part in episodes[:3])
            last = length if name in ("pixels", "state") else length - 1
            row = env * rows + (start + int(rng.integers(0, last + 1))) % rows
            flat = array[row : row + 1].reshape(-1).view(np.uint8)
            at = rng.integers(0, len(flat))
            flat[at] ^= 4
            other = open_replay(tmp_path)
            other.load_state_dict(state)
            bad = other.storage.verify("full")
            assert (bad.env.tolist(), bad.start.tolist()) == ([env], [start]), name
            with pytest.raises(ReplayError, match=f"checksum error in 1 .*env {env} rows {start}"):
                other.storage.require_intact("full")
            flat[at] ^= 4
    other.storage.require_intact("full")


def test_an_episode_in_the_place_of_another_is_found(tmp_path):
    replay = open_replay(tmp_path, n_envs=1)
    sim = Simulation(1, 90, 105, fixed_length=LONGEST)
    for _ in range(2 * LONGEST):
        replay.extend(sim.step())
    for array in replay.storage.files.arrays.values():
        array[7:14] = array[0:7]
    other = open_replay(tmp_path, n_envs=1)
    state = replay.state_dict()
    # The same content has another checksum elsewhere, even when both are taken from the rows.
    first, second = replay.storage.files.checksums(
        np.array([0, 0]), np.array([0, 7]), np.array([LONGEST, LONGEST])
    )
    assert first != second
    other.load_state_dict(state)
    assert other.storage.verify("full").start.tolist() == [7]


def test_tail_covers_what_the_newest_checkpoint_added_and_what_is_in_progress(tmp_path):
    replay = open_replay(tmp_path, n_envs=1)
    sim = Simulation(1, 90, 105, fixed_length=LONGEST)
    for _ in range(4 * LONGEST):
        replay.extend(sim.step())
    saved(replay)
    for _ in range(2 * LONGEST + 3):
        replay.extend(sim.step())
    state = saved(replay)
    states = replay.storage.files.arrays["state"]
    # Episodes begin at rows 0, 7, 14, 21 | 28, 35; the one in progress at 42.
    for row, tail, full in ((21, [], [21]), (28, [28], [28]), (45, [42], [42]), (46, [], [])):
        intact = states[row].copy()
        states[row] += 1
        other = open_replay(tmp_path, n_envs=1)
        other.load_state_dict(state)
        assert other.storage.verify("tail").start.tolist() == tail
        assert other.storage.verify("full").start.tolist() == full
        states[row] = intact


def test_a_state_of_another_replay_is_refused(tmp_path):
    one, _ = filled(tmp_path / "one", steps=10)
    two = open_replay(tmp_path / "two", n_envs=2)
    with pytest.raises(ReplayError, match=r"n_envs\)=\(1, 3\): expected \(1, 2\)"):
        two.load_state_dict(saved(one))


def test_committing_without_a_state_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="save the state first"):
        open_replay(tmp_path).storage.committed()


def test_the_pixel_block_is_reused(tmp_path):
    replay, _ = filled(tmp_path)
    first, second = replay.sample(40), replay.sample(30)
    assert first["pixels"].data_ptr() == second["pixels"].data_ptr()


@pytest.mark.parametrize("stack", [0, LONGEST + 1])
def test_a_stack_longer_than_an_episode_is_refused(tmp_path, stack):
    with pytest.raises(ConfigError, match=rf"obs.frame_stack={stack}: expected between 1 and .*6"):
        open_replay(tmp_path, stack=stack)
