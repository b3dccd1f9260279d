"""Evaluate a stored policy: its own task, its own observation, seeds that training never used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fetchlab import config
from fetchlab.build import build_env, state_layout
from fetchlab.callbacks.evaluation import describe
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.collect.rollout import episode_seeds, rollout
from fetchlab.collect.video import write_video
from fetchlab.learner import build_module
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.types import ConfigError, RunFailedError

RECORDED_EPISODES = 4
FRAMES_PER_S = 25  # an env step is 0.04 s
MAGNIFY = 4


def evaluate_run(
    run_dir: Path, episodes: int, video: bool, checkpoint: Path | None
) -> dict[str, Any]:
    """Play episodes with the policy's mode.

    Args:
        run_dir: a run's folder.
        episodes: how many, each with its own seed.
        video: also write the first episodes to ``videos/``.
        checkpoint: folder of a checkpoint; None takes the newest valid one.

    Returns:
        `describe`'s entries, with ``experiment`` and ``videos`` (paths).

    Raises:
        ConfigError: ``run_dir`` holds no run.
        RunFailedError: no valid checkpoint.
    """
    if not (run_dir / "config.yaml").is_file():
        raise ConfigError("run", str(run_dir), "a run's folder with config.yaml", "check the path")
    cfg = load_run_config(run_dir / "config.yaml", allowed_targets(config.CONFIGS))
    try:
        payload = read_payload(checkpoint or newest_valid(run_dir / "checkpoints"))
    except CheckpointError as error:
        raise RunFailedError(str(error)) from error
    render = config.sees_pixels(cfg) or video
    if render:
        choose_renderer()
    n_envs = min(episodes, cfg["callbacks"]["evaluation"]["n_envs"])
    env = build_env(cfg, n_envs, None, render)
    try:
        module = build_module(cfg, state_layout(env))
        module.load_state_dict(payload["state_dict"])
        module.eval()
        seeds = episode_seeds(cfg["seed"], episodes)
        played = rollout(env, module.act, seeds, RECORDED_EPISODES if video else 0)
    finally:
        env.close()
    paths = []
    for index, frames in enumerate(played.frames):
        path = run_dir / "videos" / f"{payload['env_steps']:09d}_{index}.mp4"
        write_video(frames.numpy(), path, FRAMES_PER_S, MAGNIFY)
        paths.append(str(path))
    result = describe(played, int(payload["env_steps"]))
    return {"experiment": cfg["experiment"], **result, "videos": paths}
