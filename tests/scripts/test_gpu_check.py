"""`scripts/gpu_check.sh`: every stage gets its turn, whatever happens to the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from processes import gone

ROOT = Path(__file__).parents[2]
CHECK = ROOT / "scripts" / "gpu_check.sh"
STAGES = [
    *("versions", "toy", "resume", "profile", "variants", "frames"),
    *("training-4", "determinism", "run"),
]
#: An interpreter that does one thing for each stage's rows: `$3`, and `$7` environments.
INTERPRETER = """#!/bin/sh
[ "$1" != -c ] || exit 0  # no CUDA device
case "$3 $*" in
{cases}
*) echo '{{"name": "figure", "path": "'"$PYTHONPATH"'"}}' ;;
esac
"""


@pytest.fixture
def check(tmp_path):
    """Start the script with an interpreter that does what `cases` say, and collect its end."""
    (tmp_path / "tmp").mkdir()
    started = []

    def start(*cases: str, seconds: int, out: str = "out") -> subprocess.Popen[str]:
        interpreter = tmp_path / "python"
        interpreter.write_text(INTERPRETER.format(cases="\n".join(cases)))
        interpreter.chmod(0o755)
        host = {"PYTHON": interpreter, "PYTHONPATH": "/host/site", "TMPDIR": tmp_path / "tmp"}
        process = subprocess.Popen(
            ["bash", CHECK, tmp_path / out, str(seconds)],
            env={**os.environ, **host},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read(out):
    """(stage -> its row, in order), and the figures' rows."""
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    stages = {row["stage"]: row for row in rows if row["name"] == "stage"}
    return stages, [row for row in rows if row["name"] != "stage"]


def hanging(rows, pid_file):
    """A stage without an end whose child, as a simulator worker does, ignores SIGTERM."""
    child = f"(trap '' TERM; exec sleep 600) & echo $! >{pid_file}"
    return f"{rows}) {child}; sleep 600 ;;"


def test_a_stage_that_crashes_hangs_or_is_mute_does_not_end_the_others(check, tmp_path):
    process = check(
        "toy*) echo 'it broke' >&2; exit 3 ;;",
        "updates*) ;;",
        "variants*) kill -KILL $$ ;;",  # as the kernel does where memory runs out
        hanging("*--envs' '4*", tmp_path / "worker"),
        seconds=40,
    )
    out, err = process.communicate(timeout=60)
    stages, figures = read(tmp_path / "out")
    assert list(stages) == STAGES
    assert {name: row["note"] for name, row in stages.items() if not row["ok"]} == {
        "toy": "failed with exit status 3",
        "profile": "wrote no row",
        "variants": "failed with exit status 137",
        "training-4": "no end within 4 s",
    }
    assert [row["path"] for row in figures] == ["/host/site"] * (len(STAGES) - 4)
    assert process.returncode == 1
    assert out.startswith("gpu_check: rehearsal, no CUDA device: the figures mean nothing; 40 s\n")
    assert err.splitlines() == [
        "gpu_check: failed: toy (failed with exit status 3)",
        "gpu_check: failed: profile (wrote no row)",
        "gpu_check: failed: variants (failed with exit status 137)",
        "gpu_check: failed: training-4 (no end within 4 s)",
    ]
    assert gone([int((tmp_path / "worker").read_text())])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["log.txt", "rows.jsonl"]
    assert "it broke" in (tmp_path / "out" / "log.txt").read_text()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_without_time_every_stage_says_so(check, tmp_path):
    process = check(seconds=9)
    process.communicate(timeout=60)
    stages, figures = read(tmp_path / "out")
    assert process.returncode == 1
    assert list(stages) == STAGES
    assert {row["note"] for row in stages.values()} == {"not begun: too little time is left"}
    assert figures == []


def test_a_host_that_wants_its_machine_back_gets_it(check, tmp_path):
    process = check(hanging("resume*", tmp_path / "worker"), seconds=600)
    deadline = time.monotonic() + 20
    while not (tmp_path / "worker").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.startswith("gpu_check: stopped by a signal after ")
    assert list(read(tmp_path / "out")[0]) == ["versions", "toy"]
    assert gone([int((tmp_path / "worker").read_text())])
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "0 arguments"),
        ([""], "OUT is empty: expected a folder"),
        (["/proc/fetchlab"], "OUT=/proc/fetchlab: expected a folder that can be written"),
        (["{used}"], "expected a folder without an earlier check's rows.jsonl"),
        (["{new}", "9m"], "SECONDS=9m: expected a positive whole number"),
        (["{new}", "0"], "SECONDS=0: expected a positive whole number"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path, arguments, words):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "rows.jsonl").write_text("kept\n")
    given = [one.format(used=tmp_path / "used", new=tmp_path / "new") for one in arguments]
    done = subprocess.run(["bash", CHECK, *given], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert not (tmp_path / "new").exists()
    assert (tmp_path / "used" / "rows.jsonl").read_text() == "kept\n"


@pytest.mark.parametrize("python", ["false", "/a/missing/python"])
def test_an_interpreter_without_torch_is_one_line(tmp_path, python):
    environment = {**os.environ, "PYTHON": python}
    command = ["bash", CHECK, tmp_path / "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"error: PYTHON={python}: expected an interpreter that imports")


def test_captured_and_eager_updates_are_rehearsed_here(check, tmp_path):
    """The rows themselves, by this interpreter: what every update is built with."""
    process = check(f'toy*) exec {sys.executable} "$@" ;;', seconds=600)
    process.communicate(timeout=120)
    stages, figures = read(tmp_path / "out")
    assert process.returncode == 0
    assert all(row["ok"] for row in stages.values())
    weights, losses = figures[1:3]
    assert (weights["name"], weights["value"]) == ("gpu_toy_weight_difference", 0.0)
    assert (losses["name"], losses["ok"]) == ("gpu_graphs_loss_difference", True)
    assert weights["rehearsal"]
    assert weights["experiment"] == "pixel_push_strict_gpu"


@pytest.mark.full
def test_a_rehearsal_of_all_stages(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    before = sorted(ROOT.glob("*")), sorted(ROOT.glob("logs/*"))
    done = subprocess.run(
        ["bash", CHECK, "out"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    stages, figures = read(tmp_path / "out")
    assert list(stages) == STAGES
    assert stages["run"]["at_s"] < 300
    found = {row["name"]: row for row in figures}
    assert found["gpu_host"]["renders"] in ("CPU", "GPU")
    assert found["gpu_exact_resume"]["ok"]
    assert found["gpu_run"]["summary"]["status"] in ("finished", "stopped")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 8
    assert all(len(path.relative_to(tmp_path / "out").parts) <= 3 for path in files)
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (sorted(ROOT.glob("*")), sorted(ROOT.glob("logs/*"))) == before
