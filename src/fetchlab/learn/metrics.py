"""Training metrics, summed as tensors between two logging points.

`LightningModule.log` costs milliseconds a call, adding five scalars microseconds. The sums are
part of the checkpoint, so a resumed run writes the same row as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class MetricSums:
    """Sums of named scalars, read as means.

    Args:
        names: of the scalars, in the order in which `add` receives them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, values: Sequence[Tensor]) -> None:
        """Add one value per name; values are 0-d tensors on one device."""
        stacked = torch.stack([value.detach() for value in values])
        self._sum = stacked.double() if self._sum is None else self._sum.add_(stacked)
        self._count += 1

    def pop(self) -> dict[str, float]:
        """Means since the last call, empty when nothing was added; starts again from zero."""
        if self._sum is None:
            return {}
        means = (self._sum / self._count).tolist()
        self._sum, self._count = None, 0
        return dict(zip(self.names, means, strict=True))

    def state_dict(self) -> dict[str, object]:
        """Sums and count."""
        return {"sum": None if self._sum is None else self._sum.cpu(), "count": self._count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continue from `state_dict`."""
        total, count = state["sum"], state["count"]
        assert (total is None or isinstance(total, Tensor)) and isinstance(count, int)
        self._sum, self._count = (None if total is None else total.clone()), count
