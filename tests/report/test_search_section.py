"""A study's section of the page, from its file alone: no Optuna is needed."""

from __future__ import annotations

import json

import pytest
from stored import store

from fetchlab.config import config_hash
from fetchlab.report import page
from fetchlab.report.groups import group_runs
from fetchlab.report.runs import find_runs, read_runs
from fetchlab.report.search import STUDY, of_searches


def trial(number, state, value, lr, **more):
    found = {"number": number, "state": state, "value": value, "params": {"algo.lr": lr}}
    return {**found, "return": None, "run": f"r{number}", "cause": None, "overrides": [], **more}


@pytest.fixture
def study(tmp_path, compose_run):
    """Four trials: two whole, one pruned, one failed."""
    cfg = compose_run("state_push")
    for number in range(3):
        store(tmp_path / f"r{number}", {**cfg, "seed": number}, [0.1, 0.2 * number])
    trials = [
        trial(0, "complete", 0.25, 1e-3, **{"return": -40.0}),
        trial(1, "pruned", 0.1, 0.00123456),
        trial(2, "complete", 0.75, 2e-3, **{"return": -20.5, "overrides": ["algo.lr=0.002"]}),
        trial(3, "fail", None, 3e-3, cause="the disk | is full", run=None),
    ]
    best = {**trials[2], "command": "python src/train.py experiment=state_push algo.lr=0.002"}
    found = {"metric": "success_rate", "of": "mean", "direction": "maximize", "best": best}
    found |= {"experiment": "state_push", "total_env_steps": 20_000, "trials": trials}
    found |= {"importances": {"algo.lr": 0.75, "algo.utd_ratio": 0.25}}
    (tmp_path / STUDY).write_text(json.dumps(found))
    return tmp_path


def drawn(folder, out):
    folders = find_runs("runs", str(folder))
    runs, _ = read_runs(folders, config_hash)
    searches, notes = of_searches(folders)
    html, markdown = page.write(out, page.of_runs(group_runs(runs), notes, [], searches))
    return html.read_text(), markdown.read_text(), notes


def test_a_study_is_a_section_of_the_report(study, tmp_path):
    (tmp_path / "out").mkdir()
    html, text, notes = drawn(study, tmp_path / "out")
    assert notes == []
    assert "## Search: maximize mean success_rate of state_push" in text
    assert (
        "- The best of 2 whole trials is number 2: mean success_rate 0.75 with algo.lr=0.002."
        in text
    )
    assert "python src/train.py experiment=state_push algo.lr=0.002" in text
    assert f"python src/train.py resume={study / 'r2'} total_env_steps=M" in text
    assert "| 1 | pruned | 0.1 | - | 0.001235 | r1 |" in text
    assert "| 3 | failed: the disk \\| is full | - | - | 0.003 | - |" in text
    assert "| algo.lr | 75 % |" in text and "| algo.utd_ratio | 25 % |" in text
    assert html.count("Each trial, and the best so far") == 1
    assert "<td>failed: the disk | is full</td>" in html


def test_a_search_that_has_just_begun(study, tmp_path):
    begun = json.loads((study / STUDY).read_text())
    begun |= {"best": None, "importances": {}, "trials": [trial(0, "running", None, 1e-3)]}
    (study / STUDY).write_text(json.dumps(begun))
    (tmp_path / "out").mkdir()
    html, text, _ = drawn(study, tmp_path / "out")
    assert "No trial has ended with a value yet." in text and "| 0 | running | - |" in text
    assert "Importance of the parameters" not in text and "best so far" not in html


@pytest.mark.parametrize("content", ["{", "[]", '{"trials": []}'])
def test_a_study_that_cannot_be_read_is_one_line(study, tmp_path, content):
    (study / STUDY).write_text(content)
    (tmp_path / "out").mkdir()
    html, text, (note,) = drawn(study, tmp_path / "out")
    assert f"{study / STUDY} cannot be read, and is left out" in note and "\n" not in note
    assert note in text and 'class="search"' not in html
