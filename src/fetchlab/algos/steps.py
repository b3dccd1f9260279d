"""How updates run: each step looked at on the host, or masked on the device and captured.

Either way no step is taken with a loss or gradient that is not finite. `CheckedSteps` waits for
each step's verdict and raises. `MaskedSteps` never waits: the optimizer itself skips the step, a
counter on the device remembers, and the run stops when that is read back. Only so can a whole
update be captured in a CUDA graph, as `CapturedUpdates` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from fetchlab.errors import NonFiniteError, require

#: Updates before the first recording, a period at least: they fill caches (cuDNN's choices,
#: allocator, optimizer states) that a recording must not. They train like all others.
WARM_UP_UPDATES = 3
#: Updates of one graph at most: each has its own static batch, 27 MB of 256 stacks of 84x84.
AT_ONCE = 8
#: Optimizers by name, each with those of its parameters that a loss is to reach.
Held = Mapping[str, "list[nn.Parameter]"]


def count_non_finite(loss: Tensor, params: list[nn.Parameter]) -> Tensor:
    """A float32 scalar on the loss's device: 0 exactly when loss and gradients are finite."""
    checked = [loss.detach(), *(p.grad for p in params if p.grad is not None)]
    found = torch.zeros((), device=loss.device)
    # What GradScaler calls: one pass over all of them, times 1 here.
    torch._amp_foreach_non_finite_check_and_unscale_(checked, found, torch.ones_like(found))
    return found


class CheckedSteps:
    """Steps whose verdicts are awaited.

    Args:
        optimizers: by name; Lightning's wrappers where its hooks are to see each step.
        backward: ``backward(loss, inputs=params)``; `LightningModule.manual_backward` likewise.
    """

    def __init__(self, optimizers: Mapping[str, Any], backward: Callable[..., None]) -> None:
        self._optimizers, self._backward = optimizers, backward
        self._params = _parameters(optimizers)

    def __call__(self, name: str, loss: Tensor, held: Held) -> None:
        """Step the optimizers in ``held``, or raise `NonFiniteError` and leave all as it is."""
        params = _cleared(self._params, held)
        # Gradients of these parameters alone: the actor's loss runs through the critics too, and
        # their gradients of it would be computed to be thrown away.
        self._backward(loss, inputs=params)
        if count_non_finite(loss, params).item():
            raise NonFiniteError(
                f"{name} loss or gradient is not finite (loss {loss.item():g}); the weights are "
                "those before this step"
            )
        for owner in held:
            self._optimizers[owner].step()


class MaskedSteps:
    """Steps without a look from the host, by fused optimizers: they skip a step on the device."""

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        for name, optimizer in optimizers.items():
            fused, given = bool(optimizer.defaults.get("fused")), type(optimizer).__name__
            expected = (
                "a fused optimizer, which can skip a step on the device (trainer.cuda_graphs)"
            )
            remedy = "use torch.optim.Adam or AdamW with fused: true, or trainer.cuda_graphs=false"
            require(fused, f"algo.{name}_optimizer", given, expected, remedy)
        self._optimizers, self._params = optimizers, _parameters(optimizers)
        self.failures = torch.zeros((), device=next(iter(self._params.values()))[0].device)

    def __call__(self, name: str, loss: Tensor, held: Held) -> None:
        """Step the optimizers in ``held`` on ``loss``, or count a failure."""
        params = _cleared(self._params, held)
        loss.backward(inputs=params)
        found: Any = count_non_finite(loss, params)
        self.failures.add_(found.clamp_max(1))
        for owner in held:
            optimizer: Any = self._optimizers[owner]
            optimizer.grad_scale, optimizer.found_inf = None, found
            optimizer.step()

    def raise_if_failed(self) -> None:
        """Raise `NonFiniteError` if a step was skipped; waits for the device."""
        failures = int(self.failures.item())
        if failures:
            raise NonFiniteError(
                f"a loss or gradient was not finite, {failures} optimizer steps were skipped; "
                "the newest checkpoint is from before"
            )


class CapturedUpdates:
    """Calls ``update`` on static copies of batches, after a warm-up as CUDA graphs.

    An update of a small network is several hundred kernels of a few microseconds each; launched one
    by one from Python they take longer than they run. Recorded once, a round's updates are a single
    call. What a graph reads lies at fixed addresses, so each batch is copied into static tensors
    first. Elsewhere than on a CUDA device the same static tensors are used and the updates are
    called, so the way there is tested without a GPU.

    Args:
        update: ``update(batch, nth)``, the run's nth; works in place on tensors that stay where
            they are, waits for nothing on the host and draws from ``generators`` alone.
        generators, device: of the update.
        period: updates after which they repeat what they do: ``nth`` counts modulo this.
    """

    def __init__(
        self,
        update: Callable[[TensorDictBase, int], None],
        generators: Sequence[torch.Generator],
        device: torch.device,
        period: int,
    ) -> None:
        self._update, self._generators, self._device = update, generators, device
        self._period = period
        self._static: list[TensorDict] = []
        self._keys: list[Any] = []  # leaves that an update reads, always in the same order
        self._leaves: list[list[Tensor]] = []  # of each static batch, in the order of the keys
        # By their number of updates, and the first one's number in the period.
        self._graphs: dict[tuple[int, int], torch.cuda.CUDAGraph] = {}
        self._updates = 0

    def __call__(self, batches: Sequence[TensorDictBase], nth: int) -> None:
        """Update on each batch [B], shaped as the first one ever; the first is the run's nth."""
        for first in range(0, len(batches), AT_ONCE):
            static = [self._load(*one) for one in enumerate(batches[first : first + AT_ONCE])]
            self._run(static, (nth + first) % self._period)

    def _run(self, static: list[TensorDict], nth: int) -> None:
        if self._device.type != "cuda":
            self._update_all(static, nth)
        elif self._updates < max(WARM_UP_UPDATES, self._period):
            self._on_side_stream(static, nth)
        else:
            key = len(static), nth
            if key not in self._graphs:
                self._graphs[key] = self._capture(static, nth)
            self._graphs[key].replay()
        self._updates += len(static)

    def _update_all(self, static: list[TensorDict], nth: int) -> None:
        for offset, one in enumerate(static):
            self._update(one, nth + offset)

    def _load(self, nth: int, batch: TensorDictBase) -> TensorDict:
        if nth == len(self._static):
            keys = batch.keys(include_nested=True, leaves_only=True)
            self._keys = sorted((key for key in keys if key != "index"), key=str)
            self._static.append(batch.to(self._device).clone())
            self._leaves.append([self._static[nth].get(key) for key in self._keys])
        else:
            torch._foreach_copy_(self._leaves[nth], [batch.get(key) for key in self._keys])
        return self._static[nth]

    def _on_side_stream(self, static: list[TensorDict], nth: int) -> None:
        """Run on another stream than the default one, as recordings do (PyTorch's CUDA notes)."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            self._update_all(static, nth)
        torch.cuda.current_stream(self._device).wait_stream(stream)

    def _capture(self, static: list[TensorDict], nth: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self._update_all(static, nth)
        return graph


def _parameters(optimizers: Mapping[str, Any]) -> dict[str, list[nn.Parameter]]:
    """Everything each optimizer holds."""
    return {
        name: [param for group in optimizer.param_groups for param in group["params"]]
        for name, optimizer in optimizers.items()
    }


def _cleared(params: Mapping[str, list[nn.Parameter]], held: Held) -> list[nn.Parameter]:
    """All in ``held``; gradients of all that these optimizers have are forgotten, in it or not."""
    for owner in held:
        for param in params[owner]:
            param.grad = None
    return [param for group in held.values() for param in group]
