"""Arguments of `resume=` and of an evaluation: typed, each known, each once; and `--help`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import train
from fetchlab import config, entry
from fetchlab.errors import ConfigError

ROOT = Path(__file__).parents[1]
READERS = {
    "run": entry.path,
    "on": entry.boolean,
    "from_0": entry.whole_number,
    "from_1": entry.positive,
    "workers": entry.count_or_null,
    "seconds": entry.number,
    "name": entry.words,
    "trusted": entry.modules,
}


@pytest.mark.parametrize(
    ("arg", "value"),
    [
        ("run=a b=c", Path("a b=c")),
        ("on=True", True),
        ("on=fALSE", False),
        ("from_0=0", 0),
        ("from_1=2_000_000", 2_000_000),
        ("workers=null", None),
        ("workers=3", 3),
        ("seconds=2.5e-1", 0.25),
        ("name=cpu", "cpu"),
        ("trusted=[a, b.c]", ["a", "b.c"]),
        ("trusted=a", ["a"]),
        ("trusted=[]", []),
    ],
)
def test_values_have_types(arg, value):
    (read,) = entry.read_arguments([arg], READERS).values()
    assert read == value
    assert type(read) is type(value) or isinstance(read, Path)


@pytest.mark.parametrize(
    "args",
    [
        *(["on=1"], ["on=yes"], ["on="], ["from_0=-1"], ["from_0=1.0"], ["from_0=1__0"]),
        *(["from_0=_1"], ["from_0=٣"], ["from_0=1 "], ["from_1=0"], ["from_1=" + "9" * 5000]),
        *(["workers=none"], ["workers=0"], ["seconds=nan"], ["seconds=inf"], ["seconds=-1"]),
        *(["seconds=0"], ["seconds="], ["name="], ["run= "], ["trusted=[a,]"], ["trusted=a;b"]),
        *(["trusted=[[a]]"], ["On=true"], ["+on=true"], ["~on"], ["on"], ["--on=true"], ["=1"]),
        ["on=true", "on=true"],
    ],
)
def test_anything_else_is_one_line_with_the_key(args):
    with pytest.raises(ConfigError, match=r": expected .*; ") as caught:
        entry.read_arguments(args, READERS)
    assert str(caught.value).isprintable()
    assert args[-1].partition("=")[0] in str(caught.value)


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
@pytest.mark.parametrize("args", [["--help"], ["-h", "experiment=nope"], ["resume=x", "--help"]])
def test_help(tmp_path, script, args):
    done = subprocess.run(
        [sys.executable, ROOT / "src" / script, *args], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python src/{script} " in done.stdout
    if script == "train.py":
        assert set(config.names("experiment")) <= {line.strip() for line in done.stdout.split("\n")}
        assert "resume=RUN_DIR total_env_steps=" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["resume="], "resume='': expected a value"),
        (["resume"], "argument='resume': expected KEY=VALUE"),
        (["resume=.", "force_resume=yes"], "force_resume='yes': expected true or false"),
        (["resume=.", "total_env_steps=many"], "expected a positive whole number"),
        (["resume=.", "resume=.."], "resume='..': expected each key once"),
        (["resume=.", "-m"], "argument='-m': expected KEY=VALUE"),
        (["resume=."], "expected a run's folder"),
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


def test_what_may_change_reaches_the_resumed_run(monkeypatch):
    seen = []
    monkeypatch.setattr("fetchlab.run.resume", lambda *given: seen.append(given))
    evaluation = "callbacks.evaluation"
    args = ["resume=R", f"{evaluation}.episodes=5", f"{evaluation}.workers=null", "trainer=cpu"]
    train.continue_run([*args, "trusted_modules=[mine]", "force_resume=True"])
    changes = {f"{evaluation}.episodes": 5, f"{evaluation}.workers": None}
    assert seen == [(Path("R"), {**changes, "trusted_modules": ["mine"]}, "cpu", True)]
    keys = {key.partition(f"{evaluation}.")[2] for key in train.resume_readers()}
    assert keys >= set(config.shipped("callbacks", "default")["evaluation"])
