"""Adam (Kingma & Ba 2015, arXiv 1412.6980) whose step costs its arithmetic, not its bookkeeping.

`torch.optim.Adam` collects and groups its tensors anew for every step and counts the steps of each
parameter in a tensor of its own; with two optimizers of a few small tensors that takes longer than
the arithmetic. Here the lists are kept and one addition counts for all. The arithmetic is torch's
fused kernel, so the numbers are those of ``torch.optim.Adam(fused=True)``, bit for bit, and so is
what a checkpoint holds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class _Lists(NamedTuple):
    params: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]
    steps: list[Tensor]  # views of `counter`
    counter: Tensor


class FusedAdam(torch.optim.Adam):
    """Adam for parameters that nearly always have their gradients all together.

    Steps in which a parameter has no gradient, the first step, and steps that may be skipped on the
    device (``found_inf``) are torch's own.

    Args:
        params: parameters or groups of them.
        lr: learning rate, >= 0.
        fused: True; named so that the configuration says what it uses.
    """

    def __init__(self, params: Any, lr: float, fused: bool) -> None:
        super().__init__(params, lr=lr, fused=fused)
        self._lists: list[_Lists] | None = None

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Step all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = [[p.grad for p in group["params"]] for group in self.param_groups]
        whole = all(grad is not None for group in grads for grad in group)
        if not whole or getattr(self, "found_inf", None) is not None or not self._known():
            self._lists = None
            super().step()
            return loss
        assert self._lists is not None
        for group, lists, gradients in zip(self.param_groups, self._lists, grads, strict=True):
            lists.counter.add_(1)
            beta1, beta2 = group["betas"]
            torch._fused_adam_(
                lists.params,
                gradients,
                lists.exp_avgs,
                lists.exp_avg_sqs,
                [],
                lists.steps,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=group["maximize"],
            )
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from torch's own format."""
        super().load_state_dict(state_dict)
        self._lists = None

    def _known(self) -> bool:
        """Whether the lists are there; collects them after the step that made the states."""
        if self._lists is not None and len(self._lists) == len(self.param_groups):
            return True
        if not all(p in self.state for group in self.param_groups for p in group["params"]):
            return False
        self._lists = [self._keep(group) for group in self.param_groups]
        return True

    def _keep(self, group: dict[str, Any]) -> _Lists:
        states = [self.state[p] for p in group["params"]]
        counter = torch.stack([state["step"] for state in states])
        for state, step in zip(states, counter.unbind(), strict=True):
            state["step"] = step
        return _Lists(
            list(group["params"]),
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["step"] for state in states],
            counter,
        )
