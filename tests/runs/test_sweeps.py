"""Every sweep: each of its runs composes and builds; one of them whole, from the command line."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from known_specs import PUSH
from tiny_runs import ONE_EVALUATION

from fetchlab.build import build_module
from fetchlab.checkpoint.fingerprint import config_difference
from fetchlab.config import typed
from fetchlab.run import resume, start

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from run_hash import run_hash

ROOT = Path(__file__).parents[2]
SWEEPS = sorted(file.stem for file in (ROOT / "configs" / "sweep").glob("*.yaml"))
LEAK = ("vector_push", "pixel_push_fast", "pixel_push_strict_fast")
CELLS = ("pixel_push_nodrq", "pixel_push_nodrq_noss", "pixel_push_noss", "pixel_push")


def jobs(sweep):
    """The overrides of each run."""
    loaded = yaml.safe_load((ROOT / "configs" / "sweep" / f"{sweep}.yaml").read_text())
    params = loaded["hydra"]["sweeper"]["params"]
    choices = [[f"{key}={one}" for one in str(text).split(",")] for key, text in params.items()]
    return list(itertools.product(*choices))


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_run_of_a_sweep_builds_and_none_is_another(compose_run, sweep):
    configs = []
    for overrides in jobs(sweep):
        experiment, *others = sorted(overrides, key=lambda text: not text.startswith("experiment="))
        cfg = compose_run(experiment.partition("=")[2], f"sweep={sweep}", *others)
        if cfg["seed"] == 0:
            build_module(typed(cfg), PUSH)
        configs.append(json.dumps(cfg, sort_keys=True))
    assert len(set(configs)) == len(configs) >= 2


def test_what_an_agent_is_given_is_all_that_differs_between_the_arms_of_leak(compose_run):
    arms = [compose_run(one, "sweep=leak", "symmetry=none") for one in LEAK]
    given = ("experiment", "obs", "encoder", "pooling")
    for arm in arms[1:]:
        lines = config_difference(arms[0], arm, given)
        # All of 500,000 env steps are kept in either; threads change how sums are rounded.
        assert [line.partition(":")[0] for line in lines] == ["replay.capacity", "trainer.threads"]


def multirun(*overrides, cwd=ROOT):
    return subprocess.run(
        [sys.executable, ROOT / "src/train.py", "-m", *overrides],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_sweep_whose_file_names_the_experiments_is_planned_from_the_command_line(tmp_path):
    done = multirun("sweep=factorial_drq_ss", "seed=0", "algo.lr=-1", f"run_dir={tmp_path}")
    assert done.returncode == 1
    assert "4 runs in" in done.stdout and "0 to do" in done.stdout
    *each, last = done.stderr.splitlines()
    assert [f"(experiment={one})" in line for one, line in zip(CELLS, each, strict=True)] == [
        True
    ] * 4
    assert all("lr=-1: expected 0 or more" in line for line in each)
    assert last.startswith("error: 4 of 4 runs failed")


def test_folders_of_configurations_are_known_to_each_run(tmp_path):
    own = {"experiment": "defaults: [state_reach]\n", "sweep": "ckpt_path: none\n"}
    for group, text in own.items():
        (tmp_path / group / group).mkdir(parents=True)
        (tmp_path / group / group / "mine.yaml").write_text(f"# @package _global_\n{text}")
    given = ("--config-dir", str(tmp_path / "sweep"), "sweep=mine")
    given += (f"hydra.searchpath=[file://{tmp_path / 'experiment'}]", "experiment=mine")
    done = multirun(*given, *ONE_EVALUATION, f"run_dir={tmp_path / 'runs'}")
    assert done.returncode == 1
    assert ": ckpt_path='none': expected a checkpoint of the same networks" in done.stderr


def killed(*overrides, when):
    """The same, killed -9 at a moment."""
    command = [sys.executable, ROOT / "src/train.py", "-m", *overrides]
    victim = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    while not when():
        assert victim.poll() is None
        time.sleep(0.01)
    victim.kill()
    victim.wait()


def test_a_sweep_that_is_killed_goes_on_outlives_failures_and_its_runs_are_those_alone(
    compose_run, tmp_path
):
    # The second and fourth runs cannot be built: 4 of their 2 critics.
    chosen = ("sweep=leak", "experiment=state_push", "algo.target_subset=2,4", *ONE_EVALUATION)
    work, sweep, alone = (tmp_path / name for name in ("work", "sweep", "alone"))
    work.mkdir()
    killed(
        *(*chosen, "seed=0,1", f"run_dir={sweep}", "launcher.runs_at_once=1"),
        when=lambda: any(sweep.glob("*_s1/checkpoints/step_*")),
    )
    (run_dir,) = sweep.glob("*_s1")
    assert not (run_dir / "summary.json").exists()
    (first,) = sweep.glob("*_s0")
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    done = multirun(*chosen, "seed=0,1", f"run_dir={sweep}", cwd=work)
    assert done.returncode == 1, done.stderr
    assert "4 runs in" in done.stdout and "1 finished before, 1 to do" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before
    assert "error: 2 of 4 runs failed" in done.stderr
    assert "algo.target_subset=4: expected null or from 1 to algo.ensemble=2" in done.stderr
    assert list(work.iterdir()) == []  # a sweep leaves nothing where the command was given
    finished = {}
    for path in sorted(sweep.glob("*/summary.json")):
        summary = json.loads(path.read_text())
        assert summary["status"] == "finished"
        assert summary["grad_updates"] >= 2
        finished[path.parent.name] = summary["seed"]
    assert finished == {first.name: 0, run_dir.name: 1}
    one = ("algo.target_subset=2", *ONE_EVALUATION, "seed=1", f"run_dir={alone}")
    start(compose_run("state_push", *one))
    assert metrics(run_dir) == metrics(alone)
    assert run_hash(run_dir)["H"] == run_hash(alone)["H"]
    for one in (alone, run_dir):
        assert resume(one, {"total_env_steps": 46}, force=False)["env_steps"] == 46
    assert metrics(run_dir) == metrics(alone)


def metrics(run_dir):
    rows = csv.DictReader((run_dir / "metrics.csv").open())
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


@pytest.mark.full
@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_whole_sweep_runs(tmp_path, sweep):
    swept = {override.partition("=")[0] for override in jobs(sweep)[0]} | {"seed"}
    tiny = [override for override in ONE_EVALUATION if override.partition("=")[0] not in swept]
    done = multirun(f"sweep={sweep}", "seed=0", *tiny, f"run_dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    expected = len([job for job in jobs(sweep) if "seed=0" in job])
    assert len(list(tmp_path.glob("*/summary.json"))) == expected
