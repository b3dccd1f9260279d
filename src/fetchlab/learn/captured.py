"""An update as one CUDA graph: recorded once, then launched with a single call.

An update of a small network is several hundred kernels of a few microseconds each; launched one by
one from Python they take longer than they run. What a graph reads lies at fixed addresses, so each
batch is copied into static tensors first.

Elsewhere than on a CUDA device the same static tensors are used and the update is called, so the
way there is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase

#: Updates before the recording: they fill caches (cuDNN's choices, allocator, optimizer states)
#: that a recording must not. They train like all others.
WARM_UP_UPDATES = 3


class CapturedUpdate:
    """Calls ``update`` on a static copy of each batch, from the fourth on as a CUDA graph.

    Args:
        update: works in place on tensors that stay where they are, waits for nothing on the host
            and draws from ``generators`` alone.
        generators: CUDA generators that the update draws from.
        device: of the update.
    """

    def __init__(
        self,
        update: Callable[[TensorDictBase], None],
        generators: Sequence[torch.Generator],
        device: torch.device,
    ) -> None:
        self._update, self._generators, self._device = update, generators, device
        self._static: TensorDict | None = None
        self._leaves: list[torch.Tensor] = []
        self._graph: torch.cuda.CUDAGraph | None = None
        self._updates = 0

    def __call__(self, batch: TensorDictBase) -> None:
        """Update on ``batch`` [B], of the same shapes as the first one."""
        static = self._load(batch)
        self._updates += 1
        if self._device.type != "cuda":
            self._update(static)
        elif self._updates <= WARM_UP_UPDATES:
            self._on_side_stream(static)
        else:
            if self._graph is None:
                self._graph = self._capture(static)
            self._graph.replay()

    def _load(self, batch: TensorDictBase) -> TensorDictBase:
        leaves = [batch.get(key) for key in _keys(batch)]
        if self._static is None:
            self._static = batch.to(self._device).clone()
            self._leaves = [self._static.get(key) for key in _keys(batch)]
        else:
            torch._foreach_copy_(self._leaves, leaves)
        return self._static

    def _on_side_stream(self, static: TensorDictBase) -> None:
        """Run on another stream than the default one, as recordings do (PyTorch's CUDA notes)."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._update(static)
        torch.cuda.current_stream(self._device).wait_stream(stream)

    def _capture(self, static: TensorDictBase) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._update(static)
        return graph


def _keys(batch: TensorDictBase) -> list[tuple[str, ...] | str]:
    """Leaves that an update reads, always in the same order."""
    keys = batch.keys(include_nested=True, leaves_only=True)
    return sorted((key for key in keys if key != "index"), key=str)
