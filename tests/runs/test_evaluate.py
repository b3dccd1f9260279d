"""`src/evaluate.py`: its options do what they say, and each of its errors is one line."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import yaml

import evaluate as entry
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload, write_payload
from fetchlab.collect.rollout import episode_seeds
from fetchlab.collect.video import load_encoder
from fetchlab.errors import RunFailedError
from fetchlab.play import evaluate_run

ROOT = Path(__file__).parents[2]


def evaluation(capsys, monkeypatch, *args):
    """What `python src/evaluate.py <args>` prints, its error's line and its exit code."""
    monkeypatch.setattr(sys, "argv", ["src/evaluate.py", *map(str, args)])
    code = 0
    try:
        entry.main()
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    return printed.out, printed.err, code


def test_a_seed_gives_the_episodes_of_training_evaluations_with_that_seed(finished):
    stored = json.loads((finished / "evaluation.json").read_text())[-1]
    result = evaluate_run(finished, 4, video=False, checkpoint=None, seed=0)
    assert {key: result[key] for key in stored} == stored
    assert result["seeds"] == [1_000_000, 1_000_003]
    other = evaluate_run(finished, 3, video=False, checkpoint=None, seed=1)
    # Of the final policy of `experiment=state_reach debug=default`.
    assert other["goal_distance_m"] == pytest.approx(0.479, abs=0.002)
    assert other["return"] == pytest.approx(-49.7, abs=0.05)


def test_by_default_no_episode_is_one_that_training_or_its_evaluations_use(finished):
    result = evaluate_run(finished, 3, video=False, checkpoint=None)
    first, last = result["seeds"]
    assert last - first == 2
    # Evaluations of any run: 1,000,000 and 10,000 times its seed. Training: 32 bits.
    assert first > episode_seeds(10_000_000, 10_000)[-1]
    assert first > np.iinfo(np.uint32).max
    assert "neither by training nor by its evaluations" in result["seeds_are"]
    again = evaluate_run(finished, 3, video=False, checkpoint=None)
    files = {one.pop("file") for one in (again, result)}
    assert again == result
    assert len(files) == 2


def test_a_run_published_with_its_best_weights_alone_is_played(copied):
    best = next((copied / "checkpoints").glob("best_*"))
    for step in (copied / "checkpoints").glob("step_*"):
        shutil.rmtree(step)
    assert evaluate_run(copied, 2, video=False, checkpoint=None)["checkpoint"] == best.name
    # One that was resumable says what became of that, and does not fall back in silence.
    (copied / "checkpoints" / "step_000000800").mkdir()
    with pytest.raises(RunFailedError, match="step_000000800 refused"):
        evaluate_run(copied, 2, video=False, checkpoint=None)


def test_the_result_is_kept_in_the_runs_folder(copied):
    before = (copied / "evaluation.json").read_bytes()
    results = [evaluate_run(copied, 2, video=False, checkpoint=None, seed=k) for k in (0, 1)]
    names = ["evaluations/000000800_0.json", "evaluations/000000800_1.json"]
    assert [result.pop("file") for result in results] == [str(copied / name) for name in names]
    assert [json.loads((copied / name).read_text()) for name in names] == results
    assert results[0]["seeds"] == [1_000_000, 1_000_001]
    assert (copied / "evaluation.json").read_bytes() == before
    assert sorted(path.name for path in (copied / "evaluations").iterdir()) == [
        "000000800_0.json",
        "000000800_1.json",
    ]


def test_another_task_is_played_and_recorded(finished, capsys, monkeypatch):
    task = "task.max_episode_steps=7"
    out, err, code = evaluation(
        capsys, monkeypatch, f"run={finished}", "episodes=1", "task=fetch_reach", task
    )
    assert (err, code) == ("", 0)
    stored = json.loads(Path(out.rpartition("result: ")[2].strip()).read_text())
    assert stored["changes"]["task"]["max_episode_steps"] == 7
    assert stored["return"] == -7.0


def test_a_bound_on_learnings_targets_does_not_keep_a_policy_from_dense_rewards(
    finished, capsys, monkeypatch
):
    args = (f"run={finished}", "episodes=1", "task=fetch_reach_dense", "task.max_episode_steps=7")
    out, err, code = evaluation(capsys, monkeypatch, *args)
    assert (err, code) == ("", 0)
    stored = json.loads(Path(out.rpartition("result: ")[2].strip()).read_text())
    assert -7.0 < stored["return"] < 0.0


def test_another_camera_replaces_keys_of_the_runs_own(copied, compose_run, capsys, monkeypatch):
    seen = []

    def build_env(run, *_):
        seen.append(run.obs.pixels)
        raise RunFailedError("seen")

    strict = compose_run("pixel_push_strict")["obs"]["pixels"]
    obs = yaml.safe_load((copied / "config.yaml").read_text())["obs"]
    edit(copied, "obs", {**obs, "pixels": strict})
    monkeypatch.setattr("fetchlab.play.build_env", build_env)
    given = ("obs.pixels.camera.distance=0.8", "obs.pixels.show_goal=true")
    given += ("obs.pixels.supersample=2",)
    assert evaluation(capsys, monkeypatch, f"run={copied}", *given)[1] == "error: seen\n"
    assert evaluation(capsys, monkeypatch, f"run={copied}", "obs.pixels.camera=null")[2] == 1
    changed, default = seen
    assert (changed.camera.distance, changed.camera.azimuth) == (0.8, 270.0)
    assert changed.show_goal
    assert (changed.supersample, default.supersample) == (2, 1)
    assert default.camera is None


def test_the_command_line_says_which_episodes_it_played(finished, capsys, monkeypatch):
    out, err, code = evaluation(
        capsys, monkeypatch, f"run={finished}", "episodes=3", "seed=1", "video=False"
    )
    assert (err, code) == ("", 0)
    assert "seeds 1010000 to 1010002: those of a training evaluation of a run with seed=1" in out
    assert "3 episodes), return -49.7, goal distance 0.479 m" in out


def test_options_in_any_capitals_and_a_video(copied, capsys, monkeypatch):
    out, err, code = evaluation(capsys, monkeypatch, f"run={copied}", "episodes=1", "video=TRUE")
    assert (err, code) == ("", 0)
    assert f"video: {copied}/videos/000000800_0.mp4\nof these 1 episodes 0 succeed\n" in out
    video = copied / "videos" / "000000800_0.mp4"
    assert video.stat().st_size > 1000
    assert next(load_encoder().read_frames(video))["size"] == (336, 336)  # four times 84


def crippled(copied):
    """Ways to spoil a run's folder; the words of the error, and its exit code."""
    return {
        "videos": (lambda: (copied / "videos").touch(), "video=.*File exists", 2),
        "config": (lambda: (copied / "config.yaml").write_text("a: ["), "plain YAML", 2),
        "target": (lambda: edit(copied, "augment", {"_target_": "os.system"}), "os.system", 2),
        "networks": (lambda: edit_hidden(copied), "weights of other networks", 1),
        "damaged": (lambda: damage(copied), "no valid step checkpoint", 1),
        "weights": (lambda: strip_weights(copied), "weights of other networks", 1),
    }


def edit(run_dir, key, value):
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    (run_dir / "config.yaml").write_text(yaml.safe_dump({**stored, key: value}, sort_keys=False))


def edit_hidden(run_dir):
    algo = yaml.safe_load((run_dir / "config.yaml").read_text())["algo"]
    edit(run_dir, "algo", {**algo, "hidden": [8]})


def damage(run_dir):
    for path in (run_dir / "checkpoints").glob("step_*/checkpoint.pt"):
        path.write_bytes(b"")


def strip_weights(run_dir):
    newest = newest_valid(run_dir / "checkpoints")
    payload = {k: v for k, v in read_payload(newest).items() if k != "state_dict"}
    shutil.rmtree(newest)
    write_payload(newest.parent, newest.name, payload, 800)


@pytest.mark.parametrize("name", crippled(Path()))
def test_each_error_is_one_line_before_an_episode(copied, capsys, monkeypatch, name):
    spoil, words, expected = crippled(copied)[name]
    spoil()
    monkeypatch.setattr("fetchlab.play.rollout", lambda *_: pytest.fail("played"))
    out, err, code = evaluation(capsys, monkeypatch, f"run={copied}", "episodes=1", "video=true")
    assert (out, code) == ("", expected)
    lines = [line for line in err.splitlines() if "refused" not in line or "error" in line]
    assert len(lines) == 1, err
    assert re.search(words, lines[0])
    assert lines[0].startswith("error: ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["checkpoint=absent"], "checkpoint='absent': expected a valid checkpoint"),
        (["checkpoint="], "checkpoint='': expected a folder, or null"),
        (["episodes=0"], "episodes=0: expected a positive whole number"),
        (["episodes=²"], "episodes='²': expected a value that Hydra can read"),
        (["episodes=1e3"], "episodes=1000.0: expected a positive whole number"),
        (["seed=-1"], "seed=-1: expected null or at least 0, a whole number"),
        (["video=maybe"], "video='maybe': expected true or false"),
        (["force_resume=True"], "force_resume='True': expected only checkpoint, episodes"),
        (["trusted_modules=[os/path]"], "expected a list of modules"),
        (["task=nope"], "Could not find 'task/nope'"),
        (["task.env_id=X"], "task.env_id='X': expected only checkpoint"),
        (["task=fetch_reach", "task.env_id=X"], "env_id='X'"),
        (["obs.pixels.camera.distance=1"], "distance=1: expected obs.pixels to be set"),
        (["video"], "override='video': expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_meant_is_one_line(finished, capsys, monkeypatch, args, words):
    out, err, code = evaluation(capsys, monkeypatch, f"run={finished}", *args)
    assert (out, code, err.count("\n")) == ("", 2, 1)
    assert words in err


@pytest.mark.parametrize("args", [[], ["run="], ["episodes=3"]])
def test_without_a_run_it_says_so(capsys, monkeypatch, args):
    out, err, code = evaluation(capsys, monkeypatch, *args)
    assert (out, code, err.count("\n")) == ("", 2, 1)
    assert "run=''" in err or "run=None" in err


def test_ctrl_c_is_one_line_and_exit_code_130(finished):
    process = subprocess.Popen(
        [sys.executable, "src/evaluate.py", f"run={finished}", "episodes=100000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it runs in the background with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    simulators: list[Path] = []
    while not simulators:
        assert process.poll() is None
        time.sleep(0.05)
        started = [Path("/proc", pid) for pid in children.read_text().split()]
        with suppress(OSError):  # a probe has ended meanwhile
            commands = [(one / "cmdline").read_bytes() for one in started]
            pairs = zip(started, commands, strict=True)
            simulators = [one for one, command in pairs if b"envs.worker" in command]
    time.sleep(1.0)
    worker = (simulators[0] / "environ").read_bytes().split(b"\0")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # Neither torch's threads nor a software renderer's take the cores of others.
    assert {b"OMP_WAIT_POLICY=passive", b"OMP_NUM_THREADS=1", b"LP_NUM_THREADS=0"} <= {*worker}
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
