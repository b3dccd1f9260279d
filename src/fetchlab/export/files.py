"""An exported policy's folder: plain JSON and safetensors, so reading it never runs code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fetchlab.durable import write_bytes, write_json
from fetchlab.errors import ConfigError, require
from fetchlab.export.acting import Acting, acting_weights

WEIGHTS, DESCRIPTION, PROGRAM = "policy.safetensors", "policy.json", "policy.pt2"
FORMAT = 1
_MAX_BYTES = 1 << 20
_EXPECTED = "a folder that src/export.py wrote"


def write_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the weights, in one step."""
    plain = {name: one.contiguous() for name, one in weights.items()}
    write_bytes(folder / WEIGHTS, save(plain, {"format": "pt"}))


def write_description(folder: Path, description: Mapping[str, Any]) -> None:
    """Write what the policy is; last, for it makes the folder an exported policy's."""
    write_json(folder / DESCRIPTION, {"format": FORMAT, **description})


def read_description(folder: Path) -> dict[str, Any]:
    """What `write_description` wrote; of its ``config`` nothing is checked yet.

    Raises:
        ConfigError: no such folder, or nothing that can be read.
    """
    path = folder / DESCRIPTION
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        found = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        remedy = f"check the path ({path.name}: {_reason(error)})"
        raise ConfigError("policy", str(folder), _EXPECTED, remedy) from error
    kinds = {"format": int, "config": dict, "env_steps": int}
    sound = isinstance(found, dict) and all(
        isinstance(found.get(name), kind) for name, kind in kinds.items()
    )
    says = f"{DESCRIPTION} lacks {', '.join(kinds)}"
    require(sound, "policy", str(folder), _EXPECTED, says)
    newer = f"{DESCRIPTION} is of format {found['format']}, this version reads {FORMAT}"
    require(found["format"] == FORMAT, "policy", str(folder), _EXPECTED, newer)
    return dict(found)


def put_weights(folder: Path, acting: Acting) -> None:
    """Put an exported policy's weights into a module, of which `acting` is made.

    Raises:
        ConfigError: they are missing, damaged, or of other networks.
    """
    path, expected = folder / WEIGHTS, "weights of the networks that its policy.json describes"
    try:
        found = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        remedy = f"export it again ({path.name}: {_reason(error)})"
        raise ConfigError("policy", str(folder), expected, remedy) from error
    wanted = acting_weights(acting)
    odd = sorted(
        name
        for name in {*wanted, *found}
        if name not in wanted
        or name not in found
        or (found[name].shape, found[name].dtype) != (wanted[name].shape, wanted[name].dtype)
    )
    remedy = f"export it again ({path.name} differs in {', '.join(odd[:3])})"
    require(not odd, "policy", str(folder), expected, remedy)
    acting.module.load_state_dict(found, strict=False)


def _reason(error: Exception) -> str:
    """One line of it."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
