"""A factorial found from configurations, its effects by hand, and the study's table of patterns."""

from __future__ import annotations

import numpy as np
import pytest

from fetchlab.config import config_hash
from fetchlab.report import factorial, study
from fetchlab.report.factorial import Effect, Factor, Factorial
from fetchlab.report.groups import Group, group_runs
from fetchlab.report.runs import StoredRun

FLAT = 0.06


def run(cfg, seed, level, steps=(10, 20, 30, 40)):
    """A run at chance that ends at ``level``."""
    success = np.full(len(steps), FLAT)
    success[1:] = level
    episodes = np.full(len(steps), 100)
    config = {**cfg, "seed": seed}
    return StoredRun(
        ".", config, config_hash(config), np.array(steps), success, episodes, {}, {"env_steps": 40}
    )


def design(cells, levels):
    """The groups of the cells whose seeds end at ``levels``, and the factorial behind them."""
    runs = [
        run(cells[letter], seed, level)
        for letter, seeds in levels.items()
        for seed, level in enumerate(seeds)
    ]
    groups = group_runs(runs)
    return groups, factorial.find_factorial(groups)


def verdict(cells, levels):
    _, found = design(cells, levels)
    return " ".join(study.judged(found, study.lettered(found), factorial.at_the_end(found)))


FLATS, LEARNED = [FLAT, 0.05, 0.07], [0.9, 0.92, 0.88]


def test_the_studys_cells_are_found(cells):
    _, found = design(cells, dict.fromkeys("ABCD", FLATS))
    assert {factor.keys for factor in found.factors} == {("pooling",), ("augment",)}
    values = {str(factor): factor.values for factor in found.factors}
    assert values == {
        "pooling": ("FlattenLinear", "SpatialSoftmax"),
        "augment": ("NoAugment", "RandomShift"),
    }
    letters = {found.cells[cell].label: letter for letter, cell in study.lettered(found).items()}
    assert letters == {
        "pixel_push_nodrq": "A",
        "pixel_push_nodrq_noss": "B",
        "pixel_push_noss": "C",
        "pixel_push": "D",
    }


def test_keys_that_change_together_are_one_choice(cells):
    slow = {**cells["A"], "algo": {**cells["A"]["algo"], "lr": 0.001, "tau": 0.1}}
    wide = {**cells["A"], "collect": {**cells["A"]["collect"], "n_envs": 8}}
    both = {**wide, "algo": slow["algo"]}
    four = {"a": cells["A"], "b": slow, "c": wide, "d": both}
    _, found = design(four, dict.fromkeys(four, FLATS))
    keys = {factor.keys for factor in found.factors}
    assert keys == {("algo.tau", "algo.lr"), ("collect.n_envs",)}
    assert study.lettered(found) is None


@pytest.mark.parametrize("letters", ["A", "AB", "AD"])
def test_few_cells_are_no_factorial(cells, letters):
    assert design(cells, dict.fromkeys(letters, FLATS))[1] is None


def test_unrelated_configurations_are_no_factorial(cells, compose_run):
    others = {"s": compose_run("state_push"), "v": compose_run("vector_push")}
    assert design({**cells, **others}, dict.fromkeys("ACsv", FLATS))[1] is None


def test_what_a_partly_finished_sweep_lacks_is_said(cells):
    _, found = design(cells, dict.fromkeys("ABC", FLATS))
    lacks = found.lacks()
    assert lacks.startswith("no evaluation of ") and "pooling=SpatialSoftmax" in lacks
    assert "augment=RandomShift" in lacks and ";" not in lacks
    begun = [run(cells["D"], 0, FLAT, steps=())]
    groups = group_runs([*(one for g in found.cells.values() for one in g.runs), *begun])
    assert factorial.find_factorial(groups).lacks() == lacks
    other_steps = [run(cells["D"], 0, FLAT, steps=(15, 25))]
    groups = group_runs([*(one for g in found.cells.values() for one in g.runs), *other_steps])
    assert factorial.find_factorial(groups).lacks() == "no evaluation that all seeds share"


def test_effects_by_hand():
    factors = [Factor(("p",), ("off", "on")), Factor(("q",), ("off", "on"))]
    scores = {(0, 0): [0.1, 0.3], (0, 1): [0.2], (1, 0): [0.9, 0.7], (1, 1): [0.4]}
    scores = {cell: np.array(seeds) for cell, seeds in scores.items()}
    cells = {cell: Group("", []) for cell in scores}
    p, q, both = factorial.effects(Factorial(factors, cells), scores)
    # Means 0.2, 0.2, 0.8, 0.4: p (0.6 + 0.2) / 2, q (0 - 0.4) / 2.
    assert (p.estimate, q.estimate) == pytest.approx((0.4, -0.2))
    # q's effect with p less q's without: -0.4 - 0.
    assert both.estimate == pytest.approx(-0.4)
    # Drawn anew the two cells of two seeds have means 0.1 to 0.3 and 0.7 to 0.9.
    assert (p.low, p.high) == pytest.approx((0.3, 0.5))
    assert (both.low, both.high) == pytest.approx((-0.6, -0.2))
    assert (p.told, q.told, both.told) == ("helps", "harms", "they get in each other's way")
    assert Effect("", 0.1, -0.1, 0.3).told == "cannot be told from none"


@pytest.mark.parametrize(
    ("high", "row"),
    [
        ("A", "A >> B ~ C ~ D: SpatialSoftmax needs clean coordinates"),
        ("B", "B >> A ~ C ~ D: neither DrQ nor SpatialSoftmax alone works"),
        ("AB", "A ~ B >> C ~ D: DrQ is the poison"),
        ("C", "C >> A ~ B ~ D: SpatialSoftmax is the poison"),
        ("", "A ~ B ~ C ~ D: all flat"),
    ],
)
def test_each_row_of_the_table_is_told(cells, high, row):
    levels = {one: LEARNED if one in high else FLATS for one in "ABCD"}
    assert verdict(cells, levels).startswith(f"The data support {row}")


def test_all_learned_alike_is_not_all_flat(cells):
    told = verdict(cells, dict.fromkeys("ABCD", LEARNED))
    assert told.startswith("The data support no row of the table")


def test_three_that_learned_are_no_row(cells):
    levels = {one: FLATS if one == "D" else LEARNED for one in "ABCD"}
    assert verdict(cells, levels).startswith("The data support no row of the table; the means are")


def test_one_lucky_seed_does_not_suffice(cells):
    levels = {**dict.fromkeys("BCD", FLATS), "A": [FLAT, FLAT, 0.95]}
    told = verdict(cells, levels)
    assert told.startswith("The data do not suffice: still possible is A >> B ~ C ~ D")
    assert "Undecided: A - B = +30 (-1 to +88)" in told


def test_two_seeds_do_not_suffice(cells):
    levels = {**dict.fromkeys("BCD", FLATS), "A": [0.9, 0.92]}
    told = verdict(cells, levels)
    assert told.startswith("The data do not suffice: 2 seeds in the smallest cell")
    assert "The means alone look like A >> B ~ C ~ D; that is no evidence." in told
