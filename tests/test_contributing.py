"""CONTRIBUTING to the letter: its files, added to a copy of the project, train as they are."""

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

from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.errors import ConfigError

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text()
TINY = (
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
#: A weight that each recipe brings and training moves, and its shape; the environment brings none.
LEARNED = {
    "an algorithm": ("agent.actor.latent_pi.0.weight", (256, 31)),
    "an auxiliary loss on the encoder": ("agent.auxiliary.my_loss.head.weight", (10, 32)),
    "an environment": ("agent.critic.weights.0", (2, 10, 256)),
    "an encoder": ("agent.encoder.cnn.conv.weight", (16, 6, 4, 4)),
}


def recipes():
    """Each recipe's files, by path, and the command at its end, as arguments of `src/train.py`."""
    found = {}
    for section in re.split(r"^### ", GUIDE, flags=re.MULTILINE)[1:]:
        name, text = section.partition("\n")[0].lower(), section.partition("\n## ")[0]
        blocks = re.findall(r"^`(\S+)`[^\n]*\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        command = re.search(r'`make train EXPERIMENT=(\S+) ARGS="(.+?)"`', text)
        if command:
            experiment, arguments = command.groups()
            found[name] = dict(blocks), [f"experiment={experiment}", *arguments.split()]
    return found


RECIPES = recipes()


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
    """A copy of the project with the recipes' files, and nothing else changed."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests").mkdir()
    for name in ("conftest.py", "known_specs.py", "resnet_weights.py", "test_contracts.py"):
        shutil.copy(ROOT / "tests" / name, copy / "tests" / name)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for files, _ in RECIPES.values():
        for path, text in files.items():
            assert not (copy / path).exists()
            (copy / path).write_text(text)
    return copy


def test_each_recipe_is_one_yaml_and_at_most_one_module():
    assert RECIPES.keys() == LEARNED.keys()
    for name, (files, command) in RECIPES.items():
        kinds = sorted(Path(path).suffix for path in files)
        assert kinds == ([".yaml"] if name == "an environment" else [".py", ".yaml"])
        yaml = next(Path(path) for path in files if path.endswith(".yaml"))
        assert re.search(rf"{yaml.parent.name}=\S*{yaml.stem}", command[1])


@pytest.mark.parametrize("name", LEARNED)
def test_a_recipe_trains_as_it_stands_and_may_be_resumed(name, project, tmp_path):
    files, command = RECIPES[name]
    run_dir = tmp_path / "run"
    python(project, "src/train.py", *command, *TINY, f"run_dir={run_dir}")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["grad_updates"] >= 2

    first, *_, last = sorted((run_dir / "checkpoints").glob("step_*"))
    before, after = (read_payload(path)["state_dict"] for path in (first, last))
    weight, shape = LEARNED[name]
    assert after[weight].shape == shape
    assert not torch.equal(before[weight], after[weight])

    allowed = allowed_targets(project / "configs")
    loaded = load_run_config(run_dir / "config.yaml", allowed)
    assert any(Path(path).stem in str(loaded) for path in files) or name == "an environment"
    if len(files) == 2:
        with pytest.raises(ConfigError, match="_target_"):  # its YAML is what allows it
            load_run_config(run_dir / "config.yaml", allowed_targets(ROOT / "configs"))


@pytest.mark.full
def test_the_contract_tests_find_what_is_new(project):
    options = ("-p", "no:cacheprovider", "-k", "my_encoder or my_loss or my_algorithm")
    said = python(project, "-m", "pytest", *options, "-v", "tests/test_contracts.py")
    assert "3 passed" in said


@pytest.mark.skipif(importlib.util.find_spec("ruff") is None, reason="ruff is not installed")
def test_the_recipes_keep_the_house_rules(project):
    modules = [path for files, _ in RECIPES.values() for path in files if path.endswith(".py")]
    assert len(modules) == 3
    python(project, "-m", "ruff", "check", "--no-cache", *modules)
    python(project, "-m", "ruff", "format", "--check", "--no-cache", *modules)
