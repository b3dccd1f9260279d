"""What a search may vary: keys of a run, each with its range, and what was drawn of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fetchlab import config, schema
from fetchlab.checkpoint.safe_config import AllowedTargets
from fetchlab.conform import Conform
from fetchlab.errors import ConfigError, require
from fetchlab.overrides import literal, one_line
from fetchlab.sweep import Planned, section


def check_space(base: Planned, space: Mapping[str, Any]) -> None:
    """Refuse what is no range of a key, and ends and choices that no run could have.

    Raises:
        ConfigError: for the first.
    """
    way = "search.space={algo.lr: {low: 1e-4, high: 1e-3, log: true}}"
    require(bool(space), "search.space", dict(space), "one key or more", way)
    given = {one.partition("=")[0]: one for one in base.overrides}
    for key, one in space.items():
        dotted = f"search.space.{key}"
        _check_one(dotted, one)
        says, way = "no value beside search.space", f"leave it out, or change {dotted}"
        require(key not in given, "override", given.get(key), says, way)
    listed = {key: _ends(one) for key, one in space.items()}
    for n in range(max(map(len, listed.values()))):
        config.check(
            compose(base, [f"{key}={texts[n % len(texts)]}" for key, texts in listed.items()])
        )


def drawn(trial: Any, space: Mapping[str, Any]) -> tuple[str, ...]:
    """The overrides of Optuna's trial; one that was cut off has the same again."""
    return tuple(f"{key}={_draw(trial, key, one)}" for key, one in space.items())


def compose(base: Planned, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain configuration of a trial.

    Raises:
        ConfigError: it cannot be composed.
    """
    given = list(base.overrides)
    folders = [given[n + 1] for n, one in enumerate(given) if one == "--config-dir"]
    paths = [literal([f"x=file://{folder}"], ["x"])[0][2:] for folder in folders]
    paths += [one.partition("=")[2][1:-1] for one in given if one.startswith("hydra.searchpath=[")]
    search = [f"hydra.searchpath=[{','.join(paths)}]"] if paths else []
    others = [one for one in given if "=" in one and section(one) not in ("experiment", "hydra")]
    try:
        return config.compose(str(base.cfg["experiment"]), *search, *others, *overrides)
    except (HydraException, OmegaConfBaseException) as error:
        says = "overrides that a run can have"
        raise ConfigError("search.space", " ".join(overrides), says, one_line(error)) from error


def _check_one(dotted: str, one: Any) -> None:
    several = isinstance(one, Mapping) and "choices" in one
    kind: Any = schema.Choices if several else schema.Interval
    Conform(schema.Search, AllowedTargets(frozenset())).check(one, kind, dotted)
    if several:
        plain = all(
            value is None or isinstance(value, str | int | float) for value in one["choices"]
        )
        says = "one value or more, each a number, text, true, false or null"
        ok = plain and bool(one["choices"])
        require(ok, f"{dotted}.choices", one["choices"], says, "correct it")
        return
    low, high = one["low"], one["high"]
    require(low < high, f"{dotted}.high", high, f"a number above low={low}", "correct it")
    above = low > 0 or not one["log"]
    require(above, f"{dotted}.low", low, "a number above 0", "correct it, or give log: false")


def _ends(one: Mapping[str, Any]) -> list[str]:
    return [_text(value) for value in one.get("choices") or (one["low"], one["high"])]


def _draw(trial: Any, key: str, one: Mapping[str, Any]) -> str:
    if "choices" in one:
        return _text(trial.suggest_categorical(key, one["choices"]))
    whole = isinstance(one["low"], int) and isinstance(one["high"], int)
    suggest = trial.suggest_int if whole else trial.suggest_float
    value = suggest(key, one["low"], one["high"], log=one["log"])
    return str(value) if whole else f"{value:.4g}"  # which can be read, and typed


def _text(value: Any) -> str:
    """As an override has it."""
    return value if isinstance(value, str) else json.dumps(value)
