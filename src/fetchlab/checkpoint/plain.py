"""Turn a checkpoint's content into tensors and plain Python, or say what cannot be.

Only such content loads with ``torch.load(weights_only=True)``, the one way in which this project
reads a checkpoint. Lightning, optimizers and simulators put in numpy arrays, paths, deques and
named tuples: they are converted, and come back as tensors, strings, lists and tuples.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

_SCALARS = (bool, int, float, str, bytes)
_LARGEST_INT_BITS = 2032  # what the restricted unpickler's longest integer opcode can hold


def to_plain(value: Any, key: str = "") -> Any:
    """A copy of ``value`` in which containers are new and tensors are shared.

    Args:
        value: nested dicts, lists, tuples, deques, tensors, numpy arrays and scalars, enums,
            paths, ``torch.device``, ``torch.dtype``.
        key: dotted path of ``value``, for the error.

    Returns:
        dicts, lists, tuples, tensors, str, bytes, int, float, bool, None; an ``OrderedDict``
        only where it carries a module's version metadata.

    Raises:
        TypeError: anything else; the message names its dotted path.
    """
    if isinstance(value, Tensor):
        return _tensor(value, key)
    if isinstance(value, Enum):
        return to_plain(value.value, key)
    if isinstance(value, np.ndarray | np.generic):
        return _numpy(value, key)
    if value is None:
        return None
    if isinstance(value, _SCALARS):
        return _scalar(value, key)
    if isinstance(value, PurePath | torch.device | torch.dtype):
        return str(value)
    if isinstance(value, dict):
        return _dict(value, key)
    if isinstance(value, list | tuple | deque):
        items = [to_plain(item, f"{key}.{i}" if key else str(i)) for i, item in enumerate(value)]
        return tuple(items) if isinstance(value, tuple) else items
    raise _refused(value, key)


def _tensor(value: Tensor, key: str) -> Tensor:
    value = value.detach()
    if type(value) is not Tensor:
        raise _refused(value, key)
    if value.layout is torch.strided and value.untyped_storage().nbytes() > value.nbytes:
        return value.clone()  # torch.save writes the whole storage behind a view
    return value


def _numpy(value: np.ndarray | np.generic, key: str) -> Any:
    if isinstance(value, np.generic):
        item = value.item()
        if isinstance(item, np.generic):  # longdouble has no Python type, and gives itself
            raise _refused(value, key)
        return to_plain(item, key)
    try:
        return torch.from_numpy(np.array(value, copy=True, order="C", subok=False))
    except TypeError:
        raise _refused(value, key) from None


def _scalar(value: Any, key: str) -> Any:
    if isinstance(value, int) and value.bit_length() > _LARGEST_INT_BITS:
        raise _refused(value, key)
    # Subclasses (numpy's float64 and str_, string enums) become the plain type.
    plain: Any = next(kind for kind in _SCALARS if isinstance(value, kind))
    return plain(value)


def _dict(value: dict, key: str) -> dict:
    items = {}
    for name, item in value.items():
        path = f"{key}.{name}" if key else str(name)
        plain_name = to_plain(name, path)
        if not _hashable(plain_name):
            raise _refused(name, path)
        items[plain_name] = to_plain(item, path)
    metadata = getattr(value, "_metadata", None)
    if metadata is None:
        return items
    # `Module.state_dict()` keeps each module's version here; loading without it runs migrations.
    versioned: Any = OrderedDict(items)
    versioned._metadata = to_plain(metadata, f"{key}._metadata")
    return versioned


def _hashable(name: Any) -> bool:
    inner = name if isinstance(name, tuple) else ()
    return name is None or (isinstance(name, (*_SCALARS, tuple)) and all(map(_hashable, inner)))


def _refused(value: Any, key: str) -> TypeError:
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return TypeError(
        f"checkpoint entry {key or '(root)'} is a {kind}: expected tensors and plain Python;"
        " convert it in the state_dict that wrote it"
    )
