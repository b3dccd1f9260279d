"""Training metrics, summed as tensors between two logging points.

`LightningModule.log` costs milliseconds a call, adding five scalars microseconds. The sums are
part of the checkpoint, so a resumed run writes the same row as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class MetricSums:
    """Sums of named scalars, read as means.

    Sums and count lie in one tensor that is only changed in place, so that adding can be part of a
    CUDA graph.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._sums = torch.zeros(len(self.names) + 1, dtype=torch.float64)
        self._one = torch.ones(())

    def to(self, device: torch.device) -> None:
        """Sum on ``device`` from now on."""
        self._sums, self._one = self._sums.to(device), self._one.to(device)

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add one 0-d tensor, on the sums' device, for each name."""
        if values.keys() != set(self.names):
            raise RuntimeError(
                f"an update returned the metrics {sorted(values)}, announced were "
                f"{sorted(self.names)}: name them in the algorithm's `metrics`"
            )
        self._sums += torch.stack([*(values[name] for name in self.names), self._one])

    def pop(self) -> dict[str, float]:
        """Means since the last call, empty when nothing was added; starts again from zero."""
        *sums, count = self._sums.tolist()
        self._sums.zero_()
        return {name: total / count for name, total in zip(self.names, sums, strict=True) if count}

    def state_dict(self) -> dict[str, Tensor]:
        """Sums and count."""
        return {"sums": self._sums.cpu()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`."""
        self._sums.copy_(state["sums"])
