"""`src/evaluate.py`: its options do what they say, and each of its errors is one line."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from processes import simulators
from tiny_runs import play_run

import evaluate as entry
from fetchlab.build import build_env
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload, write_payload
from fetchlab.collect.rollout import episode_seeds, rollout
from fetchlab.collect.video import load_encoder
from fetchlab.config import typed
from fetchlab.errors import RunFailedError
from fetchlab.footage import footage, notable
from fetchlab.play import evaluate, request
from fetchlab.report.media import newest_videos
from fetchlab.report.runs import evaluations, is_own

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
    result = play_run(finished, 4, seed=0)
    # All but what is told of the curve.
    of_the_curve = {stored.pop(key) for key in ("phase", "critic_loss")}
    assert len(of_the_curve) == 2
    assert {key: result[key] for key in stored} == stored
    assert result["seeds"] == [1_000_000, 1_000_003]
    other = play_run(finished, 3, seed=1)
    # Of the final policy of `experiment=state_reach debug=default`.
    assert other["goal_distance_m"] == pytest.approx(0.479, abs=0.002)
    assert other["return"] == pytest.approx(-49.7, abs=0.05)


def test_by_default_no_episode_is_one_that_training_or_its_evaluations_use(finished):
    result = play_run(finished, 3)
    first, last = result["seeds"]
    assert last - first == 2
    # Evaluations of any run: 1,000,000 and 10,000 times its seed. Training: 32 bits.
    assert first > episode_seeds(10_000_000, 10_000)[-1]
    assert first > np.iinfo(np.uint32).max
    assert "neither by training nor by its evaluations" in result["seeds_are"]
    again = play_run(finished, 3)
    files = {one.pop("file") for one in (again, result)}
    assert again == result
    assert len(files) == 2


def test_a_run_published_with_its_best_weights_alone_is_played(copied):
    best = next((copied / "checkpoints").glob("best_*"))
    for step in (copied / "checkpoints").glob("step_*"):
        shutil.rmtree(step)
    assert play_run(copied, 2)["checkpoint"] == best.name
    # One that was resumable says what became of that, and does not fall back in silence.
    (copied / "checkpoints" / "step_000000800").mkdir()
    with pytest.raises(RunFailedError, match="step_000000800 refused"):
        play_run(copied, 2)


def test_the_result_is_kept_in_the_runs_folder(copied):
    before = (copied / "evaluation.json").read_bytes()
    results = [play_run(copied, 2, seed=k) for k in (0, 1)]
    names = ["evaluations/000000800_0.json", "evaluations/000000800_1.json"]
    assert [result.pop("file") for result in results] == [str(copied / name) for name in names]
    assert [json.loads((copied / name).read_text()) for name in names] == results
    assert results[0]["seeds"] == [1_000_000, 1_000_001]
    assert (copied / "evaluation.json").read_bytes() == before
    assert sorted(path.name for path in (copied / "evaluations").iterdir()) == [
        f"000000800_{number}.{kind}" for number in (0, 1) for kind in ("csv", "json")
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
    assert f"video: {copied}/videos/000000800_0_best.mp4\nof these 1 episodes 0 succeed\n" in out
    video = copied / "videos" / "000000800_0_best.mp4"
    assert video.stat().st_size > 1000
    meta = next(load_encoder().read_frames(video))
    assert meta["size"] == (396, 396)  # 384 and the frame around; an agent without pixels
    assert meta["duration"] == pytest.approx((51 + 25) / 25, abs=0.05)  # the last one stays


def test_the_best_the_median_and_the_worst_are_shown_and_each_row_is_told(
    copied, capsys, monkeypatch
):
    args = (
        "episodes=5",
        "video=true",
        "table=true",
        "task=fetch_reach",
        "task.max_episode_steps=6",
    )
    out, err, code = evaluation(capsys, monkeypatch, f"run={copied}", *args, f"out={copied}/there")
    assert (err, code) == ("", 0)
    names = ["best", "median", "worst"]
    videos = [copied / "there" / "videos" / f"000000800_0_{name}.mp4" for name in names]
    assert [line for line in out.splitlines() if line.startswith("video")] == [
        f"video: {video}" for video in videos
    ]
    assert all(video.stat().st_size > 1000 for video in videos)
    assert not (copied / "videos").exists() and not (copied / "evaluations").exists()
    (file,) = (copied / "there" / "evaluations").glob("*.json")
    stored = json.loads(file.read_text())
    rows = stored["table"]
    first, last = stored["seeds"]
    assert [row["seed"] for row in rows] == list(range(first, last + 1))
    for key in ("success", "return", "goal_distance_m"):
        whole = "success_rate" if key == "success" else key
        assert np.mean([row[key] for row in rows]) == pytest.approx(stored[whole])
    assert {row["length_steps"] for row in rows} == {6}
    with file.with_suffix(".csv").open() as stream:
        read = list(csv.DictReader(stream))
    told = [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]
    assert read == told
    printed = [line.split() for line in out.splitlines() if line.split()[0].isdigit()]
    assert [int(line[0]) for line in printed] == [row["seed"] for row in rows]
    assert [line[-1] for line in printed] == [f"{row['goal_distance_m']:.3f}" for row in rows]


def test_which_episodes_are_notable():
    def played(*rows):
        success, returns, distance = (torch.tensor(column) for column in zip(*rows, strict=True))
        return SimpleNamespace(success=success, returns=returns, goal_distance_m=distance)

    early, late, near = (True, -3.0, 0.04), (True, -9.0, 0.01), (False, -20.0, 0.06)
    far, passed = (False, -20.0, 0.3), (False, -5.0, 0.2)  # the last one lost it again
    assert notable(played(late, far, early, near, passed)) == {"best": 2, "median": 4, "worst": 1}
    assert notable(played(near, early)) == {"best": 1, "worst": 0}
    assert notable(played(near)) == {"best": 0}


def test_an_episode_that_does_not_repeat_itself_is_not_shown(compose_run):
    run = typed(compose_run("state_reach", "task.max_episode_steps=4", "trainer=cpu"))
    with closing(build_env(run, 1, 1)) as env:
        played = rollout(env, lambda obs: torch.ones(1, 4), [3])
    assert len(footage(run, played, [3], [0], side=32)[0]) == 5
    other = replace(played, goal_distance_m=played.goal_distance_m + 1e-6)
    with pytest.raises(RunFailedError, match=r"came out otherwise .* set video=false"):
        footage(run, other, [3], [0], side=32)


def test_an_evaluation_that_cannot_be_filmed_leaves_nothing(copied, monkeypatch):
    def fails(*_):
        raise RunFailedError("came out otherwise")

    monkeypatch.setattr("fetchlab.footage.footage", fails)
    with pytest.raises(RunFailedError, match="came out otherwise"):
        play_run(copied, 1, video=True)
    assert [*(copied / "evaluations").iterdir()] == []


def test_each_evaluation_has_videos_of_its_own_and_the_report_shows_the_runs(copied, monkeypatch):
    monkeypatch.setattr("fetchlab.footage.SIDE", 32)
    shown = play_run(copied, 1, video=True)["videos"]
    before = Path(shown[0]).read_bytes()
    short = {"task.max_episode_steps": 4}
    for changes, more in ((short, {}), ({}, {"stochastic": True})):
        asked = request(run=str(copied), episodes=1, video=True, **more)
        assert evaluate(asked, changes)[0]["videos"] != shown
    assert [str(path) for path in newest_videos(copied)] == shown
    assert Path(shown[0]).read_bytes() == before


def test_all_checkpoints_of_a_run_are_a_curve(copied, capsys, monkeypatch):
    out, err, code = evaluation(
        capsys, monkeypatch, f"run={copied}", "checkpoint=all", "episodes=2"
    )
    assert (err, code) == ("", 0)
    curve = json.loads((copied / "evaluations" / "curve_0.json").read_text())
    kept = {int(path.name.split("_")[1]) for path in (copied / "checkpoints").iterdir()}
    assert [row["env_steps"] for row in curve] == sorted(kept) and len(kept) >= 2
    assert out.endswith(f"curve: {copied}/evaluations/curve_0.json\n")
    assert out.count("env steps: success") == len(kept)
    # By name or by path, in the order that is given: the same episodes, the same numbers.
    last, first = curve[-1], curve[0]
    named = f"checkpoint=[{last['checkpoint']},{copied}/checkpoints/{first['checkpoint']}]"
    assert evaluation(capsys, monkeypatch, f"run={copied}", named, "episodes=2")[1:] == ("", 0)
    assert json.loads((copied / "evaluations" / "curve_1.json").read_text()) == [last, first]
    for path in (copied / "checkpoints").iterdir():
        (path / "checkpoint.pt").write_bytes(b"")
    out, err, code = evaluation(capsys, monkeypatch, f"run={copied}", "checkpoint=all")
    assert (out, code) == ("", 1)
    assert err.endswith("no valid checkpoint\n") and err.count("error:") == 1


def test_another_runs_checkpoint_is_kept_under_its_whole_path(copied, tmp_path):
    other = Path(shutil.copytree(copied, tmp_path / "other"))
    for run in (copied, other):
        newest = newest_valid(run / "checkpoints")
        (result,) = evaluate(request(run=str(copied), episodes=1, checkpoint=str(newest)), {})
        told = json.loads(Path(result["file"]).read_text())
        assert told["checkpoint"] == (newest.name if run == copied else str(newest.resolve()))
    assert [is_own(one) for one in evaluations(copied)] == [True, False]


def test_a_stochastic_policy_repeats_itself_and_is_not_the_mode(finished, tmp_path):
    asked = {"run": str(finished), "episodes": 2, "out": str(tmp_path)}
    once, again = (evaluate(request(**asked, stochastic=True), {})[0] for _ in range(2))
    mode = evaluate(request(**asked), {})[0]
    assert once.pop("file") != again.pop("file")
    assert once == again
    assert (once["stochastic"], mode["stochastic"]) == (True, False)
    assert once["seeds"] == mode["seeds"] and once["goal_distance_m"] != mode["goal_distance_m"]


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
        (["stochastic=some"], "stochastic='some': expected true or false"),
        (["checkpoint=[step_000000800,absent]"], "expected a valid checkpoint of this run"),
        (["checkpoint=[]"], "checkpoint='[]': expected"),
        (["policy=DIR"], "expected null beside policy, which needs no run"),
        (["out=/dev/null/x"], "out='/dev/null/x': expected a folder that can be written"),
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
    while not (started := simulators(process.pid)):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    worker = Path(f"/proc/{started[0]}/environ").read_bytes().split(b"\0")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    # Neither torch's threads nor a software renderer's take the cores of others.
    assert {b"OMP_WAIT_POLICY=passive", b"OMP_NUM_THREADS=1", b"LP_NUM_THREADS=0"} <= {*worker}
    assert (process.returncode, out, err) == (130, "", "interrupted\n")
