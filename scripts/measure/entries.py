"""Statistics of feature vectors, feature maps and the heads' inputs over a set of moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fetchlab.entries import PIXELS
from fetchlab.networks.pooling import SpatialSoftmax

DEAD_STD = 1e-4  # an entry that varies less says nothing that a head could hear


def entry_statistics(features: Tensor) -> dict[str, Any]:
    """Of each entry of ``features`` (N, D) over the N moments.

    Returns:
        ``mean, std, min, max``: D numbers each, ``std`` of the population; ``rms`` of all entries,
        ``std_rms``, the RMS of ``std``; ``dead``, the share of entries with ``std < DEAD_STD``.
    """
    features = features.double()
    std = features.std(0, correction=0)
    return {
        "mean": features.mean(0).tolist(),
        "std": std.tolist(),
        "min": features.amin(0).tolist(),
        "max": features.amax(0).tolist(),
        "rms": _rms(features),
        "std_rms": _rms(std),
        "dead": float((std < DEAD_STD).double().mean()),
    }


def map_statistics(maps: Tensor) -> dict[str, Any]:
    """Of feature maps (N, F, h, w) before the pooling.

    Returns:
        ``shape`` (F, h, w), ``mean, std, max``; ``zeros``, the share of values that are exactly 0;
        ``dead``, the share of maps that are 0 everywhere in all N moments.
    """
    return {
        "shape": list(maps.shape[1:]),
        "mean": float(maps.mean()),
        "std": float(maps.double().std(correction=0)),
        "max": float(maps.max()),
        "zeros": float((maps == 0).double().mean()),
        "dead": float((maps == 0).all(3).all(2).all(0).double().mean()),
    }


def softmax_statistics(pooling: torch.nn.Module, maps: Tensor) -> dict[str, float] | None:
    """How sharp a spatial softmax is; None for another pooling.

    Returns:
        ``temperature``; ``positions``, of h x w; ``used``, the median over maps of exp(entropy):
        the number of positions over which as flat a softmax would spread evenly, 1 for a point.
    """
    if not isinstance(pooling, SpatialSoftmax):
        return None
    temperature = pooling.log_temperature.detach().exp()
    log_p = (maps.flatten(2).double() / temperature.double()).log_softmax(-1)
    used = (-(log_p.exp() * log_p).sum(-1)).exp()
    return {
        "temperature": float(temperature),
        "positions": log_p.shape[-1],
        "used": float(used.flatten().quantile(0.5)),
    }


def input_statistics(
    names: tuple[str, ...], vectors: Mapping[str, Tensor], features: Tensor
) -> dict[str, Any]:
    """What the first layer of a head sees.

    Args:
        names: the head's entries.
        vectors: name -> (N, dim), as the agent normalises them.
        features: (N, D), what ``pixels`` becomes.

    Returns:
        ``entries``: name -> ``size``, ``rms`` and ``std_rms``; ``rms_ratio`` and ``std_ratio``, of
        an image feature to a vector entry, all vectors taken together; None without pixels or
        without vectors, or where the vectors do not vary.
    """
    seen = {name: features if name == PIXELS else vectors[name] for name in names}
    entries = {name: _scale(values) for name, values in seen.items()}
    rest = [values for name, values in seen.items() if name != PIXELS]
    found: dict[str, Any] = {"entries": entries, "rms_ratio": None, "std_ratio": None}
    if PIXELS in entries and rest:
        others = _scale(torch.cat(rest, -1))
        for name in ("rms", "std"):
            key = "rms" if name == "rms" else "std_rms"
            if others[key] > 0:
                found[f"{name}_ratio"] = entries[PIXELS][key] / others[key]
    return found


def _scale(values: Tensor) -> dict[str, Any]:
    values = values.double()
    std = values.std(0, correction=0)
    return {"size": values.shape[-1], "rms": _rms(values), "std_rms": _rms(std)}


def _rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
