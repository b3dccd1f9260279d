"""A run's configuration as plain data: composed, completed, checked, hashed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fetchlab.types import PIXELS, check_inputs, require

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
#: Not part of the hash: the same experiment may be repeated, moved and prolonged.
NOT_HASHED = ("seed", "run_dir", "total_env_steps")
MAX_FRAME_STACK = 8
IMAGE_SIZES = (16, 256)  # pixels
CAMERA_KEYS = ("lookat", "distance", "azimuth", "elevation")


def compose(experiment: str, *overrides: str) -> dict[str, Any]:
    """The plain configuration of ``src/train.py experiment=<experiment> <overrides>``.

    For tests, benchmarks and notebooks; the command line composes by itself.

    Raises:
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: what cannot be
            composed.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf, open_dict

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
    return plain


def plain(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """A caller's configuration as the command line gives it: no OmegaConf in it, paths as text."""
    from omegaconf import DictConfig, OmegaConf

    given: Any = OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg
    return {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}


def config_hash(cfg: Mapping[str, Any]) -> str:
    """Eight hex digits that two different configurations do not share.

    Args:
        cfg: resolved, plain.
    """
    hashed = {key: value for key, value in cfg.items() if key not in NOT_HASHED}
    text = json.dumps(hashed, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration, with keys that are younger than it in their old meaning."""
    return {**stored, "trainer": {"tf32": False, **stored["trainer"]}}


def changed(cfg: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with other values at some dotted keys."""
    new: dict[str, Any] = copy.deepcopy(dict(cfg))
    for dotted, value in changes.items():
        node = new
        *groups, name = dotted.split(".")
        for group in groups:
            node = node[group]
        node[name] = value
    return new


def check(cfg: Mapping[str, Any]) -> None:
    """Check a whole configuration.

    Raises:
        ConfigError: for the first value that cannot work.
    """
    check_sizes(cfg)
    sees_pixels(cfg)


def check_sizes(cfg: Mapping[str, Any]) -> None:
    """Check the numbers that no single part owns.

    Raises:
        ConfigError: for the first that cannot work.
    """
    _positive_int(cfg, "total_env_steps", "2000000 is a full state run")
    _positive_int(cfg, "collect.n_envs", "4 to 8 on a desktop")
    _positive_int(cfg, "algo.batch_size", "the study used 256")
    _positive_int(
        cfg, "replay.capacity", "transitions over all environments, the study used 500000"
    )
    _positive_int(cfg, "replay.margin_env_steps", "25000 is usual")
    _positive_int(cfg, "obs.frame_stack", "the study used 4")
    _positive_int(cfg, "task.max_episode_steps", "Fetch episodes have 50")
    for key in ("log_every_env_steps", "evaluation.every_env_steps", "evaluation.episodes"):
        _positive_int(cfg, f"callbacks.{key}", "see configs/callbacks/default.yaml")
    utd = lookup(cfg, "algo.utd_ratio")
    require(
        isinstance(utd, int | float) and not isinstance(utd, bool) and utd > 0,
        "algo.utd_ratio",
        utd,
        "a positive number of gradient updates per env step",
        "the study used 0.25 for pixels",
    )
    stack, length = lookup(cfg, "obs.frame_stack"), lookup(cfg, "task.max_episode_steps")
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
    if cfg["obs"]["pixels"] is not None:
        check_pixels(cfg["obs"]["pixels"])
    task = cfg["task"]["env_id"]
    require(
        not (lookup(cfg, "algo.q_bounds") and "Dense" in task),
        "algo.q_bounds",
        True,
        f"false with {task}, whose rewards fall below -1",
        "use algo.q_bounds=false or the sparse task",
    )
    require(
        isinstance(cfg["seed"], int) and cfg["seed"] >= 0,
        "seed",
        cfg["seed"],
        "an integer from 0",
        "seed=0",
    )


def check_pixels(pixels: Mapping[str, Any]) -> None:
    """Check the values of ``obs.pixels``; those that are left out have defaults.

    Raises:
        ConfigError: for the first that cannot work.
    """
    known = ("image_size", "camera", "show_goal", "quality")
    for key, value in pixels.items():
        listed = f"a key of {', '.join(known)}"
        require(key in known, f"obs.pixels.{key}", value, listed, "correct its name")
    size, (low, high) = pixels.get("image_size", 84), IMAGE_SIZES
    require(
        isinstance(size, int) and not isinstance(size, bool) and low <= size <= high,
        "obs.pixels.image_size",
        size,
        f"at least {low} and at most {high} whole pixels",
        "84 is the usual choice",
    )
    show_goal = pixels.get("show_goal", True)
    require(
        isinstance(show_goal, bool),
        "obs.pixels.show_goal",
        show_goal,
        "true or false",
        "false hides the goal marker",
    )
    if pixels.get("camera") is not None:
        _check_camera(pixels["camera"])


def _check_camera(camera: Any) -> None:
    complete = isinstance(camera, Mapping) and set(camera) == set(CAMERA_KEYS)
    numbers: list[Any] = []
    if complete:
        lookat = camera["lookat"]
        numbers = [*(lookat if isinstance(lookat, list) else [lookat])]
        numbers += [camera[key] for key in CAMERA_KEYS[1:]]
    require(
        complete and all(isinstance(x, int | float) and math.isfinite(x) for x in numbers),
        "obs.pixels.camera",
        camera,
        f"null, or the keys {', '.join(CAMERA_KEYS)} with finite numbers, metres and degrees",
        "begin with obs=pixels_strict, whose camera can be changed key by key",
    )


def sees_pixels(cfg: Mapping[str, Any]) -> bool:
    """Whether actor or critics take images.

    Raises:
        ConfigError: for input lists that cannot work, or pixels without an encoder.
    """
    lists = {key: cfg["obs"][key] for key in ("actor_inputs", "critic_inputs")}
    for key, names in lists.items():
        check_inputs(f"obs.{key}", names)
    pixels = any(PIXELS in names for names in lists.values())
    remedy = (
        "use obs=pixels with encoder=manipulation_cnn pooling=spatial_softmax feature_norm=none"
    )
    if pixels:
        for key in ("encoder", "pooling", "feature_norm"):
            require(
                cfg.get(key) is not None, key, None, f"a network, since {PIXELS} is used", remedy
            )
        require(
            cfg["obs"]["pixels"] is not None,
            "obs.pixels",
            None,
            f"image settings, since {PIXELS} is used",
            remedy,
        )
    return pixels


def names(group: str) -> list[str]:
    """The choices of a group: its files' names."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def shipped(group: str, name: str) -> dict[str, Any]:
    """One of the project's own group files that needs no composition, such as ``trainer/cpu``.

    Raises:
        ConfigError: there is none of that name.
    """
    known = names(group)
    require(name in known, group, name, f"one of {', '.join(known)}", "choose one of them")
    loaded: dict[str, Any] = yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text())
    return loaded


def lookup(cfg: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key."""
    node: Any = cfg
    for part in dotted.split("."):
        node = node[part]
    return node


def _positive_int(cfg: Mapping[str, Any], dotted: str, remedy: str) -> None:
    value = lookup(cfg, dotted)
    require(
        isinstance(value, int) and not isinstance(value, bool) and value > 0,
        dotted,
        value,
        "a positive whole number",
        remedy,
    )
