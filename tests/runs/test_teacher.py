"""Teacher and student as whole runs: the teacher's folder is needed once, at the start."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from tiny_runs import TWO_EVALUATIONS, play_run

import train as entry
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.errors import ConfigError
from fetchlab.run import resume, start, start_or_resume
from fetchlab.teacher import with_teacher

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from run_hash import run_hash

TINY = ("trainer=cpu", *TWO_EVALUATIONS)
STUDENT = ("pixel_push_laptop_student", *TINY)


def copy(teacher, folder):
    return Path(shutil.copytree(teacher, folder))


@pytest.mark.parametrize("student", ["estimate", pytest.param("actor", marks=pytest.mark.full)])
def test_a_student_stops_resumes_and_plays_without_its_teachers_folder(
    student, compose_run, teacher, tmp_path
):
    whole, parts, theirs = tmp_path / "whole", tmp_path / "parts", tmp_path / "teacher"
    args = (f"algo.student={student}", "algo.teacher_share=0.3")
    start(compose_run(*STUDENT, *args, f"teacher={teacher}", f"run_dir={whole}"))
    copy(teacher, theirs)
    half = (f"teacher={theirs}", "total_env_steps=28", f"run_dir={parts}")
    start(compose_run(*STUDENT, *args, *half))
    shutil.rmtree(theirs)
    summary = resume(parts, {"total_env_steps": 56}, force=False)
    assert (summary["status"], summary["grad_updates"]) == ("finished", 9)
    assert run_hash(parts)["H"] == run_hash(whole)["H"]

    before = read_payload(newest_valid(teacher / "checkpoints"))["state_dict"]
    after = read_payload(newest_valid(parts / "checkpoints"))["state_dict"]
    assert all(after[f"teacher.{name}"].equal(before[name]) for name in before)
    evaluation = json.loads((parts / "evaluation.json").read_text())[-1]
    played = play_run(parts, 2, seed=0)
    of_the_curve = {"phase", "critic_loss"}
    assert {
        key: played[key] for key in evaluation.keys() - of_the_curve
    }.items() <= evaluation.items()
    dense = {"task.env_id": "FetchPushDense-v4"}
    assert play_run(parts, 1, dense)["return"] > -10


def test_a_checkpoint_of_the_teachers_may_be_named(compose_run, teacher, tmp_path, monkeypatch):
    older = min((teacher / "checkpoints").glob("step_*"))
    assert older != newest_valid(teacher / "checkpoints")
    run_dir = tmp_path / "run"
    start(compose_run(*STUDENT, "total_env_steps=28", f"teacher={older}", f"run_dir={run_dir}"))
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())["teacher"]
    assert stored["ckpt_path"] == str(older)
    assert stored["experiment"] == "vector_push"
    before = read_payload(older)["state_dict"]
    after = read_payload(newest_valid(run_dir / "checkpoints"))["state_dict"]
    assert all(after[f"teacher.{name}"].equal(before[name]) for name in before)

    stored["algo"]["_target_"] = "os.system"  # what a stored teacher names is held to the list
    whole = yaml.safe_load((run_dir / "config.yaml").read_text())
    (run_dir / "config.yaml").write_text(yaml.safe_dump({**whole, "teacher": stored}))
    with pytest.raises(ConfigError, match=r"^teacher.algo._target_='os.system': expected a target"):
        resume(run_dir, {"total_env_steps": 56}, force=False)


def test_a_teacher_is_the_same_by_any_spelling_and_another_is_one_difference(
    compose_run, teacher, tmp_path, monkeypatch
):
    (link := tmp_path / "link").symlink_to(teacher)
    monkeypatch.chdir(teacher / "checkpoints")
    given = (*STUDENT, "total_env_steps=28", f"run_dir={tmp_path / 'run'}")
    start(compose_run(*given, "teacher=.."))
    checkpoint = newest_valid(teacher / "checkpoints")
    monkeypatch.chdir(tmp_path)
    for same in (teacher, f"{teacher}/checkpoints/..", link, f"link/checkpoints/{checkpoint.name}"):
        cfg = compose_run(*given, f"teacher={same}")
        assert start_or_resume(cfg, False)["status"] == "finished"
    with pytest.raises(ConfigError) as caught:
        start_or_resume(compose_run(*given, "teacher=other"), False)
    assert f"it differs in teacher: {checkpoint} -> other; give" in str(caught.value)
    longer = compose_run(*given, "teacher=other", "total_env_steps=32")  # forced: with its own
    assert start_or_resume(longer, True)["env_steps"] == 32


def test_a_published_run_of_best_weights_alone_teaches(compose_run, teacher, tmp_path):
    theirs = copy(teacher, tmp_path / "published")
    for step in (theirs / "checkpoints").glob("step_*"):
        shutil.rmtree(step)
    best = newest_valid(theirs / "checkpoints", "best")
    told = with_teacher(compose_run(*STUDENT, f"teacher={theirs}"))
    assert told["teacher"]["ckpt_path"] == str(best)


def edited(folder, change):
    path = folder / "config.yaml"
    cfg = yaml.safe_load(path.read_text())
    change(cfg)
    path.write_text(yaml.safe_dump(cfg))


def missing(folder, compose_run):
    shutil.rmtree(folder)
    return "a run's folder, with config.yaml and checkpoints"


def incomplete(folder, compose_run):
    for path in (folder / "checkpoints").iterdir():
        (path / "checkpoint.pt").write_bytes(b"")
    return "a valid checkpoint"


def of_pixels(folder, compose_run):
    edited(folder, lambda cfg: cfg.update(compose_run("pixel_push_strict", *TINY)))
    return "a run without pixels, which knows the state"


def of_another_task(folder, compose_run):
    task = compose_run("state_reach")["task"]
    edited(folder, lambda cfg: cfg.update(task=task))
    return "the student's task.env_id='FetchPush-v4', and its own is 'FetchReach-v4'"


def of_other_networks(folder, compose_run):
    edited(folder, lambda cfg: cfg["algo"].update(hidden=[8]))
    return "a checkpoint of the same networks"


def of_the_state(folder, compose_run):
    run_dir = folder.parent / "state"
    start(compose_run("state_push_fast", *TINY, "total_env_steps=28", f"run_dir={run_dir}"))
    shutil.rmtree(folder)
    run_dir.rename(folder)
    return "actor, for the teacher is given state, which is not estimated"


FAULTS = (missing, incomplete, of_pixels, of_another_task, of_other_networks, of_the_state)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_teacher_that_cannot_teach_is_refused_in_one_line(fault, compose_run, teacher, tmp_path):
    theirs = copy(teacher, tmp_path / "teacher")
    expected = fault(theirs, compose_run)
    with pytest.raises(ConfigError) as caught:
        start(compose_run(*STUDENT, f"teacher={theirs}", f"run_dir={tmp_path / 'run'}"))
    assert "\n" not in str(caught.value)
    assert expected in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("experiment=pixel_push_laptop_student",), "python src/train.py experiment=vector_push"),
        (("experiment=state_push", "teacher=TEACHER"), "null for an algorithm that has none"),
        (("experiment=state_push", "algo=distill", "teacher=12"), "a folder, or null"),
        (("experiment=state_push", "+algo.teacher=logs"), "a key that something reads"),
    ],
)
def test_a_teacher_is_given_to_who_learns_from_one(args, says, teacher, capsys, monkeypatch):
    args = [arg.replace("TEACHER", str(teacher)) for arg in args]
    monkeypatch.setattr(sys, "argv", ["src/train.py", *args])
    with pytest.raises(SystemExit) as end:
        entry.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2
    assert line.startswith(("error: teacher=", "error: algo.teacher="))
    assert says in line
