"""Arguments of `resume=` and of an evaluation: paths as they are, slips in one line; `--help`."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

import train
from fetchlab import config, entry, schema
from fetchlab.checkpoint import find  # noqa: F401  its warnings must outlive Hydra
from fetchlab.fields import kinds_of
from fetchlab.overrides import literal

ROOT = Path(__file__).parents[1]
PATHS = [
    *("a b=c", "it's a $run", "x,y", "[a]", "{a:b}", "~/runs", "é#;()", "a\\", "a\\'b", "'", "12"),
    *("${oc.env:HOME}/x", "\\${x}", 'say "x" y', "a\nb", "%", "", " "),
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_taken_as_they_are(monkeypatch, path):
    seen = []
    monkeypatch.setattr(sys, "argv", ["evaluate.py", f"run={path}", "seed=3", f"checkpoint={path}"])
    entry.launch("evaluate", seen.append, ["run", "checkpoint"])
    assert [(cfg["run"], cfg["seed"], cfg["checkpoint"]) for cfg in seen] == [(path, 3, path)]


def test_null_what_is_quoted_and_a_sweep_are_left_to_hydra(monkeypatch):
    given = ["checkpoint=null", "run='a b'", 'run="a"', "episodes=3", "--cfg", "run"]
    assert literal(given, ["run", "checkpoint"]) == given
    assert literal(["-m", "run=a,b"], ["run"]) == ["-m", "run=a,b"]


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
@pytest.mark.parametrize("args", [["--help"], ["-h", "experiment=nope"], ["resume=x", "--help"]])
def test_help(tmp_path, script, args):
    done = subprocess.run(
        [sys.executable, ROOT / "src" / script, *args], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python src/{script} " in done.stdout
    if script == "train.py":
        said = dict(line.strip().partition("  ")[::2] for line in done.stdout.split("\n"))
        assert set(config.names("experiment")) <= set(said)
        assert "three minutes" in said["state_reach"]
        assert "resume=RUN_DIR total_env_steps=" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["resume="], "resume='': expected a run's folder"),
        (["resume"], "override='resume': expected KEY=VALUE"),
        (["resume=null"], "resume=None: expected a run's folder"),
        (["resume=.", "force_resume=yes"], "force_resume='yes': expected true or false"),
        (["resume=.", "+seed=3"], "+seed='3': expected a key without + or ~"),
        (["resume=.", "~trainer"], "~trainer='': expected a key without + or ~"),
        (["resume=.", "~force_resume"], "~force_resume='': expected a key without + or ~"),
        (["resume=.", "trainer=tpu"], "Available options in 'trainer': auto cpu gpu"),
        (["resume=."], "expected a run's folder"),
        (["experiment=state_reach", "logger={}"], "add '~logger.csv' '~logger.tensorboard'"),
        (["sweep=leak"], "sweep='leak': expected -m before it"),
        (["sweep=signal", "debug=default"], "python src/train.py -m sweep=signal"),
    ],
)
def test_slips_of_train_are_one_line_and_write_nothing(tmp_path, args, words):
    done = subprocess.run(
        [sys.executable, ROOT / "src/train.py", *args], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("cuda", "args", "experiment", "why"),
    [
        (False, ["seed=3"], "pixel_push_laptop", "no CUDA GPU trains here"),
        (True, ["seed=3"], "pixel_push_strict_gpu", "on the GPU's name"),
        (True, ["trainer=cpu", "seed=3"], "pixel_push_laptop", "no CUDA GPU trains here"),
        (False, ["experiment=state_reach", "seed=3"], "state_reach", ""),
    ],
)
def test_without_an_experiment_it_trains_what_suits_the_machine_and_says_why(
    monkeypatch, capsys, cuda, args, experiment, why
):
    seen = []
    monkeypatch.setattr(
        "fetchlab.run.start", lambda cfg, scratch: seen.append(cfg) or {"status": "done"}
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "the GPU's name")
    monkeypatch.setattr(sys, "argv", ["train.py", *args])
    train.main()
    assert [(cfg["experiment"], cfg["seed"]) for cfg in seen] == [(experiment, 3)]
    said = capsys.readouterr().out
    assert said.count("\n") == (1 if why else 0)
    assert said.startswith(f"chosen    {experiment}: " if why else "") and why in said


def test_hydras_flags_stay_beside_the_overrides_of_a_chosen_experiment(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "job", "seed=3", "ckpt_path=x"])
    train.main()
    said = capsys.readouterr().out
    assert "image_size: 32" in said and "seed: 3" in said  # of pixel_push_laptop


def test_what_may_change_reaches_the_resumed_run(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "fetchlab.run.resume", lambda *given: seen.append(given) or {"status": "finished"}
    )
    evaluation = "callbacks.evaluation"
    args = ["resume=R", f"{evaluation}.episodes=5", f"{evaluation}.workers=null", "trainer=cpu"]
    given = [*args, "trusted_modules=[mine]", "force_resume=True"]
    monkeypatch.setattr(sys, "argv", ["train.py", *given])
    train.main()
    ((run_dir, changes, force),) = seen
    warns = logging.getLogger("fetchlab.checkpoint.find")
    assert not warns.disabled and warns.isEnabledFor(logging.WARNING)
    assert (run_dir, force) == ("R", True)
    assert changes == {
        "trainer.accelerator": "cpu",  # and precision and the like as they were
        f"{evaluation}.episodes": 5,
        f"{evaluation}.workers": None,
        "trusted_modules": ["mine"],
    }
    every = [f"{evaluation}.{name}" for name in kinds_of(schema.Evaluation)]
    assert set(entry.keys("resume")) >= {*every, "resume", "total_env_steps", "trainer"}


def test_the_trainers_differ_in_their_accelerator_alone():
    choices = ("auto", "cpu", "gpu")
    auto, cpu, gpu = (config.compose("state_push", f"trainer={one}")["trainer"] for one in choices)
    assert cpu == {**auto, "accelerator": "cpu"}
    assert gpu == {**auto, "accelerator": "gpu"}
