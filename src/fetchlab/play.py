"""Play a stored policy: its own task, its own observation, episodes that nothing else uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from fetchlab import config
from fetchlab.build import build_env, build_module
from fetchlab.callbacks.evaluation import describe
from fetchlab.checkpoint.find import newest_policy, warn_of_strangers
from fetchlab.checkpoint.manifest import CheckpointError, unlisted
from fetchlab.checkpoint.torch_io import load_weights
from fetchlab.collect.rollout import Episodes, episode_seeds, rollout
from fetchlab.collect.video import VideoUnavailableError, load_encoder, write_video
from fetchlab.durable import write_json
from fetchlab.errors import ConfigError, RunFailedError
from fetchlab.preflight import numerics
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.preflight.sizes import learner_threads
from fetchlab.run import STOPS_A_RUN
from fetchlab.run_folder import require_run, require_writable
from fetchlab.schema import Run

RECORDED_EPISODES = 4
FRAMES_PER_S = 25  # an env step is 0.04 s
VIDEO_SIDE = 336  # pixels, or a little more: images are enlarged by whole factors, 84 to four times
#: Added to the seeds of training evaluations: `best_` was chosen by those very episodes. Training's
#: own seeds lie below 2^32.
OWN_SEEDS = 1_000_000_000_000


def evaluate_run(
    run_dir: str | Path,
    episodes: int,
    video: bool,
    checkpoint: str | Path | None,
    seed: int | None = None,
    trusted_modules: Sequence[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Play episodes with the policy's mode.

    Args:
        run_dir: a run's folder.
        episodes: how many, each with its own seed.
        video: also write the first episodes to ``videos/``.
        checkpoint: folder of a checkpoint; None takes the newest valid one, where a run was
            published without those that it could be resumed from the best weights.
        seed: play what a training evaluation of a run with this seed plays; None plays episodes
            that neither training nor its evaluations use.
        trusted_modules: that the run's configuration may name beside the project's.
        changes: values that replace the run's own, by dotted key: another task, another camera.

    Returns:
        `describe`'s entries, with ``experiment``, ``checkpoint``, ``changes``, ``seeds`` (first and
        last), ``seeds_are`` (which those are, in words), ``videos`` (paths), ``videos_succeed``
        (how many of those do), and the ``file`` of ``evaluations/`` that holds all these.

    Raises:
        ConfigError: ``run_dir`` holds no run or cannot be written, ``checkpoint`` is none of its
            networks, or ``changes`` cannot work.
        RunFailedError: no valid checkpoint, or episodes that could not be played.
    """
    run_dir = Path(run_dir)
    require_run("run", run_dir)
    changes = changes or {}
    cfg = config.changed(config.to_play(config.stored(run_dir, trusted_modules)), changes)
    run = config.check(cfg)
    seeds, seeds_are = _seeds(run.seed, episodes, seed)
    results = run_dir / "evaluations"
    try:
        if video:  # before the episodes: they take minutes
            load_encoder()
            remedy = "make it one, or leave video=true out"
            require_writable("video", run_dir / "videos", remedy)
        if checkpoint is None:
            path = newest_policy(run_dir / "checkpoints")
        else:
            path = Path(checkpoint)
            warn_of_strangers(path, unlisted(path))
        require_writable("run", results, "copy the run to where you can write")
        played, env_steps = _play(run, cfg, path, seeds, video)
        paths = _write_videos(played, run_dir / "videos", env_steps)
    except (*STOPS_A_RUN, VideoUnavailableError) as error:
        if isinstance(error, CheckpointError) and checkpoint is not None:
            expected = "a valid checkpoint of this run's networks"
            raise ConfigError("checkpoint", str(checkpoint), expected, error.reason) from error
        raise RunFailedError(str(error)) from error
    result = {
        "experiment": run.experiment,
        "checkpoint": path.name,
        "changes": dict(changes),
        **describe(played, env_steps),
        "seeds": [seeds[0], seeds[-1]],
        "seeds_are": seeds_are,
        "videos": paths,
        "videos_succeed": int(played.success[: len(paths)].sum()),
    }
    file = _new_file(results, env_steps)
    write_json(file, {**result, "videos": [Path(path).name for path in paths]})
    return {**result, "file": str(file)}


def _new_file(folder: Path, env_steps: int) -> Path:
    """A name of its own for each evaluation, and for those that end at the same time."""
    number = 0
    while True:
        path = folder / f"{env_steps:09d}_{number}.json"
        with suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
        number += 1


def _seeds(run_seed: int, episodes: int, asked: int | None) -> tuple[list[int], str]:
    """The episodes' seeds, and which they are."""
    if asked is not None:
        which = f"those of a training evaluation of a run with seed={asked}"
        return episode_seeds(asked, episodes), which
    which = "used neither by training nor by its evaluations"
    return [OWN_SEEDS + one for one in episode_seeds(run_seed, episodes)], which


def _play(
    run: Run, cfg: Mapping[str, Any], checkpoint: Path, seeds: Sequence[int], video: bool
) -> tuple[Episodes, int]:
    """The episodes, and the env steps of the checkpoint that played them."""
    numerics.apply(cfg["trainer"], learner_threads(run), cuda=False)
    render = run.obs.sees_pixels or video
    if render:
        choose_renderer()
    n_envs = min(len(seeds), run.callbacks.evaluation.n_envs)
    env = build_env(run, n_envs, None, render)
    with closing(env):
        module = build_module(run, env.base_env.env_spec)
        payload = load_weights(module, checkpoint)
        module.eval()
        played = rollout(env, module.act, seeds, RECORDED_EPISODES if video else 0)
    return played, int(payload["env_steps"])


def _write_videos(played: Episodes, folder: Path, env_steps: int) -> list[str]:
    paths = [folder / f"{env_steps:09d}_{index}.mp4" for index in range(len(played.frames))]
    for frames, path in zip(played.frames, paths, strict=True):
        write_video(frames.numpy(), path, FRAMES_PER_S, magnify=-(-VIDEO_SIDE // frames.shape[-1]))
    return [str(path) for path in paths]
