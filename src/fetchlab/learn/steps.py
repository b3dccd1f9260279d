"""How a loss becomes an optimizer step: looked at on the host, or masked on the device.

Either way no step is taken with a loss or gradient that is not finite. `CheckedSteps` waits for
each step's verdict and raises. `MaskedSteps` never waits: the optimizer itself skips the step, a
counter on the device remembers, and the run stops when that is read back. Only so can a whole
update be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from fetchlab.errors import NonFiniteError, require

if TYPE_CHECKING:
    from torch import Tensor, nn

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
        """Step the optimizers in ``held`` on ``loss``.

        Raises:
            NonFiniteError: instead of a step with a loss or gradient that is not finite.
        """
        params = [param for group in held.values() for param in group]
        _clear(self._params, held)
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
    """Steps without a look from the host.

    Args:
        optimizers: by name; fused ones, which skip a step on the device.

    Attributes:
        failures: () float32 on the device; steps skipped.

    Raises:
        ConfigError: an optimizer that is not fused.
    """

    def __init__(self, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
        for name, optimizer in optimizers.items():
            require(
                bool(optimizer.defaults.get("fused")),
                f"algo.{name}_optimizer",
                type(optimizer).__name__,
                "a fused optimizer, which can skip a step on the device (trainer.cuda_graphs)",
                "use torch.optim.Adam or AdamW with fused: true, or trainer.cuda_graphs=false",
            )
        self._optimizers, self._params = optimizers, _parameters(optimizers)
        self.failures = torch.zeros((), device=self._params["critic"][0].device)

    def __call__(self, name: str, loss: Tensor, held: Held) -> None:
        """Step the optimizers in ``held`` on ``loss``, or count a failure."""
        params = [param for group in held.values() for param in group]
        _clear(self._params, held)
        loss.backward(inputs=params)
        found: Any = count_non_finite(loss, params)
        self.failures.add_(found.clamp_max(1))
        for owner in held:
            optimizer: Any = self._optimizers[owner]
            optimizer.grad_scale, optimizer.found_inf = None, found
            optimizer.step()

    def raise_if_failed(self) -> None:
        """Read the counter back, which waits for the device.

        Raises:
            NonFiniteError: a step was skipped.
        """
        failures = int(self.failures.item())
        if failures:
            raise NonFiniteError(
                f"a loss or gradient was not finite, {failures} optimizer steps were skipped; "
                "the newest checkpoint is from before"
            )


def _parameters(optimizers: Mapping[str, Any]) -> dict[str, list[nn.Parameter]]:
    """Everything each optimizer holds."""
    return {
        name: [param for group in optimizer.param_groups for param in group["params"]]
        for name, optimizer in optimizers.items()
    }


def _clear(params: Mapping[str, list[nn.Parameter]], held: Held) -> None:
    """Forget the gradients of all that these optimizers hold, reached by the loss or not."""
    for owner in held:
        for param in params[owner]:
            param.grad = None
