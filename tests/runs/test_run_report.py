"""What a run says of itself: its first lines and its last one."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from fetchlab.config import typed
from fetchlab.run_report import announce, learned


def entry(env_steps, success_rate):
    return {"env_steps": env_steps, "success_rate": success_rate, "episodes": 100}


def test_the_last_line_by_hand():
    history = [entry(10_000, 0.07), entry(60_000, 0.99), entry(120_000, 0.93)]
    assert learned(history, 1_872.0, Path("/runs/my run")) == (
        "success 93% of 100 evaluation episodes after 120,000 env steps (7% after 10,000) in "
        "31 min; watch it: python src/evaluate.py run='/runs/my run' video=true"
    )
    assert learned(history[:1], 50.0, Path("r")).startswith(
        "success 7% of 100 evaluation episodes after 10,000 env steps in 50 s; "
    )


@pytest.mark.parametrize(
    ("threads", "workers", "cores", "warned"),
    [(1, 1, 1, False), (1, 1, 2, False), (2, 1, 2, True), (3, 13, 16, False), (4, 13, 16, True)],
)
def test_the_first_lines_say_what_learns_and_warn_of_more_threads_than_cores(
    compose_run, monkeypatch, capsys, threads, workers, cores, warned
):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    used = {"device": "cpu", "threads": threads, "workers": workers, "renderer": "none"}
    layout = SimpleNamespace(disk_bytes=lambda: 1e6, bytes_per_transition=lambda: 70.0)
    parts = SimpleNamespace(
        memory_bytes=1e9,
        data=SimpleNamespace(replay=SimpleNamespace(storage=SimpleNamespace(layout=layout))),
        env=SimpleNamespace(base_env=SimpleNamespace(env_spec=SimpleNamespace(restorable=True))),
    )
    run = typed(compose_run("pixel_push_laptop"))
    announce(run, Path("/runs/mine"), parts, {"fingerprint": used})
    said = capsys.readouterr().out
    assert (
        "learns    FetchPush-v4 by SAC; the policy is given pixels (as estimated_goal), proprio, "
        "desired_goal" in said
    )
    words = f"\nwarning   {threads + workers} threads and workers wait for each other on {cores}"
    assert (words in said) == warned == ("warning" in said)
