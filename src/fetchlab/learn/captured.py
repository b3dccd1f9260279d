"""A round's updates as one CUDA graph: recorded once, then launched with a single call.

An update of a small network is several hundred kernels of a few microseconds each; launched one by
one from Python they take longer than they run. What a graph reads lies at fixed addresses, so each
batch is copied into static tensors first.

Elsewhere than on a CUDA device the same static tensors are used and the updates are called, so the
way there is tested without a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor

#: Updates before the first recording: they fill caches (cuDNN's choices, allocator, optimizer
#: states) that a recording must not. They train like all others.
WARM_UP_UPDATES = 3
#: Updates of one graph at most: each has its own static batch, 27 MB of 256 stacks of 84x84.
AT_ONCE = 8


class CapturedUpdates:
    """Calls ``update`` on static copies of batches, after a warm-up as CUDA graphs.

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
        self._static: list[TensorDict] = []
        self._keys: list[tuple[str, ...] | str] = []
        self._leaves: list[list[Tensor]] = []  # of each static batch, in the order of the keys
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}  # by their number of updates
        self._updates = 0

    def __call__(self, batches: Sequence[TensorDictBase]) -> None:
        """Update on each of ``batches`` in turn, [B] of the same shapes as the first one ever."""
        for first in range(0, len(batches), AT_ONCE):
            self._run([self._load(*one) for one in enumerate(batches[first : first + AT_ONCE])])

    def _run(self, static: list[TensorDict]) -> None:
        if self._device.type != "cuda":
            self._update_all(static)
        elif self._updates < WARM_UP_UPDATES:
            self._on_side_stream(static)
        else:
            if len(static) not in self._graphs:
                self._graphs[len(static)] = self._capture(static)
            self._graphs[len(static)].replay()
        self._updates += len(static)

    def _update_all(self, static: list[TensorDict]) -> None:
        for one in static:
            self._update(one)

    def _load(self, nth: int, batch: TensorDictBase) -> TensorDict:
        if nth == len(self._static):
            self._keys = _keys(batch)
            self._static.append(batch.to(self._device).clone())
            self._leaves.append([self._static[nth].get(key) for key in self._keys])
        else:
            torch._foreach_copy_(self._leaves[nth], [batch.get(key) for key in self._keys])
        return self._static[nth]

    def _on_side_stream(self, static: list[TensorDict]) -> None:
        """Run on another stream than the default one, as recordings do (PyTorch's CUDA notes)."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._update_all(static)
        torch.cuda.current_stream(self._device).wait_stream(stream)

    def _capture(self, static: list[TensorDict]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._update_all(static)
        return graph


def _keys(batch: TensorDictBase) -> list[tuple[str, ...] | str]:
    """Leaves that an update reads, always in the same order."""
    keys = batch.keys(include_nested=True, leaves_only=True)
    return sorted((key for key in keys if key != "index"), key=str)
