"""A run's configuration as plain data: composed, completed, checked, hashed."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from fetchlab import schema
from fetchlab.checkpoint.safe_config import allowed_targets, check_plain
from fetchlab.conform import Conform, complete
from fetchlab.entries import PIXELS, check_inputs
from fetchlab.errors import ConfigError, require

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
#: Not part of the hash: the same experiment may be repeated, moved and prolonged.
NOT_HASHED = ("seed", "run_dir", "total_env_steps", "trusted_modules")
MAX_FRAME_STACK = 8


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
    """The one check of a whole plain configuration, before anything starts.

    Types, ranges, unknown and missing keys, targets that a resumed run may not name, and numbers
    that do not fit each other. On resume, ``trusted_modules`` is the command line's.

    Raises:
        ConfigError: for the first that cannot work.
    """
    allowed = allowed_targets(CONFIGS, cfg.get("trusted_modules", ()))
    Conform(schema.Run, allowed).check(cfg, schema.Run, "")
    check_plain(cfg, allowed, "a run could not be resumed with it")
    check_sizes(cfg)
    sees_pixels(cfg)


def completed(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A stored configuration with the keys that it predates, in their old meaning.

    Raises:
        ConfigError: for a missing key that there always was.
    """
    return complete(stored, schema.Run)


def check_sizes(cfg: Mapping[str, Any]) -> None:
    """Check numbers against each other.

    Raises:
        ConfigError: for the first that cannot work.
    """
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
    task = cfg["task"]["env_id"]
    require(
        not (lookup(cfg, "algo.q_bounds") and "Dense" in task),
        "algo.q_bounds",
        True,
        f"false with {task}, whose rewards fall below -1",
        "use algo.q_bounds=false or the sparse task",
    )
    for name in ("critic_optimizer", "actor_optimizer"):
        rate = cfg["algo"][name].get("lr", 0.0)
        fits_torch = not isinstance(rate, int | float) or rate >= 0
        require(fits_torch, f"algo.{name}.lr", rate, "0 or more", "1e-4 to 1e-3 are usual")


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
        ConfigError: there is none of that name, or it cannot be read.
    """
    known = names(group)
    require(name in known, group, name, f"one of {', '.join(known)}", "choose one of them")
    path = CONFIGS / group / f"{name}.yaml"
    try:
        loaded: dict[str, Any] = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            group, name, "a YAML file that can be read", f"{path}: {reason}"
        ) from None
    return loaded


def lookup(cfg: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key."""
    node: Any = cfg
    for part in dotted.split("."):
        node = node[part]
    return node


class _Node(dict):
    """TEMPORARY."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def typed(cfg: Mapping[str, Any]) -> Any:
    """TEMPORARY."""

    def node(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _Node({key: node(item) for key, item in value.items()})
        return value

    run = node(cfg)
    run["obs"]["sees_pixels"] = sees_pixels(cfg)
    for key in ("encoder", "pooling", "feature_norm"):
        run.setdefault(key, None)
    return run
