"""Camera frames of FetchPush, frames per second of one process: 84x84, and small averaged ones.

    python scripts/bench/render.py [--quick]

Rows: ``render_fast`` holds our quality ``fast`` against gymnasium's ``rgb_array`` at the same size
and camera; ``render_reference`` our pixel-identical quality; ``render_fast_close`` quality ``fast``
on the close camera of `obs/pixels_strict`, which the other side is given too; ``render_32x32_k``
32x32 frames of the close camera with ``obs.pixels.supersample=k`` against its 84x84 frames. Only
the calls that render are timed, one new scene each; the sides take turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import yaml
from table import ROOT, alternate, main, ratio_row, say

ENV_ID, EPISODE_STEPS, SIZE = "FetchPush-v4", 50, 84
SMALL_SIZE, SUPERSAMPLED = 32, (1, 2, 4)
FAST_TARGET, REFERENCE_TARGET = 2.5, 0.8


def close_camera() -> dict[str, Any]:
    """The camera of the strict pixel experiments."""
    group = yaml.safe_load((ROOT / "configs" / "obs" / "pixels_strict.yaml").read_text())
    camera: dict[str, Any] = group["pixels"]["camera"]
    return camera


def our_env(
    quality: str, camera: dict[str, Any] | None, size: int = SIZE, supersample: int = 1
) -> Any:
    """Our environment with the goal drawn, as gymnasium draws it."""
    from fetchlab.envs.fetch import FetchEnv
    from fetchlab.envs.spec import TaskSpec
    from fetchlab.schema import Camera, Pixels

    spec = None if camera is None else Camera(**camera)
    pixels = Pixels(size, supersample, spec, {}, True, quality)
    return FetchEnv(TaskSpec(ENV_ID, EPISODE_STEPS, pixels))


def gymnasium_env(camera: dict[str, Any] | None) -> Any:
    """The environment of gymnasium; its viewer takes the camera when it first renders."""
    import gymnasium

    import fetchlab.envs.fetch  # noqa: F401  registers the tasks, without a release notice

    env = gymnasium.make(ENV_ID, render_mode="rgb_array", width=SIZE, height=SIZE)
    if camera is not None:
        # A viewer copies arrays into its camera and sets plain numbers.
        given = {**camera, "lookat": np.array(camera["lookat"])}
        env.unwrapped.mujoco_renderer.default_cam_config = given
    env.reset(seed=0)
    env.render()
    return env


def our_frames(env: Any, actions: np.ndarray) -> float:
    """Frames per second."""
    env.reset(0)
    return _frames(env.step, env.render_frame, actions)


def gymnasium_frames(env: Any, actions: np.ndarray) -> float:
    """Frames per second."""
    env.reset(seed=0)
    # Several renderers share this thread; gymnasium's expects to be alone with its context.
    env.unwrapped.mujoco_renderer.viewer.make_context_current()
    return _frames(env.step, env.render, actions)


def _frames(
    step: Callable[[np.ndarray], Any], render: Callable[[], Any], actions: np.ndarray
) -> float:
    seconds = 0.0
    for action in actions:
        step(action)
        began = time.perf_counter()
        render()
        seconds += time.perf_counter() - began
    return len(actions) / seconds


def bench(quick: bool) -> None:
    """Print the rows."""
    from fetchlab.preflight.renderer import choose_renderer

    frames, repetitions = (20, 5) if quick else (EPISODE_STEPS, 15)
    say(f"renderer: {choose_renderer().description}")
    near = close_camera()
    sides = {
        "fast": (our_frames, our_env("fast", None)),
        "gymnasium": (gymnasium_frames, gymnasium_env(None)),
        "reference": (our_frames, our_env("reference", None)),
        "fast, close": (our_frames, our_env("fast", near)),
        "gymnasium, close": (gymnasium_frames, gymnasium_env(near)),
    }
    for k in SUPERSAMPLED:
        sides[f"32x32, {k}"] = (our_frames, our_env("fast", near, SMALL_SIZE, k))
    actions = np.random.default_rng(0).uniform(-1, 1, (frames, 4)).astype(np.float32)
    measures = {name: partial(side, env, actions) for name, (side, env) in sides.items()}
    measured = alternate(measures, repetitions, "frames/s")
    theirs = measured["gymnasium"]
    ratio_row("render_fast", measured["fast"], theirs, at_least=FAST_TARGET)
    ratio_row("render_reference", measured["reference"], theirs, at_least=REFERENCE_TARGET)
    ratio_row("render_fast_close", measured["fast, close"], measured["gymnasium, close"])
    for k in SUPERSAMPLED:
        ratio_row(f"render_32x32_{k}", measured[f"32x32, {k}"], measured["fast, close"])
    for _, env in sides.values():
        env.close()


if __name__ == "__main__":
    main(__doc__, bench)
