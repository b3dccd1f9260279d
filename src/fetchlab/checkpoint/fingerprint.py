"""What a bit-identical resume depends on besides the checkpoint, and how two runs differ in it.

One and two threads give different sums, as do other versions, renderers and processors: an exact
resume is refused when any of them changed, unless it is forced, and then the change is recorded.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = (
    *("torch", "numpy", "mujoco", "gymnasium", "gymnasium-robotics"),
    *("torchrl", "tensordict", "lightning"),
)
_ABSENT = "(absent)"


def fingerprint(workers: int, renderer: str, device: torch.device | str) -> dict[str, Any]:
    """Record this process: plain data, fit for a checkpoint and for JSON.

    Reads torch's settings: the run must have set them before (`fetchlab.preflight.numerics`).

    ``renderer`` is OpenGL's as it names itself, or ``"none"``; the networks are on ``device``.
    """
    device = torch.device(device)
    return {
        "versions": {"python": platform.python_version(), **_versions()},
        "threads": torch.get_num_threads(),
        "workers": workers,
        "renderer": renderer,
        "processor": _processor(),
        "device": _device_name(device),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "tf32": device.type == "cuda" and torch.backends.cudnn.allow_tf32,
    }


def config_difference(
    old: Mapping[str, Any], new: Mapping[str, Any], ignore: Iterable[str] = ()
) -> list[str]:
    """What changed between two nested configs: ``dotted.key: old -> new``, sorted by key.

    ``(absent)`` stands for a missing value. What is below a dotted key of ``ignore`` may differ.
    """
    before, after = _flatten(old), _flatten(new)
    skipped = tuple(f"{name}." for name in ignore)
    lines = []
    for key in sorted({*before, *after}):
        if f"{key}.".startswith(skipped):
            continue
        left, right = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if not _same(left, right):
            lines.append(f"{key}: {left} -> {right}")
    return lines


def _flatten(value: Any, key: str = "") -> dict[str, Any]:
    """Leaves by dotted key; an empty dict or list is a leaf, so that it can differ from none."""
    if isinstance(value, Mapping) and value:
        items: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple) and value:
        items = enumerate(value)
    else:
        return {key: list(value) if isinstance(value, tuple) else value} if key else {}
    paths = [(f"{key}.{name}" if key else str(name), item) for name, item in items]
    return {leaf: one for path, item in paths for leaf, one in _flatten(item, path).items()}


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, bool) != isinstance(right, bool):
        return False  # True == 1 in Python, not in a config
    return bool(left == right) or (left != left and right != right)  # nan equals nan here


def _versions() -> dict[str, str]:
    found = dict.fromkeys(_PACKAGES, _ABSENT)
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _processor() -> str:
    """Architecture, vector instructions and vendor: what the linear algebra kernels switch on."""
    try:
        found = re.search(r"^vendor_id.*:\s*(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        vendor = found.group(1).strip() if found else ""
    except OSError:
        vendor = platform.processor()
    return " ".join((platform.machine(), torch.backends.cpu.get_cpu_capability(), vendor)).strip()


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    return f"cuda {torch.version.cuda}, {torch.cuda.get_device_name(device)}"
