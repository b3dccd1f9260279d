"""A run that renders nothing needs no OpenGL; one that renders says in one line what is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = (
    *("debug=default", "total_env_steps=20", "collect.n_envs=2", "collect.workers=1"),
    *("collect.learning_starts=10", "task.max_episode_steps=5", "replay.capacity=20"),
    *("callbacks.evaluation.every_env_steps=20", "callbacks.evaluation.episodes=2"),
    *("trainer=cpu", "replay.margin_env_steps=20"),
)
#: As with a library that is missing, `import mujoco` raises.
BROKEN = "nonsense"


def run(script, *args):
    names = ("MUJOCO_GL", "PYOPENGL_PLATFORM", "FETCHLAB_RENDERER")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    return subprocess.run(
        [sys.executable, f"src/{script}.py", *args],
        cwd=ROOT,
        env={**inherited, "MUJOCO_GL": BROKEN},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_run_that_renders_nothing_needs_no_opengl(tmp_path):
    args = ("experiment=state_reach", *TINY, f"run_dir={tmp_path / 'run'}")
    done = run("train", *args)
    assert done.returncode == 0, done.stderr
    assert "renderer  none" in done.stdout
    done = run("evaluate", f"run={tmp_path / 'run'}", "episodes=2")
    assert done.returncode == 0, done.stderr


def test_what_renders_without_opengl_is_refused_in_one_line(tmp_path):
    args = ("experiment=pixel_push_nodrq", *TINY, f"run_dir={tmp_path / 'run'}")
    done = run("train", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: MUJOCO_GL='nonsense': expected an OpenGL backend")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
