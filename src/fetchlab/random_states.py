"""Random states as checkpoints hold them, and what a resume on another device makes of them.

A generator's state fits generators of its own kind of device alone: CUDA's has 16 bytes, the CPU's
5056. A run that is forced onto the other kind keeps the generators that it seeded at its start.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def restore_generator(generator: torch.Generator, state: Tensor) -> bool:
    """Put ``state`` back; False, and nothing done, where it is of another kind of device."""
    fits = state.numel() == generator.get_state().numel()
    if fits:
        generator.set_state(state.cpu())
    return fits


def global_random_states() -> dict[str, Any]:
    """The states of torch's, numpy's and Python's own generators."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, position, has_gauss, gauss = numpy_state
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "python": [version, list(internal), gauss_next],
    }


def restore_global_random_states(state: Mapping[str, Any]) -> None:
    """Put back what `global_random_states` took, of CUDA's as many as there are devices here."""
    torch.set_rng_state(state["torch"].cpu())
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    for device, one in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(one.cpu(), device)
