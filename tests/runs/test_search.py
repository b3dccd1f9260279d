"""Searches: spaces, proposals and verdicts without training, and a study that is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from known_specs import PUSH

from fetchlab import schema
from fetchlab.algos.sac import SAC
from fetchlab.build import build_module
from fetchlab.checkpoint.safe_config import AllowedTargets
from fetchlab.config import typed
from fetchlab.conform import Conform, instance
from fetchlab.errors import ConfigError
from fetchlab.search import JOURNAL, Study, run_search
from fetchlab.search_space import check_space, compose
from fetchlab.sweep import Planned, folder_name

ROOT = Path(__file__).parents[2]
SEARCHES = sorted(file.stem for file in (ROOT / "configs" / "sweep" / "search").glob("*.yaml"))
NO_OPTUNA = "Optuna (the extra fetchlab[optuna]) is not installed"
needs_optuna = pytest.mark.skipif(not importlib.util.find_spec("optuna"), reason=NO_OPTUNA)
LR = {"low": 1e-4, "high": 1e-2, "log": True}
TINY = (
    *("debug=default", "trainer=cpu", "trainer.threads=1", "collect.workers=1"),
    *("task.max_episode_steps=5", "collect.n_envs=2", "collect.learning_starts=20"),
    *("replay.capacity=30", "replay.margin_env_steps=30", "algo.batch_size=3"),
    *("total_env_steps=60", "callbacks.evaluation.every_env_steps=20"),
    "callbacks.evaluation.episodes=2",
)


def asked(**changes):
    given = {"trials": 4, "seed": 0, "startup_trials": 2, "metric": "success_rate", "of": "last"}
    given |= {"direction": "maximize", "pruner": None, "space": {"algo.lr": LR}, **changes}
    Conform(schema.Search, AllowedTargets(frozenset())).check(given, schema.Search, "search")
    return instance(schema.Search, given)


@pytest.fixture
def base(compose_run, tmp_path):
    """The run that a search varies."""

    def make(search=None, launcher="fetchlab.launchers.local.Local", overrides=TINY):
        cfg = compose_run("state_reach", *overrides)
        command = ("experiment=state_reach", *overrides, "hydra.mode=RUN")
        start = schema.Start(None, False, schema.Paths(None), {"_target_": launcher}, search)
        return Planned(cfg, tmp_path / "study" / folder_name(cfg), command, start)

    return make


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_composes_and_its_runs_build(compose_run, base, name):
    loaded = yaml.safe_load((ROOT / "configs" / "sweep" / "search" / f"{name}.yaml").read_text())
    asked(**loaded["search"])
    experiment = loaded["hydra"]["sweeper"]["params"]["experiment"]
    cfg = compose_run(experiment, f"sweep=search/{name}")
    assert "search" not in cfg and cfg["total_env_steps"] == loaded["total_env_steps"]
    command = (f"experiment={experiment}", f"sweep=search/{name}", "hydra.mode=RUN")
    check_space(Planned(cfg, Path("x"), command, None), loaded["search"]["space"])
    assert isinstance(build_module(typed(cfg), PUSH), SAC)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({}, "search.space={}: expected one key or more"),
        ({"algo.lr": 3}, "search.space.algo.lr=3: expected the keys low, high, log"),
        ({"algo.lr": {**LR, "log": 1}}, "search.space.algo.lr.log=1: expected true or false"),
        ({"algo.lr": {"low": 1e-4, "log": True}}, "search.space.algo.lr.high=None: expected a num"),
        ({"algo.lr": {**LR, "hi": 3}}, "search.space.algo.lr.hi=3: expected a key that something"),
        (
            {"algo.lr": {**LR, "low": 1.0}},
            "search.space.algo.lr.high=0.01: expected a number above",
        ),
        ({"algo.lr": {**LR, "low": 0}}, "search.space.algo.lr.low=0: expected a number above 0"),
        ({"algo.lr": {**LR, "low": -1, "log": False}}, "lr=-1: expected 0 or more"),
        ({"algo.lrr": LR}, "did you mean algo.lr?"),
        ({"encoder": {"choices": []}}, "search.space.encoder.choices=[]: expected one value or"),
        ({"algo.hidden": {"choices": [[8, 8]]}}, "expected one value or more, each a number"),
        ({"pooling": {"choices": ["none_such", "flatten_linear"]}}, "none_such"),
        ({"algo.batch_size": {"choices": [2, 0, 4]}}, "algo.batch_size=0: expected a positive"),
    ],
    ids=str,
)
def test_a_bad_space_is_one_line_before_anything_starts(base, space, says):
    fixed = [one for one in TINY if not one.startswith("algo.batch_size")]
    with pytest.raises(ConfigError) as error:
        check_space(base(overrides=fixed), space)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_what_is_given_is_not_searched_and_other_launchers_are_refused(base):
    with pytest.raises(ConfigError, match=r"expected no value beside search\.space; leave it out"):
        check_space(base(), {"algo.batch_size": {"choices": [2, 4]}})
    with pytest.raises(ConfigError, match="expected launcher=local for a search"):
        run_search([base(asked(), "fetchlab.launchers.slurm.Slurm")])
    with pytest.raises(ConfigError, match="sweep='2 runs': expected one value of each key"):
        run_search([base(asked())] * 2)


def test_a_folder_of_configurations_is_known_to_trials(base, tmp_path):
    (tmp_path / "own, $1" / "sweep").mkdir(parents=True)
    file = tmp_path / "own, $1" / "sweep" / "mine.yaml"
    file.write_text("# @package _global_\nalgo: {discount: 0.5}\n")
    (tmp_path / "relabel").mkdir()
    (tmp_path / "relabel" / "mine.yaml").write_text("_target_: mine\n")
    known = base()
    flags = ("--config-dir", str(file.parents[1]), "sweep=mine")
    flags += (f"hydra.searchpath=[file://{tmp_path}]", "relabel=mine")
    cfg = compose(Planned(known.cfg, known.folder, (*flags, *known.overrides), None), ["seed=3"])
    assert (cfg["algo"]["discount"], cfg["relabel"]["_target_"]) == (0.5, "mine")
    assert (cfg["seed"], cfg["total_env_steps"]) == (3, 60)


def command(*overrides, python_path=()):
    path = os.pathsep.join([*map(str, python_path), str(ROOT / "src")])
    return subprocess.Popen(
        [sys.executable, ROOT / "src/train.py", "-m", *overrides],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_without_optuna_one_line_names_the_extra(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ModuleNotFoundError('No module named optuna')")
    search = command("sweep=search/reach", f"run_dir={tmp_path / 'study'}", python_path=[tmp_path])
    said, warned = search.communicate()
    assert (search.returncode, said) == (2, "")
    assert warned == (
        "error: search='Optuna': expected an installed package; pip install -e '.[optuna]'\n"
    )
    assert not (tmp_path / "study").exists()


class CutError(Exception):
    """The process ends here."""


def play(base, curve_of, cut_at=None):
    """Run a search whose runs are written instead of trained; ``cut_at``: trial and evaluation."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    base.folder.parent.mkdir(exist_ok=True)
    search = Study(base, base.asked.search, optuna, 2)
    for job in search.jobs():
        lr = float(re.findall(r"algo\.lr=(\S+)", " ".join(job.command))[-1])
        job.folder.mkdir(exist_ok=True)
        number, curve = len(search._study.trials) - 1, []
        for n, rate in enumerate(curve_of(lr)):
            curve.append({"env_steps": 20 * (n + 1), "success_rate": rate, "return": -lr})
            (job.folder / "evaluation.json").write_text(json.dumps(curve))
            if cut_at == (number, n):
                search._open[-1].trial.report(rate, curve[-1]["env_steps"])  # and no verdict yet
                raise CutError
            if search.prunes(job):
                break
        whole = {"status": "finished", "env_steps": curve[-1]["env_steps"]}
        (job.folder / "summary.json").write_text(json.dumps(whole))
        search.end(job, 0, stopped=False)
    return search, json.loads((base.folder.parent / "study.json").read_text())


def rates(lr):
    """Better towards 1e-3."""
    return [round(n / 3 * (1 - abs(lr - 1e-3) * 50), 2) for n in (1, 2, 3)]


PRUNER = {"startup_trials": 2, "warmup_env_steps": 20}


@needs_optuna
def test_a_cut_changes_no_trial_and_no_verdict(base, tmp_path):
    made = base(asked(trials=8, pruner=PRUNER))
    _, whole = play(made, rates)
    states = [one["state"] for one in whole["trials"]]
    assert len(states) == 8 and {*states} == {"complete", "pruned"}
    values = {one["number"]: one["value"] for one in whole["trials"] if one["state"] == "complete"}
    assert whole["best"]["value"] == max(values.values())
    assert {one["env_steps"] for one in whole["trials"] if one["state"] == "pruned"} <= {20, 40}
    assert whole["importances"] == {"algo.lr": 1.0}
    pruned = states.index("pruned")
    before_its_verdict = whole["trials"][pruned]["env_steps"] // 20 - 1
    (tmp_path / "study").rename(tmp_path / "whole")
    for cut_at in ((pruned, before_its_verdict), (7, 0)):
        with pytest.raises(CutError):
            play(made, rates, cut_at)
    with (tmp_path / "study" / JOURNAL).open("a") as file:
        file.write('{"op_code": 4, "tri')  # the last breath of a killed process
    (tmp_path / "study" / f"{JOURNAL}.lock").symlink_to(tmp_path / "study" / JOURNAL)
    began = time.monotonic()
    assert play(made, rates)[1] == whole
    assert time.monotonic() - began < 30  # that lock would hold for so long
    assert play(made, rates)[1] == whole  # which has ended
    assert len(play(base(asked(trials=9, pruner=PRUNER)), rates)[1]["trials"]) == 9
    with pytest.raises(
        ConfigError, match=r"it differs in search\.seed: 0 -> 1; give another run_dir"
    ):
        play(base(asked(trials=9, pruner=PRUNER, seed=1)), rates)


@needs_optuna
def test_equal_trials_are_told_apart_and_equal_runs_trained_once(base, compose_run):
    made = base(asked(trials=4, space={"algo.lr": {"choices": [1e-3, 2e-3]}}))
    _, study = play(made, lambda lr: [0.5] * 3)
    assert [one["value"] for one in study["trials"]] == [0.5] * 4
    assert len({one["run"] for one in study["trials"]}) == 2
    assert study["best"]["overrides"] == ["algo.lr=0.001"]  # whose return is higher
    assert study["best"]["command"] == shlex.join(
        ["python", "src/train.py", "experiment=state_reach"]
        + [one for one in TINY if not one.startswith(("debug", "total"))]
        + ["algo.lr=0.001"]
    )
    experiment, *others = shlex.split(study["best"]["command"])[2:]
    full = compose_run(experiment.partition("=")[2], *others)
    assert (full["total_env_steps"], full["algo"]["lr"]) == (6_000, 0.001)


@needs_optuna
@pytest.mark.parametrize(
    ("of", "direction", "expected"),
    [
        ("last", "maximize", 0.2),
        ("best", "maximize", 0.6),
        ("mean", "maximize", 0.4),
        ("best", "minimize", 0.2),
    ],
)
def test_what_a_curve_is_worth(base, of, direction, expected):
    _, study = play(base(asked(trials=1, of=of, direction=direction)), lambda lr: [0.4, 0.6, 0.2])
    assert study["best"]["value"] == pytest.approx(expected)


@needs_optuna
def test_a_search_that_is_killed_goes_on_and_outlives_failures(tmp_path):
    """Two of the trials cannot be built: their targets take 4 of 2 critics."""
    space = {"algo.lr": LR, "algo.target_subset": {"choices": [1, 4]}}
    given = {"trials": 4, "seed": 1, "startup_trials": 4, "metric": "return", "of": "last"}
    given |= {"direction": "maximize", "pruner": None, "space": space}
    file = tmp_path / "configs" / "sweep" / "mine.yaml"
    file.parent.mkdir(parents=True)
    params = {"hydra": {"sweeper": {"params": {"experiment": "state_reach"}}}}
    file.write_text("# @package _global_\n" + yaml.safe_dump({**params, "search": given}))
    study = tmp_path / "study"
    line = ("--config-dir", str(file.parents[1]), "sweep=mine", *TINY, f"run_dir={study}")
    first = command(*line)
    while not any(study.glob("*/checkpoints/step_000000020")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    first.kill()
    first.communicate()
    (cut,) = [one for one in study.glob("*_s0") if not (one / "summary.json").exists()]
    again = command(*line)
    said, warned = again.communicate()
    assert again.returncode == 1, warned
    assert warned == "error: 2 of the trials failed; the same command draws others in their place\n"
    assert "1 to go on with" in said and "algo.target_subset=4: expected null or from 1 to" in said
    found = json.loads((study / "study.json").read_text())
    states = [one["state"] for one in found["trials"]]
    assert sorted(states) == ["complete", "complete", "fail", "fail"]
    runs = [study / one["run"] for one in found["trials"] if one["state"] == "complete"]
    assert cut in runs and (cut / "output.log").read_text().count("\nlength ") == 2
    for run in runs:
        summary = json.loads((run / "summary.json").read_text())
        assert (summary["status"], summary["env_steps"]) == ("finished", 60)
        assert any((run / "checkpoints").glob("step_000000060")) and (run / "replay").is_dir()
    assert study / found["best"]["run"] in runs and found["best"]["command"] in said
    assert "--config-dir" in found["best"]["command"]


@needs_optuna
@pytest.mark.full
def test_twelve_trials_of_reach(tmp_path):
    line = ("sweep=search/reach", "trainer=cpu", "trainer.threads=1", f"run_dir={tmp_path}")
    first = command(*line)
    while len([*tmp_path.glob("*/summary.json")]) < 5 or not _cut(tmp_path):
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)
    first.kill()
    first.communicate()
    again = command(*line)
    said, warned = again.communicate()
    assert again.returncode == 0, warned
    found = json.loads((tmp_path / "study.json").read_text())
    states = [one["state"] for one in found["trials"]]
    assert len(states) == 12 and {*states} <= {"complete", "pruned"}
    assert all(any((tmp_path / one["run"]).glob("checkpoints/step_*")) for one in found["trials"])
    assert f"best      trial {found['best']['number']}: " in said


def _cut(study):
    runs = [one for one in study.glob("*_s0") if not (one / "summary.json").exists()]
    return [one for one in runs if any(one.glob("checkpoints/step_*[1-9]*"))]
