"""A newcomer's page: a run that was only trained, with verdict, curve and a video made for it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import report


def test_a_run_without_videos_is_filmed_beside_the_page(copied, tmp_path, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    out = tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["report.py", f"runs={copied}", f"out={out}"])
    report.main()
    page = (out / "report.html").read_text()
    assert (
        page.count('<video src="data:video/mp4;base64,') == 3 == len([*(out / "videos").iterdir()])
    )
    assert "Success over env steps" in page and 'class="verdict"' in page
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


@pytest.mark.parametrize(
    ("given", "args"),
    [
        (" logs/a  logs/b* ", ["runs=[logs/a,logs/b*]"]),
        ("logs/a", ["runs=logs/a"]),
        ("[logs/a,logs/b]", ["runs=[logs/a,logs/b]"]),
        ("", []),
    ],
)
def test_make_reports_all_of_the_runs_that_it_is_given(given, args):
    command = ["make", "--dry-run", "report", f"RUNS={given}", "ARGS=films=0"]
    root = Path(__file__).parents[2]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in said.splitlines() if "src/report.py" in line]
    assert shlex.split(line)[2:] == [*args, "films=0"]
