"""The doctor on real configurations: one that is fit to run, and others that are not."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import pytest
import yaml
from rich.console import Console

from fetchlab import doctor
from fetchlab.algos.gradients import Reach
from fetchlab.config import CONFIGS, check
from fetchlab.errors import ConfigError
from fetchlab.preflight import budget

ROOT = Path(__file__).parents[2]
SMALL = ("debug=default", "trainer=cpu", "collect.workers=1", "total_env_steps=240")
SMALL += ("task.max_episode_steps=10", "collect.n_envs=2", "collect.learning_starts=40")
PROBE = {**yaml.safe_load((CONFIGS / "doctor.yaml").read_text())["probe"], "seconds": 0.5}


def examined(cfg, tmp_path):
    cfg["run_dir"] = str(tmp_path / "runs" / "mine")
    console = Console(file=(out := io.StringIO()), width=300, _environ={})
    findings = list(doctor.examine(cfg, 0.5, str(tmp_path / "frame.png"), PROBE))
    go = doctor.show(iter(findings), console)
    assert not (tmp_path / "runs").exists()  # nothing of the run is left, or was there
    found = {}
    for one in findings:
        found.setdefault(one.about, []).append(one)
    return go, found, out.getvalue()


def test_a_configuration_that_is_fit_to_run(compose_run, tmp_path):
    cfg = compose_run("pixel_push_laptop", *SMALL)
    row = {"at_env_steps": 120, "success_at_least": 0.35}
    cfg["callbacks"]["milestones"]["table"] = [row, {**row, "at_env_steps": 10_000}]
    go, found, said = examined(cfg, tmp_path)
    assert go
    assert said.splitlines()[-1] == "go"
    assert not [one for lines in found.values() for one in lines if one.verdict == "no"]
    (frame,) = found["frame"]
    picture = iio.imread(tmp_path / "frame.png")
    assert frame.found.endswith(str(tmp_path / "frame.png"))
    assert picture.shape == (352, 352, 3) and picture.std() > 5
    assert "env steps/s" in found["speed"][0].found
    assert found["time"][0].found.endswith("for 240 env steps")
    assert len(found["milestone"]) == 1  # the other one lies beyond the run
    assert "35% at 120 env steps: after " in found["milestone"][0].found
    assert "the largest replay there is replay.capacity=" in found["disk"][0].found
    losses = [one.found for one in found["gradients"]]
    assert any(one.startswith("auxiliary loss on encoder: moves ") for one in losses)
    assert "actor loss on encoder: leaves it alone" in losses
    assert "critic loss on encoder: leaves it alone" in losses


def test_what_does_not_fit_is_no_go_before_anything_is_trained(compose_run, tmp_path, monkeypatch):
    cfg = compose_run("state_reach", *SMALL)
    for module in (budget, doctor):
        monkeypatch.setattr(module, "free_disk_bytes", lambda path: 1_000)
    monkeypatch.setattr(doctor, "start", lambda cfg: pytest.fail("trained"))
    go, found, said = examined(cfg, tmp_path)
    assert not go
    assert "1.0 kB" in found["fits"][0].found
    assert said.splitlines()[-1].startswith("no go: fits: replay.capacity=240: expected a run")


@pytest.mark.parametrize(
    ("given", "about", "words"),
    [
        (["logger=[csv,wandb]"], "launch", "logger='wandb': expected a logger that is installed"),
        (
            ["callbacks.milestones_of=null", "callbacks/extra=[stop_rule]"],
            "launch",
            "this experiment has none: give callbacks.extra.stop_rule.take_off_env_steps=N",
        ),
        (["run_dir={copied}"], "run_dir", "expected a folder without a run; continue that run"),
        (["run_dir={copied}/config.yaml/mine"], "run_dir", "expected a folder that can be written"),
    ],
)
def test_what_a_launch_refuses_at_once_is_no_go(
    compose_run, copied, tmp_path, monkeypatch, given, about, words
):
    monkeypatch.setattr(doctor, "start", lambda cfg: pytest.fail("trained"))
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    cfg = compose_run("state_push", *SMALL, *(one.format(copied=copied) for one in given))
    before = sorted(copied.rglob("*"))
    found = list(doctor.examine(cfg, 0.5, str(tmp_path / "frame.png"), PROBE))
    (refused,) = [one for one in found if one.verdict == "no"]
    assert refused.about == about and words in refused.found
    assert sorted(copied.rglob("*")) == before


def test_a_finding_is_shown_as_it_is():
    console = Console(file=(out := io.StringIO()), width=300, _environ={})
    assert not doctor.show(iter([doctor.Finding("launch", "'.[wandb]' [/x]", "no")]), console)
    assert out.getvalue().count("'.[wandb]' [/x]") == 2


def test_a_run_in_the_folder_is_no_reason_where_it_is_to_be_continued(copied, compose_run):
    run = check(compose_run("state_reach", *SMALL))
    assert [one.about for one in doctor._refused(run, copied, resumes=False)] == ["run_dir"]
    assert [*doctor._refused(run, copied, resumes=True)] == []


def test_a_routing_that_is_not_what_it_says_is_no_go():
    reach = [Reach("critic", "encoder", 8, 0, 0, True), Reach("actor", "encoder", 8, 8, 8, False)]
    first, second = doctor._routing(reach)
    assert (first.verdict, second.verdict) == ("no", "no")
    assert first.found == "critic loss on encoder: leaves it alone, and should move it"
    assert second.found.endswith("moves 8 of 8 tensors, and should not move it")


def test_without_a_renderer_an_agent_that_sees_is_no_go(compose_run, tmp_path, monkeypatch):
    def fails():
        raise ConfigError("MUJOCO_GL", "", "a backend", "install one")

    monkeypatch.setattr(doctor, "choose_renderer", fails)
    go, found, said = examined(compose_run("pixel_push_laptop", *SMALL), tmp_path)
    assert not go
    assert "no go: renderer: MUJOCO_GL='': expected a backend; install one" in said
    assert "speed" not in found


def test_times_by_hand(compose_run):
    from fetchlab.config import typed

    cfg = compose_run("vector_push", "total_env_steps=200_000")
    # 200,000 at 50 a second are 4,000 s; 20 evaluations of 100 episodes at 500 a second 10 s each.
    speed, time, first, second = doctor._times(typed(cfg), 50.0, 500.0)
    assert speed.found == "50 env steps/s (500 without updates)"
    assert time.found == "1 h 10 min for 200,000 env steps"
    assert first.found == "35% at 50,000 env steps: after 18 min"
    assert second.found == "80% at 80,000 env steps: after 28 min"
    (none,) = doctor._times(typed(cfg), None, 500.0)
    assert none.verdict == "note"


def test_a_lock_that_differs_is_a_line_for_each_package(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text("# a comment\nno-such-package==1.0\ntorch==0.1\n")
    absent, torch = doctor._packages(lock)
    assert absent.found == "no-such-package (absent), the lock has 1.0"
    assert torch.found.startswith("torch 2.") and torch.verdict == "note"
    lock.write_text("")
    (same,) = doctor._packages(lock)
    assert same.verdict == "ok"


@pytest.mark.parametrize(("verdict", "code"), [("ok", None), ("note", None), ("no", 1)])
def test_the_exit_code_is_the_verdict(monkeypatch, capsys, verdict, code):
    import doctor as command

    seen = []
    monkeypatch.setattr(
        doctor,
        "examine",
        lambda *given: seen.append(given) or iter([doctor.Finding("disk", "x", verdict)]),
    )
    args = ["experiment=state_reach", "seconds=3", "picture=a b.png", "algo.lr=1e-4"]
    monkeypatch.setattr(sys, "argv", ["doctor.py", *args])
    if code is None:
        command.main()
    else:
        with pytest.raises(SystemExit) as left:
            command.main()
        assert left.value.code == code
    ((cfg, seconds, picture, probe, resumes),) = seen
    assert (seconds, picture, cfg["algo"]["lr"], resumes) == (3, "a b.png", 1e-4, False)
    assert probe == {**PROBE, "seconds": 3}
    check(cfg)  # a run's own keys, and no other
    assert capsys.readouterr().out.splitlines()[-1] == ("no go: disk: x" if code else "go")


def test_help(monkeypatch, capsys):
    import doctor as command

    monkeypatch.setattr(sys, "argv", ["doctor.py", "experiment=nope", "--help"])
    command.main()
    assert "python src/doctor.py experiment=NAME" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["experiment=nope"], "experiment/nope"),
        (["experiment=state_reach", "seconds=0"], "seconds=0: expected a positive number"),
        (["experiment=state_reach", "secs=5"], "secs"),
        (["experiment=state_reach", "picture=/tmp/f"], "picture='/tmp/f': expected a file that"),
        (["experiment=state_reach", "picture=/tmp/f.txt"], "picture='/tmp/f.txt': expected a file"),
        (["experiment=state_reach", "picture=/proc/x/f.png"], "picture='/proc/x': expected a fold"),
    ],
)
def test_slips_are_one_line_and_exit_code_2(args, words):
    done = subprocess.run(
        [sys.executable, ROOT / "src/doctor.py", *args], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr
