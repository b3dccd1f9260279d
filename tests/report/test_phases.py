"""Curves that were read before: the study's, and those in docs/results."""

from __future__ import annotations

import csv
import math
import random
from pathlib import Path

import pytest

from fetchlab.report.phases import MEASURED, chance_level, read_phases
from fetchlab.statistics import score_interval, wilson_interval

RESULTS = Path(__file__).parents[2] / "docs" / "results"
CHANCE = 0.068
#: The study's Run A (cell D), percent of 100 episodes, each 10k env steps.
RUN_A = [4, 6, 4, 4, 7, 9, 4, 6, 10, 3, 10, 5, 6, 9, 10, 9, 7, 8, 3, 9, 7, 7, 2, 3, 8, 5, 8]
#: Its cell A, each 40k env steps up to 800k; rolling means up to 2M, its last points; resumed.
CELL_A = [4, 6, 6, 10, 8, 3, 5, 7, 6, 6, 5, 6, 6, 4, 9, 11, 8, 8, 3, 4]
CELL_A_TO_2M = [6.5, 6.5, 6.5, 8, 8, 8.3, 9.6, 10.3, 15, 16, 16]
#: 2.13M, 2.15M, 2.25M, 2.40M, 2.44M: lowest and highest.
CLIMB = [(7, 14), (13, 17), (15, 20), (18, 26), (25, 34)]


def read(percent, losses=None, episodes=100, chance=CHANCE):
    n = len(percent)
    losses = losses or [math.nan] * n
    return read_phases([one / 100 for one in percent], [episodes] * n, losses, chance)


def recorded(run):
    """Env steps, percent and losses of a run's evaluations."""
    with (RESULTS / run / "metrics.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["eval/success_rate"]]
    loss = [float(row.get("train/critic_loss") or math.nan) for row in rows]
    percent = [100 * float(row["eval/success_rate"]) for row in rows]
    return [int(row["env_steps"]) for row in rows], percent, loss


@pytest.mark.parametrize("slope", [-1e-3, 0.0, 1e-3])
def test_the_studys_run_a_is_flat_whatever_its_loss_does(slope):
    percent = [*RUN_A, *[2, 12] * 63, 3]  # "oscillated 2-12 %" up to 1.54M
    assert len(percent) == 154
    losses = [0.3 + slope * index for index in range(len(percent))]
    assert {*read(percent, losses)} == {"flat"}


def test_cell_a_is_flat_for_long_and_climbs_while_the_study_watched():
    middle = [(low + high) / 2 for low, high in CLIMB]
    alone = read(middle, [0.3, 0.35, 0.4, 0.5, 0.7])
    assert alone == ["climb"] * 5
    before = [*CELL_A, *CELL_A_TO_2M]
    assert {*read(CELL_A)} == {"flat"}
    for resumed in (middle, [low for low, _ in CLIMB], [high for _, high in CLIMB]):
        words = read([*before, *resumed])
        assert words[: len(before) - 4] == ["flat"] * (len(before) - 4)
        assert words[-5:] == ["climb"] * 5


@pytest.mark.parametrize(
    ("experiment", "seed", "began", "said_at", "last"),
    [
        ("pixel_push_laptop", 0, 90_000, 100_000, "climb"),  # 70 % in one leap at 130k
        ("pixel_push_laptop", 1, 60_000, 80_000, "converged"),
        ("vector_push_laptop", 0, 130_000, 140_000, "converged"),
    ],
)
def test_recorded_curves_of_push(experiment, seed, began, said_at, last):
    steps, percent, losses = recorded(f"{experiment}_without_symmetry/seed{seed}")
    words = read(percent, losses)
    at = steps.index(began)
    assert {*words[:at]} == {"flat"}
    assert words[at] == "climb"
    assert words[-1] == last
    assert "collapsed" not in words
    by_then = [read(percent[: n + 1], losses[: n + 1])[-1] for n in range(len(steps))]
    assert by_then.index("climb") == steps.index(said_at)
    assert by_then[steps.index(said_at) :] == words[steps.index(said_at) :]


def test_pixel_reach_and_a_student_are_learned_at_once():
    _, percent, losses = recorded("pixel_reach_laptop/seed0")
    assert read(percent, losses, episodes=50, chance=0.0) == ["climb"] * 2 + ["converged"] * 4
    _, percent, losses = recorded("pixel_push_laptop_student/seed0")
    assert read(percent, losses) == ["climb", "converged", "converged"]


def test_losses_say_nothing_by_themselves():
    falling, rising = [1 / (n + 1) for n in range(40)], [n / 40 for n in range(40)]
    for percent in ([7] * 40, [5 * min(n, 19) for n in range(40)]):
        assert read(percent, falling) == read(percent, rising)


def test_one_evaluation_above_is_heard_with_a_rising_loss_behind_another():
    # (0.068 + 0.0192073 + 1.959964 sqrt(0.00063376 + 0.00009604)) / 1.0384146: 14 of 100 are
    # outside. That end is likelier than 6.8 % from 9.8 % on.
    assert score_interval(CHANCE, 100)[1] == pytest.approx(0.13497, abs=1e-5)
    percent, rising, falling = [7, 7, 7, 10, 14], [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]
    assert read(percent, falling)[-1] == read(percent)[-1] == "flat"
    assert read(percent, rising) == ["flat"] * 3 + ["climb"] * 2
    assert read([7, 7, 7, 9, 14], rising)[-1] == "flat"
    assert read(percent, [1, 2, 3, math.nan, 5])[-1] == "flat"
    assert read([7, 14, 14], falling[:3]) == ["flat", "climb", "climb"]
    assert read([7, 23])[-1] == "flat"  # four standard errors end at 23.8 %
    assert read([7, 24])[-1] == "climb"


def test_noise_at_chance_level_is_called_a_climb_in_few_runs():
    draw = random.Random(0)
    runs = []
    for _ in range(100):
        percent = [sum(draw.random() < CHANCE for _ in range(100)) for _ in range(154)]
        runs.append(read(percent, [draw.random() for _ in percent]))
    assert sum({*words} != {"flat"} for words in runs) <= 3


def test_what_was_reached_and_lost_is_collapsed_and_a_dip_is_not():
    up = [7, 7, 20, 50, 80, 90, 90, 90, 90, 90]
    assert read(up)[-1] == "converged"
    # 90 of 100 is surely 82.6 %; half-way to 6.8 % lies 44.7 %; 35 of 100 is surely below that.
    assert read([*up, 36])[-1] != "collapsed"
    words = read([*up, 34, 7, 60, 88])
    assert words[-4:-2] == ["collapsed"] * 2
    assert words[-1] == "converged"
    assert read([*up[:6], 60])[-1] == "climb"  # it had not converged before


def test_a_plateau_far_from_the_top_converges_once_there_is_enough_evidence():
    words = read([7, 14, 20, 26, 32, *[35] * 50])
    first = words.index("converged")
    assert 20 < first < 50  # a quarter of it has several hundred episodes
    assert {*words[first:]} == {"converged"}
    few = read([7, 30, 30, 30, 30, *[35] * 8], episodes=10)
    assert "converged" not in few


def test_without_a_measured_chance_the_first_evaluation_stands_for_it():
    assert read([10, 9, 11, 12, 20], chance=None) == ["flat"] * 5  # 20 and 10 of 100 can be equal
    assert read([10, 9, 11, 12, 40], chance=None)[-1] == "climb"
    assert read([90, 95, 96], chance=None)[0] == "climb"  # that is no chance
    assert read([0, 0, 3], chance=0.0) == ["flat", "flat", "flat"]
    assert read([0, 8, 8], chance=0.0) == ["flat", "climb", "climb"]
    assert read([100, 100], chance=1.0) == ["flat", "flat"]


def test_no_evaluation_no_word_and_unequal_lengths_are_a_mistake():
    assert read([]) == []
    with pytest.raises(ValueError, match="each evaluation"):
        read_phases([0.5], [100], [], 0.1)


def test_measured_chance_levels():
    for successes, episodes in MEASURED.values():
        assert 0 <= successes <= episodes >= 500
    low, high = wilson_interval(*MEASURED["FetchPush-v4"])
    assert low < CHANCE < high  # an earlier measurement
    push = chance_level("FetchPush-v4", 50)
    assert push is not None
    assert chance_level("FetchPushDense-v4", 50) == push
    assert chance_level("FetchPush-v4", 10) is None
    assert chance_level("PointMaze_UMaze-v3", 50) is None
