"""What a report makes of run folders: finished, running, broken, published."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from stored import climb, store

from fetchlab.config import config_hash
from fetchlab.errors import ConfigError
from fetchlab.report import verdict
from fetchlab.report.differences import NOT_OF_A_GROUP, differing
from fetchlab.report.groups import each_alone, group_runs, one_of_each_seed
from fetchlab.report.levels import cell, reached
from fetchlab.report.runs import find_runs, read_run, read_runs

ROOT = Path(__file__).parents[2]
PUBLISHED = ROOT / "docs" / "results" / "pixel_push_laptop_without_symmetry"


@pytest.fixture(scope="module")
def cfg(compose_run):
    return compose_run("state_push")


def read(folder):
    return read_run(folder, config_hash)


def test_published_runs_are_read_whole():
    folders = find_runs("runs", str(PUBLISHED))
    assert [folder.name for folder in folders] == ["seed0", "seed1", "seed2"]
    runs, lines = read_runs(folders, config_hash)
    assert lines == [] and [run.notes for run in runs] == [[], [], []]
    (group,) = group_runs(runs)
    assert (group.label, [run.seed for run in group.runs]) == ("pixel_push_laptop", [0, 1, 2])
    assert [run.status for run in runs] == ["finished"] * 3
    for run in runs:  # the rates of all rows add up to the time that the run took by its own clock
        assert run.seconds[-1] == pytest.approx(run.summary["wall_time_s"], rel=1e-3)
    curve = group.curve()
    assert (curve.steps[-1], curve.centre[-1]) == (160_000, pytest.approx(0.94))
    assert (curve.low[-1], curve.high[-1]) == pytest.approx((0.91, 0.96))
    assert cell(runs, 0.5) == "110,000 (35 min) to 130,000 (32 min)"
    assert cell(runs, 0.95) == "160,000? (31 min) to 160,000? (48 min) (2 of 3 seeds)"


def test_runs_are_found_below_folders_by_globs_and_in_lists(tmp_path, cfg):
    a, b = store(tmp_path / "x" / "a", cfg, [0.1]), store(tmp_path / "x" / "b", cfg, [0.1])
    store(b / "inside", cfg, [0.1])  # of a run, not a run of its own
    c = store(tmp_path / "y" / "c", cfg, [])
    (tmp_path / "y" / "config.yaml").write_text("not: a run's")
    assert find_runs("runs", str(tmp_path)) == [a, b, c]
    assert find_runs("runs", f"{tmp_path}/*/[ab]") == [a, b]
    assert find_runs("runs", [str(c), str(a), f"{tmp_path}/y"]) == [c, a]
    with pytest.raises(ConfigError, match=r"runs='.*nothing': expected a run's folder"):
        find_runs("runs", [str(a), str(tmp_path / "nothing")])


def test_seeds_are_grouped_and_configurations_named(tmp_path, cfg):
    other = {**cfg, "algo": {**cfg["algo"], "tau": 0.05}}
    store(tmp_path / "0", {**cfg, "seed": 0}, [0.1, 0.2])
    store(tmp_path / "1", {**cfg, "seed": 1, "run_dir": "/elsewhere"}, [0.1, 0.4, 0.9])
    store(tmp_path / "2", {**other, "seed": 0}, [0.3])
    runs, _ = read_runs(find_runs("runs", str(tmp_path)), config_hash)
    groups = group_runs(runs)
    assert {g.label: [r.seed for r in g.runs] for g in groups} == {
        "state_push tau=0.005": [0, 1],
        "state_push tau=0.05": [0],
    }
    seeds = next(group for group in groups if len(group.runs) == 2)
    assert seeds.curve().steps.tolist() == [10_000, 20_000]  # as long as both go
    assert seeds.curve().centre.tolist() == pytest.approx([0.1, 0.3])
    assert [group.label for group in each_alone(runs[:2])] == [
        "state_push seed 0",
        "state_push seed 1",
    ]


def test_a_copy_of_a_run_is_no_second_seed(tmp_path, cfg):
    store(tmp_path / "0", {**cfg, "seed": 0}, [0.1])
    store(tmp_path / "1", {**cfg, "seed": 1}, [0.1, 0.2])
    store(tmp_path / "again", {**cfg, "seed": 0}, [0.1, 0.4])
    shutil.copytree(tmp_path / "1", tmp_path / "copy")
    runs, _ = read_runs(find_runs("runs", str(tmp_path)), config_hash)
    kept, lines = one_of_each_seed(runs)
    assert [run.folder.name for run in kept] == ["1", "again"]
    assert lines == [
        f"left out: {tmp_path}/{left}, {steps} env steps: {tmp_path}/{other} has its configuration "
        "and seed, and 20,000 env steps"
        for left, steps, other in (("0", "10,000", "again"), ("copy", "20,000", "1"))
    ]
    (group,) = group_runs(kept)
    assert "of 2 seeds" in group.centre_and_band()


def test_a_run_that_is_still_running_reads_fine(tmp_path, cfg):
    folder = store(tmp_path / "run", {**cfg, "seed": 2}, [0.06, 0.3], status=None)
    with (folder / "metrics.csv").open("a") as file:
        file.write("25000,0.1,-0.1,")  # a row on its way
    run = read(folder)
    assert (run.notes, run.status, run.env_steps) == ([], "unfinished", 20_000)
    assert "(still running or cut off, 20,000 of 20,000 env steps)" in verdict.of_run(run)
    (folder / "evaluation.json").unlink()
    (folder / "metrics.csv").write_text("env_steps,train/critic_loss,time/env_steps_per_s\n")
    run = read(folder)
    assert (run.notes, run.env_steps, len(run.steps), len(run.seconds)) == ([], 0, 0, 0)
    assert verdict.of_run(run).startswith("nothing to judge: no evaluation in 0 env steps")
    (group,) = group_runs([run])
    assert len(group.curve().steps) == 0


def test_a_summary_that_a_resumed_run_has_left_behind_is_not_its_status(tmp_path, cfg):
    folder = store(tmp_path / "run", cfg, [0.06, 0.3], status="stopped")
    assert verdict.of_run(read(folder)).endswith("(stopped by SIGTERM, 20,000 of 20,000 env steps)")
    told = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**told, "env_steps": 20_400}))
    assert (read(folder).status, read(folder).env_steps) == ("stopped", 20_400)
    (folder / "summary.json").write_text(json.dumps({**told, "env_steps": 10_000}))
    assert read(folder).status == "unfinished"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("evaluation.json", "[{", "Expecting property name"),
        ("evaluation.json", '{"a": 1}', "expected a list of evaluations"),
        ("evaluation.json", '[{"env_steps": 1, "episodes": 5, "success_rate": 7}]', "is none"),
        ("evaluation.json", '[{"env_steps": 1}]', "success_rate"),
        ("metrics.csv", "env_steps,a\n1,2\n2,x\n", "line 3: could not convert"),
        ("metrics.csv", "env_steps,a\n1,2\n2\n", "line 3: 1 cells for 2 columns"),
        ("metrics.csv", "env_steps,a\n5,2\n5,3\n", "its env steps do not increase"),
        ("metrics.csv", "step,a\n5,2\n", "its first column is 'step'"),
        ("summary.json", "null", "expected a mapping"),
        ("summary.json", '{"status": "finished"}', "expected a mapping with env_steps"),
    ],
)
def test_a_broken_file_is_one_line_and_the_rest_is_shown(tmp_path, cfg, name, content, reason):
    folder = store(tmp_path / "run", cfg, [0.1, 0.2])
    (folder / name).write_text(content)
    run = read(folder)
    (note,) = run.notes
    assert note.startswith(f"{folder / name} cannot be read") and reason in note
    assert "\n" not in note
    assert (len(run.steps) > 0) == (name != "evaluation.json")
    assert (run.metrics != {}) == (name != "metrics.csv")
    assert verdict.of_run(run)


def test_a_broken_configuration_leaves_its_run_out_and_the_others_in(tmp_path, cfg):
    store(tmp_path / "a", cfg, [0.1])
    broken = store(tmp_path / "b", cfg, [0.1])
    (broken / "config.yaml").write_text("a: [")
    runs, (line,) = read_runs(find_runs("runs", str(tmp_path)), config_hash)
    assert [run.folder.name for run in runs] == ["a"]
    assert str(broken / "config.yaml") in line and "\n" not in line


def test_one_lucky_evaluation_does_not_reach_a_level(tmp_path, cfg):
    run = read(store(tmp_path / "run", cfg, [0.1, 0.55, 0.2, 0.6, 0.5, 0.3, 0.9]))
    half, high = reached(run, 0.5), reached(run, 0.9)
    assert (half.env_steps, half.seconds, half.confirmed) == (40_000, 800.0, True)  # 50 a second
    assert (high.env_steps, high.confirmed) == (70_000, False)
    assert reached(run, 0.95) is None
    assert (cell([run], 0.5), cell([run], 0.9)) == ("40,000 (13 min)", "70,000? (23 min)")
    assert cell([run], 0.95) == "-"


def test_metrics_between_evaluations_by_hand(tmp_path, cfg):
    run = read(store(tmp_path / "run", cfg, [0.0, 1.0]))
    # Rows at 5,000, 10,000 | 15,000, 20,000: 0.15, 0.05 | 0.15, 0.35.
    assert run.at_evaluations("train/critic_loss").tolist() == pytest.approx([0.1, 0.25])
    assert np.isnan(run.at_evaluations("train/nothing")).all()


def test_only_what_differs_one_row_a_choice(cells):
    rows = {row.key: row.texts for row in differing([*cells.values()], NOT_OF_A_GROUP)}
    assert rows == {
        "pooling": ("SpatialSoftmax", "FlattenLinear", "FlattenLinear", "SpatialSoftmax"),
        "augment": ("NoAugment", "NoAugment", "RandomShift", "RandomShift"),
    }
    a, b = cells["A"], {**cells["A"], "obs": {**cells["A"]["obs"], "frame_stack": 1}}
    assert [(row.key, row.texts) for row in differing([a, b])] == [("obs.frame_stack", ("4", "1"))]
    b = {**a, "encoder": None, "pooling": {**a["pooling"], "temperature": 2.0}}
    texts = {row.key: row.texts for row in differing([a, b])}
    assert texts["encoder"] == ("ManipulationCNN", "null")
    assert texts["pooling.temperature"][1] == "2.0"


PHASES = {
    "flat": ("still at chance: 6 % at 20,000 env steps", [0.06, 0.06]),
    "climb": ("climbing: 40 % at 20,000 env steps, not yet converged", [0.1, 0.4]),
    "collapsed": ("collapsed: 2 % at 30,000 env steps, after 90 % at its best", [0.5, 0.9, 0.02]),
    "converged": (
        "learned: 96 % at 30,000 env steps, converged, above 50 % since 20,000 "
        "(95 % interval 90 to 98 %, 100 episodes)",
        [0.1, 0.9, 0.96],
    ),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_verdict_is_one_sentence(tmp_path, cfg, monkeypatch, phase):
    sentence, success = PHASES[phase]
    monkeypatch.setattr(verdict, "read_phases", lambda success, *_, chance: [phase] * len(success))
    assert verdict.of_run(read(store(tmp_path / "run", cfg, success))).startswith(sentence)


def test_seeds_that_disagree_are_counted(tmp_path, cfg, monkeypatch):
    monkeypatch.setattr(
        verdict,
        "read_phases",
        lambda success, *_, chance: ["converged" if success[-1] > 0.5 else "flat"],
    )
    for seed, rate in enumerate([0.9, 0.95, 0.07]):
        store(tmp_path / f"{seed}", {**cfg, "seed": seed}, [rate])
    store(tmp_path / "3", {**cfg, "seed": 3}, [], status=None)
    (group,) = group_runs(read_runs(find_runs("runs", str(tmp_path)), config_hash)[0])
    assert verdict.of_group(group) == (
        "seeds disagree: 64 % at 10,000 env steps, converged in 2, still at chance in 1 of 3 seeds "
        "(mean of 3 seeds, 95 % bootstrap interval 7 to 95 %); 1 more without an evaluation; "
        "1 still running or cut off"
    )


def test_seeds_that_all_rise_do_not_disagree():
    (group,) = group_runs(read_runs(find_runs("runs", str(PUBLISHED)), config_hash)[0])
    assert {verdict.phases_of(run)[-1] for run in group.runs} == {"climb", "converged"}
    said = "learned: 94 % at 160,000 env steps, converged in 2, climbing in 1 of 3 seeds ("
    assert verdict.of_group(group).startswith(said)


def test_a_folder_that_was_moved_reads_the_same(tmp_path, cfg):
    folder = store(tmp_path / "a", cfg, climb(4, 0.9))
    moved = Path(shutil.move(folder, tmp_path / "b"))
    assert read(moved).env_steps == 160_000
