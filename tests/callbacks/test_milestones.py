"""Phase, milestones and the stop rule: on the study's curves, and in real short runs."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.callbacks.log_points import LogPoints
from fetchlab.callbacks.milestones import Milestones
from fetchlab.callbacks.phases import Phases
from fetchlab.callbacks.progress import EnvStepProgress
from fetchlab.callbacks.stop_rule import StopRule
from fetchlab.config import CONFIGS, ROOT, check, names
from fetchlab.errors import ConfigError
from fetchlab.run import resume, start

RESULTS = ROOT / "docs" / "results"
TABLE = [
    {"at_env_steps": 100, "success_at_least": 0.1},
    {"at_env_steps": 200, "success_at_least": 0.5},
]


class Curve:
    """Drives callbacks through evaluations, as a run does."""

    def __init__(self, *callbacks, pixels=True):
        self.evaluation, self.points = Evaluation(1, 1), LogPoints(1)
        self.phases = Phases("FetchPush-v4", 50, 0.068)
        self.callbacks = [self.phases, *callbacks]
        self.module = SimpleNamespace(agent=SimpleNamespace(vision=object() if pixels else None))
        self.trainer = SimpleNamespace(
            callbacks=[self.evaluation, self.points, *self.callbacks],
            callback_metrics={},
            loggers=[],
            should_stop=False,
            datamodule=SimpleNamespace(env_steps=0, total_env_steps=1000),
        )
        for one in self.callbacks:
            one.setup(self.trainer, self.module, "fit")
            one.on_train_start(self.trainer, self.module)

    def evaluate(self, env_steps, percent, loss=math.nan):
        entry = {"env_steps": env_steps, "success_rate": percent / 100, "episodes": 100}
        self.evaluation.history.append(entry)
        self.points.row = {"train/critic_loss": loss, "eval/success_rate": percent / 100}
        self.points.rows += 1
        self.points.latest.update(self.points.row)
        self.trainer.datamodule.env_steps = env_steps
        for one in self.callbacks:
            one.on_validation_end(self.trainer, self.module)
        return entry


def rule(patience=2.0, pixel_patience=4.0, take_off=1_000_000):
    return StopRule(take_off, patience, pixel_patience)


def cell_a():
    """The study's cell A, env steps and percent."""
    flat = [4, 6, 6, 10, 8, 3, 5, 7, 6, 6, 5, 6, 6, 4, 9, 11, 8, 8, 3, 4]
    flat += [6, 7, 6, 7, 6, 7, 6, 7, 6, 7, 6, 7, 6, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9, 9, 10]
    yield from ((40_000 * (n + 1), one) for n, one in enumerate(flat))
    yield from zip((1_940_000, 1_960_000, 1_980_000), (15, 16, 16), strict=True)
    climb = ((2_130_000, 10), (2_150_000, 15), (2_250_000, 18), (2_400_000, 22), (2_440_000, 30))
    yield from climb


def test_the_default_for_pixels_would_not_have_stopped_cell_a_and_a_states_patience_would(
    compose_run,
):
    node = compose_run("pixel_push_nodrq", "callbacks/extra=[stop_rule]")
    shipped = {**node["callbacks"]["extra"]["stop_rule"]}
    shipped.pop("_target_")
    curve = Curve(StopRule(**shipped))
    for env_steps, percent in cell_a():
        entry = curve.evaluate(env_steps, percent)
        assert not curve.trainer.should_stop, env_steps
    assert entry["phase"] == "climb"
    stopped = Curve(rule(pixel_patience=1.0))
    for env_steps, percent in cell_a():
        stopped.evaluate(env_steps, percent)
        if stopped.trainer.should_stop:
            break
    assert env_steps == 1_000_000


def test_the_rule_counts_from_the_last_climb_and_gives_a_resumed_run_its_patience_again():
    stopping = rule(patience=1.0, take_off=100)
    curve = Curve(stopping, pixels=False)
    for env_steps, percent in ((20, 7), (40, 40), (60, 60), (80, 7), (120, 6)):
        curve.evaluate(env_steps, percent)
    assert [one["phase"] for one in curve.evaluation.history][-2:] == ["collapsed"] * 2
    assert not curve.trainer.should_stop
    curve.evaluate(160, 6)
    assert curve.trainer.should_stop
    assert stopping.stopping_reason_message == (
        "collapsed for 100 env steps, 1 times the 100 after which this task is climbed from the "
        "state"
    )
    resumed = rule(patience=1.0, take_off=100)
    resumed.load_state_dict(stopping.state_dict())
    onward = Curve(resumed, pixels=False)
    onward.evaluation.history += curve.evaluation.history
    onward.evaluate(180, 6)
    assert not onward.trainer.should_stop
    assert resumed.stopping_reason_message is None
    onward.evaluate(260, 6)
    assert onward.trainer.should_stop


def test_a_rule_that_knows_no_take_off_says_so(compose_run):
    with pytest.raises(ConfigError, match=r"take_off_env_steps=None: .*give callbacks\.extra\."):
        rule(take_off=None)
    with pytest.raises(ConfigError, match="take_off_env_steps=0"):
        rule(take_off=0)
    curve = Curve(rule())
    curve.trainer.callbacks.remove(curve.phases)
    with pytest.raises(ConfigError, match="a Phases among them"):
        rule().setup(curve.trainer, curve.module, "fit")


@pytest.mark.parametrize("terminal", [False, True])
def test_green_and_red_are_shown_at_the_evaluation_with_the_phase(terminal):
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=terminal, force_interactive=terminal, width=400, _environ={}
    )
    progress = EnvStepProgress(refresh_s=3600.0, console=console)
    milestones = Milestones(TABLE, None)
    curve = Curve(milestones)
    curve.trainer.callbacks.append(progress)
    progress.on_train_start(curve.trainer, None)
    said = []
    for env_steps, percent in ((50, 7), (100, 30), (200, 31)):
        curve.evaluate(env_steps, percent)
        progress.on_train_epoch_end(curve.trainer, None)
        said.append(milestones.said)
    progress.teardown(curve.trainer, None, "fit")
    assert said[0] == ("", "")
    assert said[1] == ("milestone green: 30.0%, at least 10.0% from 100 env steps on", "green")
    assert said[2][0].startswith("milestone red: 31.0%, at least 50.0% from 200 env steps on (red")
    assert "patience" in said[2][0] and "2 to 4 times" in said[2][0]
    assert said[2][1] == "red"
    shown = out.getvalue()
    if terminal:
        assert "\x1b[32mmilestone green" in shown
        assert "\x1b[31mmilestone red" in shown
        return
    first, second, third = shown.splitlines()
    assert first.endswith("| eval 7.0% | critic loss nan | phase flat")
    assert second.endswith(
        "| phase climb | milestone green: 30.0%, at least 10.0% from 100 env steps on"
    )
    assert "| phase climb | milestone red: 31.0%" in third
    # Between evaluations the line is about training alone.
    curve.points.row, curve.points.rows = {"train/critic_loss": 1.0}, curve.points.rows + 1
    curve.trainer.datamodule.env_steps = 210
    progress.on_train_batch_end(curve.trainer, None, None, None, 0)
    assert "milestone" not in out.getvalue().splitlines()[-1]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([{"at_env_steps": 5}], "rows of at_env_steps and success_at_least"),
        ([{"at_env_steps": 5, "success_at_least": 1.5}], "success_at_least in [0, 1]"),
        ([{"at_env_steps": "5", "success_at_least": 0.5}], "at_env_steps from 1 on"),
        ([TABLE[1], TABLE[0]], "[200, 100]: expected rows by rising at_env_steps"),
        ([TABLE[0], TABLE[0]], "each env steps once"),
        ([5], "5: expected rows of"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(table, words):
    with pytest.raises(ConfigError) as caught:
        Milestones(table, None)
    assert words in str(caught.value)
    assert str(caught.value).startswith("callbacks.milestones.table=")


def test_each_shipped_table_is_of_its_experiment_alone(compose_run):
    shipped = {*names("milestones")}
    assert {"state_push", "pixel_push_nodrq", "vector_push"} < shipped
    for name in names("experiment"):
        node = compose_run(name)["callbacks"]["milestones"]
        assert bool(node["table"]) == (name in shipped), name
        Milestones(node["table"], node["take_off_env_steps"])
    assert shipped <= {*names("experiment")}
    of = "callbacks.milestones_of=pixel_push_nodrq"
    other = compose_run("pixel_push", of, "callbacks/extra=[stop_rule]")
    check(other)
    assert other["callbacks"]["extra"]["stop_rule"]["take_off_env_steps"] == 1_000_000
    none = compose_run("pixel_push_nodrq", "callbacks.milestones_of=null")
    assert none["callbacks"]["milestones"]["table"] == []
    with pytest.raises(ConfigError, match=r"milestones_of=.nope.: expected an experiment of"):
        check(compose_run("pixel_push", "callbacks.milestones_of=nope"))


@pytest.mark.parametrize(
    ("experiment", "run"),
    [
        ("pixel_push_laptop", "pixel_push_laptop/seed0"),
        ("pixel_push_laptop", "pixel_push_laptop/seed1"),
        ("pixel_push_laptop", "pixel_push_laptop/seed2"),
        ("pixel_push_laptop_critic", "pixel_push_laptop_critic/seed0"),
        ("pixel_push_laptop_critic", "pixel_push_laptop_critic/seed2"),  # the slowest of three
        ("pixel_push_laptop_critic", "pixel_push_strict_gpu_critic/seed0"),
        ("vector_push_laptop", "vector_push_laptop/seed0"),
        ("state_push_fast", "state_push_fast/seed2"),  # the slowest of three
        ("vector_push", "vector_push/seed2"),
    ],
)
def test_recorded_runs_are_green_at_every_milestone(experiment, run):
    node = yaml.safe_load((CONFIGS / "milestones" / f"{experiment}.yaml").read_text())
    milestones = Milestones(**node)
    curve = Curve(milestones)
    verdicts = []
    for entry in json.loads((RESULTS / run / "evaluation.json").read_text()):
        curve.evaluate(entry["env_steps"], 100 * entry["success_rate"])
        verdicts.append(milestones.said[1])
    assert {*verdicts} == {"", "green"}


RUN = (
    *("debug=default", "trainer=cpu", "total_env_steps=400", "task.max_episode_steps=10"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=40"),
    *("callbacks.log_every_env_steps=60", "callbacks.evaluation.every_env_steps=60"),
    *("callbacks.evaluation.episodes=2", "replay.capacity=400", "replay.margin_env_steps=100"),
    "callbacks/extra=[stop_rule]",
    "callbacks.extra.stop_rule.take_off_env_steps=60",  # nothing succeeds in 10 steps
    "callbacks.milestones.table=[{at_env_steps: 60, success_at_least: 0.5}]",
)


def test_a_run_is_stopped_with_a_reason_and_goes_on_when_it_is_resumed(
    compose_run, tmp_path, capsys
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    summary = start(compose_run("state_reach", *RUN, f"run_dir={whole}"))
    assert (summary["status"], summary["env_steps"]) == ("stopped", 120)
    assert summary["phase"] == "flat"
    assert summary["stop_reason"].startswith("callback StopRule: flat for 120 env steps, 2 times")
    said = capsys.readouterr().out
    assert f"stopped by {summary['stop_reason']} at 120 env steps; to continue: " in said
    assert (
        " | phase flat | milestone red: 0.0%, at least 50.0% from 60 env steps on (red asks" in said
    )
    entries = json.loads((whole / "evaluation.json").read_text())
    assert [one["phase"] for one in entries] == ["flat"] * 2
    assert all(one["critic_loss"] > 0 for one in entries)
    with (whole / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["eval/phase"] for row in rows] == ["0", "0"]
    assert [float(row["train/critic_loss"]) for row in rows] == [
        one["critic_loss"] for one in entries
    ]
    # In two processes it stops at the same place, with the same files.
    start(compose_run("state_reach", *RUN, "total_env_steps=60", f"run_dir={cut}"))
    assert resume(cut, {"total_env_steps": 400}, force=False)["env_steps"] == 120
    assert (cut / "evaluation.json").read_text() == (whole / "evaluation.json").read_text()
    # Resumed, it has its patience once more.
    again = resume(cut, {}, force=False)
    assert (again["status"], again["env_steps"], again["phase"]) == ("stopped", 240, "flat")


def test_hydra_prints_the_table_that_a_run_will_have():
    command = [sys.executable, "src/train.py", "experiment=vector_push", "--cfg", "job"]
    done = subprocess.run([*command, "--resolve"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    printed = yaml.safe_load(done.stdout)["callbacks"]["milestones"]
    shipped = yaml.safe_load((CONFIGS / "milestones" / "vector_push.yaml").read_text())
    assert {key: printed[key] for key in shipped} == shipped
