"""A newcomer's page: a run that was only trained, with verdict, curve and a video made for it."""

from __future__ import annotations

import sys

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
