"""Nothing is written before a folder is known to be a run; nothing trained is ever lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tiny_runs import play_run

from fetchlab import run as runs
from fetchlab.checkpoint.find import newest_valid
from fetchlab.errors import ConfigError, RunFailedError
from fetchlab.run import resume, start
from fetchlab.run_folder import claimed

ROOT = Path(__file__).parents[2]
SHORT = (
    *("debug=default", "trainer=cpu", "total_env_steps=60", "task.max_episode_steps=10"),
    *("collect.n_envs=2", "collect.workers=1", "collect.learning_starts=40"),
    *("callbacks.evaluation.every_env_steps=60", "callbacks.evaluation.episodes=2"),
)
LOCK = "pid 12345 since 2026-01-02T03:04:05+00:00\n"


def tree(folder):
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def continue_run(run_dir):
    return resume(run_dir, {}, force=False)


def evaluate(run_dir):
    return play_run(run_dir, 1)


@pytest.mark.parametrize("use", [continue_run, evaluate])
@pytest.mark.parametrize(
    "part",
    [
        *("checkpoints", "checkpoints/step_000000800", "checkpoints/best_000000400"),
        *("checkpoints/step_000000123", "checkpoints/step_000000800/checkpoint.pt"),
        *("config.yaml", "replay"),
    ],
)
def test_a_part_of_a_run_is_answered_with_the_run(finished, part, use):
    before = tree(finished)
    with pytest.raises(ConfigError) as caught:
        use(finished / part)
    key = "resume" if use is continue_run else "run"
    assert f"use {key}={finished}" in str(caught.value)
    named = part.startswith("checkpoints/") and part.count("/") == 1
    assert (f"checkpoint={finished / part}" in str(caught.value)) == (named and key == "run")
    assert tree(finished) == before


@pytest.mark.parametrize("use", [continue_run, evaluate])
@pytest.mark.parametrize(
    "files",
    [
        [],
        ["notes.txt"],
        ["config.yaml"],
        ["config.yaml", "checkpoints/last.ckpt"],
        [".lock", "config.yaml"],
        ["metrics.csv", "checkpoints/step_000000800/manifest.json"],
    ],
    ids=" ".join,
)
def test_a_folder_that_is_no_run_is_refused_and_unchanged(tmp_path, files, use):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("theirs: 1\n")
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"a run's folder, with config\.yaml and checkpoints"):
        use(tmp_path)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("path", ["\0", "x" * 5000, "a\nb/\x1b[2J"])
@pytest.mark.parametrize("use", [continue_run, evaluate])
def test_a_path_that_cannot_be_is_one_line(path, use):
    with pytest.raises(ConfigError) as caught:
        use(path)
    assert str(caught.value).isprintable()


def test_a_folder_of_several_runs_is_answered_with_the_first(finished, tmp_path):
    for name in ("0", "1"):
        shutil.copytree(finished, tmp_path / name)
    with pytest.raises(ConfigError, match=f"it holds 2; use resume={tmp_path}/0"):
        continue_run(tmp_path)


def test_a_run_killed_during_start_up_can_be_started_again(compose_run, tmp_path):
    """By the same command, with the folder's other files kept; `resume=` and `run=` say so."""
    run_dir = tmp_path / "run"
    command = [sys.executable, "src/train.py", "experiment=state_reach", *SHORT]
    victim = subprocess.Popen([*command, f"run_dir={run_dir}"], cwd=ROOT)
    while not (run_dir / "replay").exists():
        assert victim.poll() is None
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    (run_dir / "notes.txt").write_text("mine")
    before = tree(run_dir)
    for use in (continue_run, evaluate):
        with pytest.raises(ConfigError, match="ended before its first; start it again") as caught:
            use(run_dir)
        assert f"run_dir={run_dir}" in str(caught.value)
    assert tree(run_dir) == before
    cfg = compose_run("state_reach", *SHORT, f"run_dir={run_dir}")
    assert start(cfg)["status"] == "finished"
    assert (run_dir / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "left",
    [
        [],
        ["replay/layout.json", "replay/state.bin"],
        ["replay/.layout.json.tmp", "config.yaml"],
        ["config.yaml", ".config.yaml.tmp", "checkpoints/.commit-step_000000000/manifest.json"],
        ["replay/layout.json", "config.yaml", "metrics.csv"],
    ],
    ids=" ".join,
)
def test_what_start_ups_leave_behind_is_cleared_and_nothing_else(finished, tmp_path, left):
    (tmp_path / ".lock").write_text(LOCK)
    for name in [*left, "tensorboard/theirs", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("left over")
    if "config.yaml" in left:
        shutil.copy(finished / "config.yaml", tmp_path)
    if "metrics.csv" in left:  # whose header comes before the first commit
        header = (finished / "metrics.csv").read_text().partition("\n")[0]
        (tmp_path / "metrics.csv").write_text(f"{header}\n")
    with pytest.raises(KeyboardInterrupt), claimed(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", "tensorboard", "notes.txt"}
        (tmp_path / "replay").mkdir()
        raise KeyboardInterrupt
    assert {path.name for path in tmp_path.iterdir()} == {"tensorboard", "notes.txt"}


def test_the_folders_that_were_made_for_a_run_go_with_it_and_no_others(tmp_path):
    (tmp_path / "p0").mkdir()
    for path in ("p0/p1/p2/p3", "p0/p1/p4"):
        with pytest.raises(KeyboardInterrupt), claimed(tmp_path / path):
            assert (tmp_path / path).is_dir()
            if path.endswith("p4"):
                (tmp_path / "p0" / "p1" / "notes.txt").write_text("mine")
            raise KeyboardInterrupt
        kept = ["p0/p1", "p0/p1/notes.txt"] if path.endswith("p4") else []
        assert sorted(map(str, tree(tmp_path))) == ["p0", *kept]


@pytest.mark.parametrize(
    "files",
    [
        {"checkpoints/step_000000800/checkpoint.pt": "", "config.yaml": "\nreplay:"},
        {"checkpoints/step_000000800": "a file"},
        {"checkpoints/epoch=1.ckpt": "somebody else's"},
        {"config.yaml": "model: mine\n"},
        {"replay/episodes.npz": "mine"},
        {"replay/state.bin": "", "metrics.csv": "env_steps\n200\n"},
        {"replay/state.bin": "", "metrics.csv": "env_steps,loss\n200,1.0\n"},
        {"summary.json": "{}"},
    ],
    ids=" ".join,
)
def test_nothing_trained_and_nothing_of_others_is_ever_cleared(compose_run, tmp_path, files):
    for name, text in {**files, ".lock": LOCK}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = tree(tmp_path)
    with pytest.raises(ConfigError, match=r"run_dir=.*: expected a folder without a run") as caught:
        start(compose_run("state_reach", *SHORT, f"run_dir={tmp_path}"))
    points_at_resume = "resume=" in str(caught.value)
    assert points_at_resume == any(name.startswith("checkpoints/step") for name in files)
    assert tree(tmp_path) == before


def test_a_missing_replay_is_named_and_none_is_made(copied):
    changes = {"total_env_steps": 804}
    (copied / "replay" / "layout.json").unlink()
    before = tree(copied / "replay")
    with pytest.raises(RunFailedError, match="replay: the replay's files are missing"):
        resume(copied, changes, force=False)
    assert tree(copied / "replay") == before  # the rows are not taken for left-overs
    shutil.rmtree(copied / "replay")
    with pytest.raises(RunFailedError, match="replay: the replay's files are missing"):
        resume(copied, changes, force=False)
    assert not (copied / "replay").exists()


def test_resuming_a_finished_run_says_so_and_starts_nothing(copied, monkeypatch, capsys):
    monkeypatch.setattr(runs, "build_parts", lambda *_: pytest.fail("built the run"))
    before = tree(copied)
    assert continue_run(copied)["status"] == "finished"
    assert capsys.readouterr().out.startswith("finished at 800 env steps; give total_env_steps=M")
    (copied / "summary.json").write_bytes(b"\x80\x04\x95" + b"[" * 100_000)  # hostile, or torn
    with pytest.raises(pytest.fail.Exception, match="built the run"):
        continue_run(copied)
    before[Path("summary.json")] = (copied / "summary.json").read_bytes()
    assert {**tree(copied), Path(".lock"): None} == {**before, Path(".lock"): None}


def test_strange_files_in_a_run_are_kept_and_do_not_disturb(copied, caplog):
    checkpoints = copied / "checkpoints"
    (checkpoints / "notes").mkdir()
    (checkpoints / "step_000000804").write_text("a file")
    (newest_valid(checkpoints) / ".DS_Store").write_text("theirs")
    caplog.clear()
    summary = resume(copied, {"total_env_steps": 804}, force=False)
    assert summary["status"] == "finished"
    assert "notes" in caplog.text
    assert ".DS_Store" in caplog.text
    assert newest_valid(checkpoints).name == "step_000000804_1"
    assert (checkpoints / "notes").is_dir()


def test_evaluation_settings_may_change_on_resume(copied):
    changes = {
        "total_env_steps": 820,
        "callbacks.evaluation.every_env_steps": 808,
        "callbacks.evaluation.episodes": 3,
        "callbacks.evaluation.n_envs": 1,
        "callbacks.evaluation.workers": 1,
        "callbacks.progress_refresh_s": 2.5,
    }
    summary = resume(copied, changes, force=False)
    stored = yaml.safe_load((copied / "config.yaml").read_text())
    evaluations = yaml.safe_load((copied / "evaluation.json").read_text())
    done = [(entry["env_steps"], entry["episodes"]) for entry in evaluations]
    assert done == [(400, 4), (800, 4), (808, 3), (820, 3)]
    assert stored["callbacks"]["evaluation"]["n_envs"] == 1
    assert stored["callbacks"]["progress_refresh_s"] == 2.5
    assert summary["env_steps"] == 820
    assert resume(copied, {"total_env_steps": 824}, force=False)["env_steps"] == 824


def test_what_is_given_is_held_against_the_schema(copied):
    with pytest.raises(ConfigError, match="total_env_steps='many': expected a positive whole"):
        resume(copied, {"total_env_steps": "many"}, force=False)
    path = copied / "config.yaml"
    stored = yaml.safe_load(path.read_text())
    for broken, message in (
        ({**stored, "callbacks": 5}, "callbacks=5: expected the keys"),
        ({**stored, "zzz": 5}, "zzz=5: expected a key that something reads"),
        ({key: value for key, value in stored.items() if key != "replay"}, "the key is missing"),
    ):
        path.write_text(yaml.safe_dump(broken))
        with pytest.raises(ConfigError, match=message):
            resume(copied, {"callbacks.evaluation.episodes": 5}, force=False)


def test_other_settings_may_not(copied):
    with pytest.raises(ConfigError, match=r"callbacks\.log_every_env_steps: 200 -> 100"):
        changes = {"total_env_steps": 900, "callbacks.log_every_env_steps": 100}
        resume(copied, changes, force=False)


def test_printed_commands_are_quoted_for_a_shell(finished, tmp_path):
    run_dir = Path(shutil.copytree(finished, tmp_path / "it's a $run"))
    quoted = f"'{tmp_path}/it'\"'\"'s a $run'"
    with pytest.raises(ConfigError) as caught:
        continue_run(run_dir / "checkpoints")
    assert f"use resume={quoted}" in str(caught.value)
    with pytest.raises(ConfigError) as caught, claimed(run_dir):
        pass
    assert f"resume={quoted}" in str(caught.value)
    (run_dir / "replay" / "state.bin").write_bytes(b"")
    with pytest.raises(RunFailedError) as failed:
        resume(run_dir, {"total_env_steps": 804}, force=False)
    assert str(failed.value).endswith(f"to continue: python src/train.py resume={quoted}")
