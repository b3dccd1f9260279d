"""Play a stored policy: its own task, its own observation, episodes that nothing else uses."""

from __future__ import annotations

import csv
import io
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from fetchlab import config, policy, schema
from fetchlab.algos.off_policy import OffPolicy
from fetchlab.build import build_env, build_module
from fetchlab.callbacks.evaluation import describe
from fetchlab.checkpoint.find import (
    Checkpoint,
    kind_of,
    newest_policy,
    survey,
    warn_of_strangers,
)
from fetchlab.checkpoint.manifest import CheckpointError, unlisted
from fetchlab.checkpoint.torch_io import load_weights
from fetchlab.collect.rollout import Episodes, episode_seeds, rollout
from fetchlab.collect.video import load_encoder
from fetchlab.durable import write_json, write_text
from fetchlab.errors import require
from fetchlab.fields import kinds_of
from fetchlab.footage import notable, write_videos
from fetchlab.preflight import numerics
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.preflight.sizes import learner_threads
from fetchlab.run_folder import require_run, require_writable

_LOG = logging.getLogger(__name__)
ALL = "all"
FILMED = 3  # episodes, for a report
#: Added to the seeds of training evaluations: `best_` was chosen by those very episodes. Training's
#: own seeds lie below 2^32.
OWN_SEEDS = 1_000_000_000_000


@dataclass(frozen=True)
class Subject:
    """What is played: policies of one run, and what that run is.

    ``folder`` is where the results go unless another is asked for. Of each policy: its name, and
    what puts it into a module of its run and says its env steps.
    """

    run: schema.Run
    cfg: Mapping[str, Any]
    folder: Path
    policies: Sequence[tuple[str, Callable[[OffPolicy], int]]]


def request(**given: Any) -> schema.Evaluate:
    """What the command line asks with these keys; the others are those of the YAML."""
    plain = yaml.safe_load((config.CONFIGS / "evaluate.yaml").read_text())
    defaults = {name: plain[name] for name in kinds_of(schema.Evaluate)}
    return schema.Evaluate(**{**defaults, **given})


def evaluate(asked: schema.Evaluate, changes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Play the same episodes with each policy that is asked for, and keep what they gave.

    Args:
        asked: the command's keys, see `schema.Evaluate`.
        changes: values that replace the run's own, by dotted key: another task, another camera.

    Returns:
        of each policy `describe`'s entries, with ``experiment``, ``checkpoint``, ``changes``,
        ``stochastic``, ``seeds`` (first and last), ``seeds_are`` (which those are, in words),
        ``table`` (see `table`), ``videos`` (paths), ``videos_succeed`` (how many of those do), and
        the ``file`` of ``evaluations/`` that holds all these; beside it is the table as CSV. Of
        several also the ``curve``: the file that lists them in the order of their env steps.

    Raises:
        ConfigError: no run or policy, a folder that cannot be written, a ``checkpoint`` that is
            none of the run's networks, or ``changes`` that cannot work.
        RunFailedError: no valid checkpoint, or episodes that could not be played.
    """
    with policy.in_one_line(None if asked.checkpoint == ALL else asked.checkpoint):
        return _evaluate(subject(asked, changes), asked, changes)


def film(run_dir: Path, folder: Path, name: str) -> list[Path]:
    """Film a few episodes of the newest policy; those that are there already are taken.

    Args:
        run_dir: a run's folder, of which nothing is changed.
        folder: for the files, ``<name>_<env steps>_<episode>.mp4``.
        name: of the run.

    Raises:
        ConfigError: the run's configuration cannot work here.
        RunFailedError: there is no policy, or it cannot be filmed.
    """
    with policy.in_one_line(None):
        newest = newest_policy(run_dir / "checkpoints")
    name = f"{name}_{newest.name.partition('_')[2]}"
    if made := sorted(folder.glob(f"{name}_*.mp4")):
        return made
    with tempfile.TemporaryDirectory(prefix="fetchlab-film-") as temporary:
        asked = request(run=str(run_dir), episodes=FILMED, video=True, out=temporary)
        (played,) = evaluate(asked, {})
        folder.mkdir(parents=True, exist_ok=True)
        for index, path in enumerate(played["videos"]):
            made.append(Path(shutil.move(path, folder / f"{name}_{index}.mp4")))
    return made


def _evaluate(
    of: Subject, asked: schema.Evaluate, changes: Mapping[str, Any]
) -> list[dict[str, Any]]:
    seeds, seeds_are = _seeds(of.run.seed, asked.episodes, asked.seed)
    folder = of.folder if asked.out is None else Path(asked.out)
    if asked.out is not None:
        require_writable("out", folder, "give another")
    if asked.video:  # before the episodes: they take minutes
        load_encoder()
        require_writable("video", folder / "videos", "make it one, or leave video=true out")
    key = "policy" if asked.run is None else "run"
    require_writable(key, folder / "evaluations", "add out=DIR")
    results: list[dict[str, Any]] = []
    for name, env_steps, played in episodes_of(of, seeds, asked):
        shown = notable(played) if asked.video else {}
        with _new_file(folder / "evaluations", f"{env_steps:09d}") as file:
            result = {
                "experiment": of.run.experiment,
                "checkpoint": name,
                "changes": dict(changes),
                "stochastic": asked.stochastic,
                **describe(played, env_steps),
                "seeds": [seeds[0], seeds[-1]],
                "seeds_are": seeds_are,
                "videos": write_videos(of.run, played, seeds, shown, folder / "videos", file.stem),
                "videos_succeed": int(played.success[list(shown.values())].sum()),
                "table": table(played, seeds),
            }
            write_json(file, {**result, "videos": [Path(path).name for path in result["videos"]]})
            write_text(file.with_suffix(".csv"), _csv(result["table"]))
        results.append({**result, "file": str(file)})
    if len(results) > 1:
        rows = [{k: one[k] for k in one if k not in ("table", "file", "videos")} for one in results]
        with _new_file(folder / "evaluations", "curve") as curve:
            write_json(curve, rows)
        results = [{**one, "curve": str(curve)} for one in results]
    return results


def table(played: Episodes, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each episode, in the order of the seeds.

    ``seed``, ``success`` at the last step, ``return``, ``goal_distance_m`` at the last step,
    ``first_success_step`` (from 1; None: at no step) and ``length_steps``.
    """
    columns: dict[str, Sequence[Any]] = {
        "seed": seeds,
        "success": played.success.tolist(),
        "return": played.returns.tolist(),
        "goal_distance_m": played.goal_distance_m.tolist(),
        "first_success_step": [step or None for step in played.first_success_step.tolist()],
        "length_steps": played.length_steps.tolist(),
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextmanager
def _new_file(folder: Path, stem: str) -> Iterator[Path]:
    """A name of its own for each evaluation, and for those that end at the same time.

    Nothing is left of it where the evaluation fails.
    """
    path = _claimed(folder, stem)
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _claimed(folder: Path, stem: str) -> Path:
    number = 0
    while True:
        path = folder / f"{stem}_{number}.json"
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
    return own_seeds(run_seed, episodes), which


def own_seeds(seed: int, episodes: int) -> list[int]:
    """Seeds of episodes that no run's training nor its evaluations use."""
    return [OWN_SEEDS + one for one in episode_seeds(seed, episodes)]


def subject(asked: schema.Evaluate, changes: Mapping[str, Any]) -> Subject:
    """The run that is asked for, or the exported policy, as it is to be played."""
    if asked.policy is None:
        says = "a run's folder, or policy=DIR, the folder of an exported policy"
        require(asked.run is not None, "run", None, says, "python src/evaluate.py run=RUN_DIR")
        folder = Path(asked.run or "")
        require_run("run", folder)
        cfg = config.stored(folder, asked.trusted_modules)
        policies = _checkpoints(folder / "checkpoints", asked.checkpoint)
    else:
        for key in ("run", "checkpoint"):
            given, expected = getattr(asked, key), "null beside policy, which needs no run"
            require(given is None, key, given, expected, "leave one of them out")
        folder = Path(asked.policy)
        cfg, load = policy.stored(folder, asked.trusted_modules)
        policies = [(policy.NAME, load)]
    cfg = config.changed(config.to_play(cfg), changes)
    return Subject(config.check(cfg), cfg, folder, policies)


def _checkpoints(folder: Path, asked: str | None) -> list[tuple[str, Callable[[OffPolicy], int]]]:
    """Those to play: the newest, the one that is asked for, or several, earliest first."""
    if asked == ALL:
        paths = _each_state(folder)
    elif asked is not None and asked.startswith("[") and not Path(asked).exists():
        names = [Path(name.strip()) for name in asked.strip("[]").split(",")]
        paths = [folder / one if str(one) == one.name and kind_of(one) else one for one in names]
    else:
        paths = [newest_policy(folder) if asked is None else Path(asked)]
    for path in paths:
        warn_of_strangers(path, unlisted(path))
    return [(_named(path, folder), partial(_load, path)) for path in paths]


def _named(path: Path, folder: Path) -> str:
    """A checkpoint of the run by its name; another by its path, which is no name."""
    whole = path.resolve()
    return whole.name if whole.parent == folder.resolve() else str(whole)


def _each_state(folder: Path) -> list[Path]:
    """The valid checkpoints by env steps; of several of one moment the newest."""
    found: dict[int, Checkpoint] = {}
    for kind in ("best", "step"):
        survey_of_kind = survey(folder, kind, limit=None)
        for error in survey_of_kind.refused:
            _LOG.warning("checkpoint refused: %s", error)
        for one in reversed(survey_of_kind.valid):
            found[one.manifest.env_steps] = one
    if not found:
        raise CheckpointError(folder, "no valid checkpoint")
    return [found[env_steps].path for env_steps in sorted(found)]


def _load(path: Path, module: OffPolicy) -> int:
    return int(load_weights(module, path)["env_steps"])


def episodes_of(
    of: Subject, seeds: Sequence[int], asked: schema.Evaluate
) -> Iterator[tuple[str, int, Episodes]]:
    """The episodes of each policy, with its name and its env steps."""
    run = of.run
    numerics.apply(of.cfg["trainer"], learner_threads(run), cuda=False)
    # Of an agent without pixels, too, where episodes are to be played again with a camera: taking
    # a picture changes the next steps of some tasks, see `FrameRenderer.render`.
    render = run.obs.sees_pixels or asked.video
    if render:
        choose_renderer()
    n_envs = min(len(seeds), run.callbacks.evaluation.n_envs)
    env = build_env(run, n_envs, None, render)
    with closing(env):
        module = build_module(run, env.base_env.env_spec)
        for name, load in of.policies:
            env_steps = load(module)
            module.eval()
            act: Callable[..., Any] = module.act
            if asked.stochastic:
                module.explore_rng.manual_seed(seeds[0])
                act = partial(module.explore, env_steps=env_steps)
            yield name, env_steps, rollout(env, act, seeds)
