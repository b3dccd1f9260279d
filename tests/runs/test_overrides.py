"""What Hydra cannot compose is one line: the part that it could not read, and the way on."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from tiny_runs import ONE_EVALUATION

from fetchlab import config
from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.errors import ConfigError
from fetchlab.overrides import one_line
from fetchlab.run import start

ROOT = Path(__file__).parents[2]


def said_of(*overrides):
    GlobalHydra.instance().clear()  # which a composition that failed leaves set
    with pytest.raises(Exception) as caught:
        config.compose("state_reach", *overrides)
    line = one_line(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("a=b", "mismatched input '='"),
        ("(x)", "extraneous input '('"),
        ("a#b", "'#' at position 10"),
        ("x;y z", "';' at position 10"),
        ("~/runs", "'~' at position 9"),
        ("été", "'é' at position 9"),
        ("it's", '"\'" at position 11'),
        ('say "x"', "extraneous input"),
        ("lr=1e-4,seed=0", "mismatched input '='"),
        ("/data/a,b", "expected one value"),
        ("choice(1,2)", "expected one value"),
        ("[a", "'[a'; close the bracket, or quote"),
    ],
)
def test_an_unreadable_value_keeps_its_place_and_its_quotes_work(value, where):
    line = said_of(f"run_dir={value}")
    assert line.startswith(f"run_dir={value!r}: expected ")
    assert where in line
    # The advice, as a shell reads it: both its quotes and Hydra's.
    advised = shlex.split(line.partition("quote the value: ")[2].partition(", write")[0])
    assert config.compose("state_reach", *advised)["run_dir"] == value


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("algo.gamma=0.5", "algo.gamma='0.5': expected a key that something reads; algo has batch"),
        ("sed=3", "sed='3': expected a key that something reads; did you mean seed?"),
        (
            "algo.discont=0.9",
            "algo.discont='0.9': expected a key that something reads; did you mean",
        ),
        (
            "n_envs=4",
            "n_envs='4': expected a key that something reads; did you mean collect.n_envs",
        ),
        ("~algo.foo", "algo.foo=None: expected a key that something reads; algo has batch_size"),
        ("hydra.foo=3", "hydra.foo='3': expected a key that something reads; see configs/hydra"),
        (
            "algo={tau:0.1,foo:{bar:2}}",
            "algo.foo=['bar']: expected a key that something reads; algo",
        ),
        (
            "callbacks.extra={mine:{_target_:a.B}}",
            "callbacks.extra.mine=['_target_']: expected a name that is there; a new one: '+callb",
        ),
        (
            "obs.pixels.more_cameras={side:{distance:1}}",
            "obs.pixels.more_cameras='{side:{distance:",
        ),
        ("obs.pixels.image_size=64", "obs.pixels.image_size='64': expected obs.pixels to be set"),
        ("+algo.lr=3", "+algo.lr=None: expected a key that does not exist yet; write algo.lr=3"),
        ("foo", "override='foo': expected KEY=VALUE; missing EQUAL"),
        ("a b=3", "override='a b=3': expected KEY=VALUE; ' ' at position 2 cannot be read"),
        ("algo.hidden[0]=3", "override='algo.hidden[0]=3': expected KEY=VALUE; '[' at position 12"),
        ("~algo.lr", "algo.critic_optimizer.lr: Interpolation key 'algo.lr' not found; restore"),
        ("algo.n_step=???", "algo.n_step: Missing mandatory value: n_step; restore"),
        ("seed=1,2", "seed='1,2': expected one value; quote the value:"),
        ("encoder=manip", "In 'train': Could not find 'encoder/manip' Available options in"),
    ],
)
def test_what_cannot_be_composed_names_key_expectation_and_remedy(override, line):
    said = said_of(override)
    assert said.startswith(line)
    assert "To append to your config" not in said
    assert "use +" not in said


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("encoder=null", "encoder=None: expected a name of configs/encoder; write '~encoder'"),
        ("encoder=18", "encoder=18: expected a name of configs/encoder; write '~encoder'"),
        ("symmetry=null", "symmetry=None: expected a name of configs/symmetry; write symmetry="),
        ("auxiliary=null", "auxiliary=None: expected a name of configs/auxiliary; write auxili"),
        ("callbacks/extra=null", "callbacks/extra=None: expected a name of configs/callbacks/ext"),
        (
            "logger=null",
            "logger=None: expected a name of configs/logger; leave it out, or give one",
        ),
        ("task=null", "task=None: expected a name of configs/task; leave it out, or give one"),
    ],
)
def test_a_group_that_is_given_no_name_is_named_and_the_advice_works(override, line, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["src/train.py", "seed=3", "--cfg", "job", override])
    said = said_of("seed=3", override)
    assert said.startswith(line)
    advised = shlex.split(said.partition("write ")[2].removesuffix(" for none"))
    config.check(config.compose("state_reach", *advised))
    monkeypatch.setattr(sys, "argv", ["src/train.py", "-m", "seed=0,3", f"{override},other"])
    assert said_of(override) == said


def test_an_unreadable_yaml_is_one_line(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"seed: 1\n# \xe9\n")
    with pytest.raises(UnicodeDecodeError) as caught:
        latin.read_text(encoding="utf-8")
    assert one_line(caught.value) == (
        "a YAML file is not UTF-8: in its line b'# \\xe9'; save it as UTF-8"
    )


def train(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "src/train.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def refused(*arguments):
    done = train(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_sweep_without_m_says_so(tmp_path):
    run_dir = tmp_path / "run"
    line = refused("experiment=state_reach", "sweep=leak", f"run_dir={run_dir}")
    assert "sweep='leak': expected -m before it" in line
    assert "python src/train.py -m sweep=leak" in line
    assert not run_dir.exists()


def test_an_experiment_without_its_header_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("seed: 3\nalgo: {lr: 1.0e-4}\n")
    run_dir = tmp_path / "run"
    line = refused("--config-dir", str(tmp_path), "experiment=mine", f"run_dir={run_dir}")
    assert "experiment=['seed', 'algo']: expected an experiment's name" in line
    assert "# @package _global_" in line
    assert not run_dir.exists()


def test_a_module_of_the_users_own_trains_only_where_it_can_be_resumed(tmp_path):
    package = tmp_path / "my_pkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "hindsight.py").write_text(
        "from fetchlab.replay.relabel import NoRelabel\nclass Mine(NoRelabel): pass\n"
    )
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [state_reach, override /relabel: none]\n"
        "relabel: {_target_: my_pkg.hindsight.Mine}\n"
    )
    run_dir, path = tmp_path / "run", f"{ROOT / 'src'}{os.pathsep}{tmp_path}"
    given = ("--config-dir", str(tmp_path), "experiment=mine", "trusted_modules=[my_pkg]")
    done = train(*given, *ONE_EVALUATION, "trainer=cpu", f"run_dir={run_dir}", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads((run_dir / "summary.json").read_text())["status"] == "finished"

    again = allowed_targets(config.CONFIGS, ["my_pkg"])
    stored = load_run_config(run_dir / "config.yaml", again)
    assert stored["trusted_modules"] == ["my_pkg"]  # recorded, and believed by nobody
    refusal = r"relabel\._target_='my_pkg\.hindsight\.Mine'.*trusted_modules=\[my_pkg"
    with pytest.raises(ConfigError, match=refusal):
        load_run_config(run_dir / "config.yaml", allowed_targets(config.CONFIGS))
    new = tmp_path / "new"  # and what could not be resumed does not start
    with pytest.raises(ConfigError, match=refusal):
        start({**stored, "trusted_modules": [], "run_dir": str(new)})
    assert not new.exists()
