"""Sizes, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fetchlab.errors import ConfigError
from fetchlab.replay.layout import Layout, ReplaySize, RowSpec, plan_layout

RGB84 = RowSpec(25, 3, 4, stores_goal=False, pixels_shape=(3, 84, 84))
STATE = RowSpec(25, 3, 4, stores_goal=False, pixels_shape=None)
CELL_A = ReplaySize(
    n_envs=4,
    max_episode_steps=50,
    capacity=500_000,
    total_env_steps=2_000_000,
    margin_env_steps=40_000,
)


def test_bytes_by_hand():
    layout = plan_layout(RGB84, CELL_A)
    row = 84 * 84 * 3 + 4 * (25 + 3 + 4) + 1
    assert layout.row_bytes() == row == 21_297
    # 125,000 transitions and 2,500 final rows per environment, an episode in progress (50 + 6),
    # and a margin of 10,000 transitions with 200 final rows.
    assert layout.window_steps == 125_000
    assert layout.window_rows == 127_500
    assert layout.rows == 127_500 + 56 + 10_200
    assert layout.bytes_per_transition() == pytest.approx(row * 51 / 50)
    assert layout.bytes_per_transition() <= 22_000
    assert layout.disk_bytes() == 4 * 137_756 * row
    assert set(plan_layout(STATE, CELL_A).arrays) == set(layout.arrays) - {"pixels"}


def test_a_short_run_stays_small_whatever_its_margin():
    layout = plan_layout(RGB84, replace(CELL_A, total_env_steps=2_000))
    # 500 steps per environment are at most 1,000 rows and two more; no margin can be of use.
    assert layout.rows == 1_002
    assert layout.disk_bytes() == 4 * 1_002 * 21_297
    tiny = plan_layout(RGB84, replace(CELL_A, total_env_steps=1, margin_env_steps=0))
    assert tiny.window_rows == 51, "one whole episode fits, or nothing could ever be sampled"


def test_the_layout_survives_its_file():
    for layout in (plan_layout(RGB84, CELL_A), plan_layout(STATE, CELL_A)):
        assert Layout.from_json(layout.to_json()) == layout
    with pytest.raises(ValueError, match="format"):
        Layout.from_json('{"format": 7}')


def test_a_window_without_room_for_an_episode_of_each_environment_is_refused():
    message = "replay.capacity=199: expected at least .* = 200 transitions"
    with pytest.raises(ConfigError, match=message):
        replace(CELL_A, capacity=199)
