"""CONTRIBUTING's new encoder: its two files, added to a copy of the project, train as they are."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.errors import ConfigError

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
TINY = (
    "debug=default",
    "total_env_steps=112",
    "algo.batch_size=2",
    "algo.utd_ratio=0.25",
    "replay.capacity=200",
    "replay.margin_env_steps=200",
    "collect.n_envs=2",
    "collect.workers=1",
    "collect.learning_starts=100",
    "callbacks.evaluation.episodes=2",
)


def new_files():
    """The example: each code block whose paragraph starts with the file's path."""
    blocks = re.findall(r"^`(\S+)`[^\n]*\n\n```\w+\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    return {Path(path): text for path, text in blocks}


def example_command():
    """What the example tells the reader to run, as arguments of `src/train.py`."""
    experiment, arguments = re.search(r'`make train EXPERIMENT=(\S+) ARGS="(.+?)"`', GUIDE).groups()
    return [f"experiment={experiment}", *arguments.split()]


def python(project, *arguments):
    # The host's own packages stay; this checkout's source goes, because the copy has one.
    path = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    others = [entry for entry in path if Path(entry).resolve() != ROOT / "src"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(others)}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the example's two files, and nothing else changed."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests").mkdir()
    for name in ("conftest.py", "resnet_weights.py", "test_contracts.py"):
        shutil.copy(ROOT / "tests" / name, copy / "tests" / name)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for path, text in new_files().items():
        assert not (copy / path).exists()
        (copy / path).write_text(text)
    return copy


def test_the_example_is_one_module_and_one_yaml():
    assert [path.suffix for path in new_files()] == [".py", ".yaml"]
    assert [path.parts[-2:] for path in new_files()] == [
        ("encoders", "my_encoder.py"),
        ("encoder", "my_encoder.yaml"),
    ]
    assert "encoder=my_encoder" in example_command()


def test_the_example_trains_and_may_be_resumed(project, tmp_path):
    run_dir = tmp_path / "run"
    python(project, "src/train.py", *example_command(), *TINY, f"run_dir={run_dir}")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["grad_updates"] >= 2

    first, *_, last = sorted((run_dir / "checkpoints").glob("step_*"))
    before, after = (read_payload(path)["state_dict"] for path in (first, last))
    name = "agent.encoder.cnn.conv.weight"  # the example's one layer: 4x4, from four RGB frames
    assert after[name].shape == (32, 12, 4, 4)
    assert not torch.equal(before[name], after[name])

    target = yaml.safe_load((project / "configs/encoder/my_encoder.yaml").read_text())["_target_"]
    loaded = load_run_config(run_dir / "config.yaml", allowed_targets(project / "configs"))
    assert loaded["encoder"]["_target_"] == target
    with pytest.raises(ConfigError, match=r"encoder\._target_"):  # its YAML is what allows it
        load_run_config(run_dir / "config.yaml", allowed_targets(ROOT / "configs"))


@pytest.mark.full
def test_the_contract_tests_find_the_example(project):
    options = ("-p", "no:cacheprovider", "-k", "my_encoder")
    said = python(project, "-m", "pytest", *options, "-v", "tests/test_contracts.py")
    assert "1 passed" in said


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_the_example_keeps_the_house_rules(project):
    module = next(path for path in new_files() if path.suffix == ".py")
    python(project, "-m", "ruff", "check", "--no-cache", module)
    python(project, "-m", "ruff", "format", "--check", "--no-cache", module)
