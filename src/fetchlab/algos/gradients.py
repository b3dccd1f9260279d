"""Which loss moves which part of the networks: the gradient routing as it is, not as it is meant.

Stable-Baselines3's shared extractor is trained by the actor's loss alone, which nobody sees in a
curve but as millions of flat steps. So an update is looked at: by autograd, not by the code that
routes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from fetchlab.algos.off_policy import OffPolicy
from fetchlab.algos.steps import Held

AUXILIARY = "auxiliary"


@dataclass(frozen=True)
class Reach:
    """What one loss does to one part.

    Attributes:
        loss: ``critic``, ``actor`` or ``auxiliary``.
        part: ``encoder``, ``critic``, ``actor`` or ``auxiliary``, whose heads these are.
        tensors: parameters of the part.
        reached: of these, with a gradient of this loss that is not zero.
        moved: of those, held by an optimizer that steps on this loss.
        expected: whether any should be moved, by the configured routing.
    """

    loss: str
    part: str
    tensors: int
    reached: int
    moved: int
    expected: bool

    @property
    def as_it_should(self) -> bool:
        """Whether this loss moves the part, or leaves it alone, as the routing says."""
        return (self.moved > 0) == self.expected


def look(module: OffPolicy, batch: TensorDictBase) -> list[Reach]:
    """Follow every loss of one update on a batch [B] back into every part; no step is taken.

    The update is the module's own, in which all losses are due. It moves the targets and draws
    random numbers: look at a module that learns no more.
    """
    agent = module.agent
    modules = {name: getattr(agent, name, None) for name in ("encoder", "critic", "actor")}
    parts = {
        name: _parameters(one) for name, one in {**modules, AUXILIARY: agent.auxiliary}.items()
    }
    seen = _Losses(module)
    module.nth = module.period - 1
    # Compiled passes would keep nothing for a second look back through them.
    with seen, torch.compiler.set_stance("force_eager"):
        module.update(batch)
    found = []
    for loss, (value, held) in seen.losses.items():
        for part, params in parts.items():
            if params:
                own = loss in module.routing.trained_by if part == "encoder" else loss == part
                expected = own and value.requires_grad  # a loss may be measured, and move nothing
                reached = _reached(value, params)
                moved = sum(id(param) in held for param in reached)
                found.append(Reach(loss, part, len(params), len(reached), moved, expected))
    return found


class _Losses:
    """Stands in for the steps of an update: keeps each loss, apart, and what its step moves."""

    def __init__(self, module: OffPolicy) -> None:
        self._module, self._with_auxiliary, self._step = module, module.with_auxiliary, None
        self._pure: dict[str, Tensor] = {}
        self.losses: dict[str, tuple[Tensor, set[int]]] = {}

    def __enter__(self) -> _Losses:
        module: Any = self._module
        if module._run is None:
            module._run = module._prepare()
        self._step = module._step
        module._step, module.with_auxiliary = self._keep, self._apart
        module._seen = dict(module._of_seeing)
        return self

    def __exit__(self, *error: object) -> None:
        module: Any = self._module
        module._step = self._step
        del module.with_auxiliary

    def _apart(self, name: str, loss: Tensor, *rest: Any) -> Tensor:
        self._pure[name] = loss
        return self._with_auxiliary(name, loss, *rest)

    def _keep(self, name: str, loss: Tensor, held: Held) -> None:
        moves = {id(param) for params in held.values() for param in params}
        pure = self._pure.get(name, loss)
        self.losses[name] = pure, moves
        if pure is not loss:
            self.losses[AUXILIARY] = loss - pure, moves


def _parameters(module: nn.Module | None) -> list[nn.Parameter]:
    return [] if module is None else [p for p in module.parameters() if p.requires_grad]


def _reached(loss: Tensor, params: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """Those with a gradient of this loss that is not zero."""
    if not loss.requires_grad:
        return []
    gradients = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
    pairs = zip(params, gradients, strict=True)
    return [param for param, one in pairs if one is not None and bool(one.any())]
