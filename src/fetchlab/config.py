"""A run's configuration as plain data: composed, completed, checked, hashed."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from fetchlab import schema
from fetchlab.checkpoint.safe_config import (
    AllowedTargets,
    allowed_targets,
    check_plain,
    load_run_config,
)
from fetchlab.conform import Conform, arguments, instance, shown
from fetchlab.entries import PIXELS, check_inputs
from fetchlab.errors import require
from fetchlab.fields import kinds_of

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
#: Not part of the hash: the same experiment may be repeated, moved and prolonged.
NOT_HASHED = ("seed", "run_dir", "total_env_steps", "trusted_modules")
MAX_FRAME_STACK = 8
MAX_RENDERED_SIDE = 1024  # every driver's offscreen buffer has it; ten frames a second in software


def compose(experiment: str, *overrides: str) -> dict[str, Any]:
    """The plain configuration of ``src/train.py experiment=<experiment> <overrides>``.

    For tests, benchmarks and notebooks; the command line composes by itself.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: what cannot be
            composed.
    """
    register_resolvers()
    given = [f"experiment={experiment}", *overrides]
    # Another Hydra application may be calling: its state is put aside, and put back.
    outer = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
            cfg = hydra.compose("train", given, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # which `hydra:` interpolations read
        with open_dict(cfg):
            del cfg["hydra"]
        plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = outer
    return split(plain)[1]


def register_resolvers() -> None:
    """Let ``${milestones:NAME,KEY}`` be what ``configs/milestones/NAME.yaml`` has there.

    No group of Hydra's: which one is chosen would have to be known before the experiment is, which
    in a sweep is known last.
    """
    OmegaConf.register_new_resolver("milestones", _milestones, replace=True)


def _milestones(name: str | None, key: str) -> Any:
    file = CONFIGS / "milestones" / f"{name}.yaml"
    none: dict[str, Any] = {"table": [], "take_off_env_steps": None}
    found = (yaml.safe_load(file.read_text()) if file.is_file() else none)[key]
    # A plain list would do here, but not for Hydra's own `--resolve`.
    return OmegaConf.create(found) if isinstance(found, list) else found


def plain(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's configuration as the command line gives it: no OmegaConf in it, paths as text."""
    given: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    return {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}


def split(plain: Mapping[str, Any]) -> tuple[schema.Start, dict[str, Any]]:
    """What ``configs/train.yaml`` asks of the command, checked, and the run's own configuration.

    Raises:
        ConfigError: for the first of the command's keys that does not fit.
    """
    names = kinds_of(schema.Start)
    rest = {key: value for key, value in plain.items() if key not in names}
    return own(plain, schema.Start), rest


def own(plain: Mapping[str, Any], section: Any) -> Any:
    """A command's own keys, checked, as the ``section`` that has them.

    Raises:
        ConfigError: for the first that does not fit.
    """
    given = {name: plain[name] for name in kinds_of(section)}
    Conform(section, AllowedTargets(frozenset())).check(given, section, "")
    return instance(section, given)


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Eight hex digits that two different configurations, resolved and plain, do not share."""
    hashed = {key: value for key, value in cfg.items() if key not in NOT_HASHED}
    text = json.dumps(hashed, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def changed(cfg: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with other values at some dotted keys.

    Raises:
        ConfigError: for a key of a section that this configuration does not have.
    """
    new: dict[str, Any] = copy.deepcopy(dict(cfg))
    for dotted, value in changes.items():
        node = new
        *groups, name = dotted.split(".")
        for index, group in enumerate(groups):
            says = f"{'.'.join(groups[: index + 1])} to be set, it is null here"
            require(isinstance(node.get(group), dict), dotted, value, says, "leave it out")
            node = node[group]
        node[name] = value
    return new


def to_play(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A copy for a policy that only acts, in another task or before another camera, too.

    What a sample stands for and how large a target may be concern learning alone: the symmetry and
    the bounds of the run, and of its teacher, are left out.
    """
    new: dict[str, Any] = {"symmetry": None}
    if "q_bounds" in cfg["algo"]:
        new["algo.q_bounds"] = False
    if isinstance(cfg.get("teacher"), Mapping):
        new["teacher.symmetry"] = None
    return changed(cfg, new)


def check(cfg: Mapping[str, Any]) -> schema.Run:
    """The one check of a whole plain configuration, before anything starts.

    Types, ranges, unknown and missing keys, targets that a resumed run may not name, and values
    that do not fit each other. On resume, ``trusted_modules`` is the command line's.

    Raises:
        ConfigError: for the first that cannot work.
    """
    allowed = allowed_targets(CONFIGS, cfg.get("trusted_modules", ()))
    Conform(schema.Run, allowed).check(cfg, schema.Run, "")
    check_plain(cfg, allowed, "a run could not be resumed with it")
    run = typed(cfg)
    _check_env_module(run)
    _check_sizes(run)
    _check_inputs(run)
    _check_teacher(run, allowed)
    of = run.callbacks.milestones_of
    known = of in (None, run.experiment, *names("milestones"))
    expected, remedy = "an experiment of configs/milestones, or null", "correct it"
    require(known, "callbacks.milestones_of", of, expected, remedy)
    return run


def stored(run_dir: Path, trusted: Sequence[str]) -> dict[str, Any]:
    """The checked configuration in a run's folder, which may come from somebody else.

    ``trusted`` are modules that it may name beside the project's, from this command line.

    Raises:
        ConfigError: it cannot be read, cannot work, or names what is not allowed.
    """
    allowed = allowed_targets(CONFIGS, trusted)
    cfg = {**load_run_config(run_dir / "config.yaml", allowed), "trusted_modules": [*trusted]}
    check(cfg)
    return cfg


def typed(cfg: Mapping[str, Any]) -> schema.Run:
    """A checked plain configuration as dataclasses; what ``_target_`` names stays a mapping."""
    run: schema.Run = instance(schema.Run, cfg)
    return run


def _check_env_module(run: schema.Run) -> None:
    """A module that ``task.env_id`` has imported is one that ours name, or the user trusts."""
    env_id, trusted = run.task.env_id, run.trusted_modules
    module = env_id.rpartition(":")[0]
    files = (CONFIGS / "task").glob("*.yaml") if module else ()
    ours = not module or env_id in [yaml.safe_load(path.read_text())["env_id"] for path in files]
    require(
        ours or any(f"{module}.".startswith(f"{one}.") for one in trusted),
        "task.env_id",
        env_id,
        "a module that a file in configs/task names",
        f"if you trust it, add trusted_modules=[{module}] to the command line",
    )


def _check_sizes(run: schema.Run) -> None:
    stack, length = run.obs.frame_stack, run.task.max_episode_steps
    require(
        stack <= length,
        "obs.frame_stack",
        stack,
        f"at most an episode, task.max_episode_steps={length}",
        "stack fewer frames",
    )
    require(
        stack <= MAX_FRAME_STACK,
        "obs.frame_stack",
        stack,
        f"at most {MAX_FRAME_STACK}, a third of a second",
        "the study stacked 4",
    )
    if (pixels := run.obs.pixels) is not None:
        require(
            pixels.rendered_size <= MAX_RENDERED_SIDE,
            "obs.pixels.supersample",
            pixels.supersample,
            f"at most {MAX_RENDERED_SIDE // pixels.image_size} with obs.pixels.image_size="
            f"{pixels.image_size}, a rendered picture of {MAX_RENDERED_SIDE} pixels or less",
            "2 to 4 are enough",
        )
    key, evaluation = "callbacks.evaluation", run.callbacks.evaluation
    require(
        evaluation.workers is None or evaluation.workers <= evaluation.n_envs,
        f"{key}.workers",
        evaluation.workers,
        f"null, or from 1 to {key}.n_envs={evaluation.n_envs}",
        "null takes as many as fit",
    )


def _check_inputs(run: schema.Run) -> None:
    """Input lists, and what images need."""
    for key in ("actor_inputs", "critic_inputs"):
        check_inputs(f"obs.{key}", getattr(run.obs, key))
    needs = {key: getattr(run, key) for key in ("encoder", "pooling", "feature_norm")}
    networks = "encoder=manipulation_cnn pooling=spatial_softmax feature_norm=none"
    for key, value in {**needs, "obs.pixels": run.obs.pixels}.items():
        what = "image settings" if key == "obs.pixels" else "a network"
        require(
            value is not None or not run.obs.sees_pixels,
            key,
            None,
            f"{what}, since {PIXELS} is used",
            f"use obs=pixels with {networks}",
        )


def _check_teacher(run: schema.Run, allowed: AllowedTargets) -> None:
    """An algorithm that learns from a teacher has one, no other has; a stored one is sound, too."""
    named, _ = arguments(allowed.load(run.algo.target["_target_"], "algo._target_"))
    asks = "teacher" in {one.name for one in named}
    expected, remedy = "null for an algorithm that has none", "use algo=distill, or leave it out"
    require(asks or run.teacher is None, "teacher", shown(run.teacher), expected, remedy)
    require(
        run.teacher is not None or not asks,
        "teacher",
        None,
        "the folder of a run without pixels, from which algo=distill learns",
        "train one with: python src/train.py experiment=vector_push_laptop run_dir=RUN, "
        "then give teacher=RUN",
    )
    if isinstance(run.teacher, Mapping):
        check({**run.teacher, "trusted_modules": run.trusted_modules})


def names(group: str) -> list[str]:
    """The choices of a group: its files' names, with folders of its own."""
    folder = CONFIGS / group
    files = (path.relative_to(folder) for path in folder.rglob("*.yaml"))
    return sorted(str(path.with_suffix("")) for path in files)


def described(group: str) -> list[str]:
    """`names`, each with the first sentence of what its file says of itself."""
    listed = names(group)
    width = max(map(len, listed))
    return [
        f"{name:{width}}  {_says(CONFIGS / group / f'{name}.yaml')}".rstrip() for name in listed
    ]


def _says(path: Path) -> str:
    lines = path.read_text().splitlines()[1:]  # below `# @package _global_`
    comment = itertools.takewhile(lambda line: line.startswith("# "), lines)
    first, end, _ = " ".join(line[2:] for line in comment).partition(". ")
    return first + end.strip()


def lookup(cfg: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key."""
    node: Any = cfg
    for part in dotted.split("."):
        node = node[part]
    return node


def leaves(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; a list is one value, and so is an empty mapping."""
    found: dict[str, Any] = {}
    for name, value in node.items():
        inner = isinstance(value, Mapping) and value
        found |= leaves(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found
