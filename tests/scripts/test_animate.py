"""The animated picture: halves, the frame that tells the outcome, size; from weights alone."""

from __future__ import annotations

import sys
from collections import Counter

import animate
import numpy as np
import pytest
from known_specs import PUSH
from PIL import Image

from fetchlab.build import build_module
from fetchlab.checkpoint.torch_io import write_payload
from fetchlab.collect.video import FAILED, RUNNING, SUCCEEDED
from fetchlab.config import typed
from fetchlab.run_report import write_config


def command(monkeypatch, *args):
    """The exit code of `python scripts/animate.py <args>`."""
    monkeypatch.setattr(sys, "argv", ["animate.py", *map(str, args)])
    try:
        animate.main()
    except SystemExit as end:
        return end.code
    return 0


def stored(run_dir, cfg):
    """A run's folder with a configuration and the weights of a policy that learned nothing."""
    run_dir.mkdir()
    write_config(run_dir, cfg)
    weights = {"state_dict": build_module(typed(cfg), PUSH).state_dict(), "env_steps": 0}
    write_payload(run_dir / "checkpoints", "step_000000000", weights, 0)
    return run_dir


def test_a_picture_of_a_policy_that_sees(compose_run, tmp_path, monkeypatch, capsys):
    cfg = compose_run("pixel_push_laptop", "task.max_episode_steps=10", "trainer=cpu")
    run_dir, path = stored(tmp_path / "run", cfg), tmp_path / "policy.gif"
    played = []
    play = animate.play
    monkeypatch.setattr(animate, "play", lambda *args: played.append(play(*args)) or played[-1])
    assert command(monkeypatch, run_dir, path, "--episodes", 2) == 0
    ((shown, successes),) = played
    said = capsys.readouterr().out
    assert f"{sum(successes)} of 2 episodes succeed; 12 frames of 402 x 204" in said
    assert path.stat().st_size <= 1_000_000
    with Image.open(path) as picture:
        assert (picture.n_frames, picture.size, picture.info["loop"]) == (12, (402, 204), 0)
        frames, shown_ms = [], []
        for index in range(12):  # 11 frames an episode, every second of them
            picture.seek(index)
            frames.append(np.asarray(picture.convert("RGB"), int))
            shown_ms.append(picture.info["duration"])
    assert shown_ms == [80, 80, 80, 80, 80, 1000] * 2
    borders = [frame[0, 0] for frame in frames]
    outcomes = [SUCCEEDED if success else FAILED for success in successes]
    expected = [colour for one in outcomes for colour in [RUNNING] * 5 + [one]]
    assert np.abs(np.array(borders) - expected).max() <= 20
    for index, pictures in enumerate(shown):
        left, right = pictures[:, 6:-6, 6:198], pictures[:, 6:-6, -198:-6]
        whole = frames[6 * index]
        assert np.abs(whole[6:-6, 6:198] - left[0]).mean() < 8
        assert np.abs(whole[6:-6, -198:-6] - right[0]).mean() < 8
        assert left[0].std() > 10  # there is something to see
        # of 32 x 32 pixels, each a square of 6 x 6
        assert (right == right[:, ::6, ::6].repeat(6, 1).repeat(6, 2)).all()
        assert len(Counter(map(bytes, right[:, ::6, ::6]))) == 11  # and it moves


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("out.mp4", (), "out.mp4': expected a path that ends in .gif"),
        ("absent/out.gif", (), "in a folder that exists"),
        ("out.gif", ("--episodes", 0), "--episodes=0: expected a positive whole number"),
        ("out.gif", (), "expected a policy that sees images"),
    ],
)
def test_slips_are_one_line(compose_run, tmp_path, monkeypatch, capsys, path, more, words):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    cfg = compose_run("state_reach", "trainer=cpu")
    write_config(run_dir, cfg)
    write_payload(run_dir / "checkpoints", "step_000000000", {"env_steps": 0}, 0)
    assert command(monkeypatch, run_dir, tmp_path / path, *more) == 2
    err = capsys.readouterr().err
    assert words in err and err.count("\n") == 1
