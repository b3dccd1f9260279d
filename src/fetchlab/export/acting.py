"""The part of a module that acts: the weights it reads, as a function of what it is given.

Which weights those are is seen, not listed, so it holds for every algorithm: `act` is called once,
and whatever tensors it hands to torch are noted.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, PIXELS, PROPRIO, STATE

BATCH = 2  # of the example that is traced; 0 and 1 would be taken for constants


class Acting(nn.Module):
    """A policy's mode as a function of the entries that its actor is given, by name.

    ``pixels`` (B, S C, H, W) uint8, the newest S frames, oldest first; vectors (B, dim) float32 as
    the simulator gives them. Returns the action (B, A) float32 in [-1, 1].

    Args:
        module: of any algorithm, on the CPU, in evaluation mode.
        images: (S C, H, W) of an agent with a camera, else None.

    Attributes:
        inputs: the shape of each entry, without the batch.
    """

    _proprio: Tensor

    def __init__(self, module: Any, images: tuple[int, int, int] | None) -> None:
        super().__init__()
        self.module, self._spec = module, module.agent.env_spec
        names, spec = module.agent.actor_inputs, self._spec
        seen = [PIXELS] if module.agent.actor_looks else []
        # The others are parts of the whole state, where that is given.
        parts = {PROPRIO, ACHIEVED_GOAL} if spec.goal_slice is not None else {PROPRIO}
        derived = parts if STATE in names else set()
        vectors = (STATE, PROPRIO, ACHIEVED_GOAL, DESIRED_GOAL)
        seen += [name for name in vectors if name in names and name not in derived]
        self.inputs: dict[str, tuple[int, ...]] = {}
        for name in seen:
            self.inputs[name] = images or () if name == PIXELS else (spec.dim(name),)
        self.register_buffer("_proprio", torch.tensor(spec.proprio), persistent=False)

    def forward(self, entries: Mapping[str, Tensor]) -> Tensor:
        """The actions (B, A) of ``inputs``."""
        action: Tensor = self.module.act(self._rows(entries))
        return action

    def example(self, batch: int, seed: int = 0) -> dict[str, Tensor]:
        """Random entries of so many rows."""
        rng = torch.Generator().manual_seed(seed)
        return {
            name: torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=rng)
            if name == PIXELS
            else torch.randn(batch, *shape, generator=rng)
            for name, shape in self.inputs.items()
        }

    def _rows(self, entries: Mapping[str, Tensor]) -> TensorDictBase:
        """The simulator's rows as far as the actor may know them; the rest of the state is zero."""
        spec, goal = self._spec, entries[DESIRED_GOAL]
        count = goal.shape[0]
        state = entries.get(STATE)
        if state is None:
            state = torch.zeros(count, spec.state_dim)
        achieved = entries.get(ACHIEVED_GOAL)
        if PROPRIO in entries:
            state = state.index_copy(1, self._proprio, entries[PROPRIO])
        if achieved is not None and spec.goal_slice is not None:
            state = state.clone()
            state[:, spec.goal_slice] = achieved
        rows = {STATE: state, DESIRED_GOAL: goal}
        if spec.goal_slice is None:
            rows[ACHIEVED_GOAL] = torch.zeros_like(goal) if achieved is None else achieved
        if PIXELS in entries:
            rows["frames"] = entries[PIXELS]
        return TensorDict(rows, batch_size=[count])


class _Reads(TorchFunctionMode):
    """Notes the tensors that are handed to torch's functions."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.seen |= {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        return func(*args, **kwargs)


def acting_weights(acting: Acting) -> dict[str, Tensor]:
    """What acting takes of the module's state, by name.

    A layer or a normaliser is taken whole where one of its tensors is read: an input's statistics
    go with the scale that they gave.
    """
    state = acting.module.state_dict(keep_vars=True)
    with _Reads() as reads:
        acting(acting.example(BATCH))
    owners = {name.rpartition(".")[0] for name, one in state.items() if id(one) in reads.seen}
    return {name: one.detach() for name, one in state.items() if name.rpartition(".")[0] in owners}


def program(acting: Acting) -> bytes:
    """`acting` as a `torch.export` archive, of any batch size; its module is used up.

    Computed as the run evaluates it, in its precision and memory format.

    Raises:
        RuntimeError: it cannot be traced, or its program gives other actions.
    """
    given = acting.example(5, seed=1)
    expected = acting(given)
    _drop_unread(acting)
    shapes = {name: {0: torch.export.Dim("batch", min=1)} for name in acting.inputs}
    archive = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are not contiguous, on a CPU
        traced = torch.export.export(
            acting, (acting.example(BATCH),), dynamic_shapes={"entries": shapes}, strict=False
        )
        # Plain operations: what marks regions of other gradient modes or precisions is not read
        # back by torch 2.13.
        plain = traced.run_decompositions({})
        for node in plain.graph.nodes:  # where this code lies on this machine is nobody's business
            node.meta.pop("stack_trace", None)
        torch.export.save(plain, archive)
        archive.seek(0)
        actions = torch.export.load(archive).module()(given)
    if not torch.allclose(actions, expected, rtol=0, atol=1e-5):
        raise RuntimeError("the program's actions are not the policy's")
    return archive.getvalue()


def _drop_unread(acting: Acting) -> None:
    """Leave out what acting does not read, which the archive would hold too."""
    with _Reads() as reads:
        acting(acting.example(BATCH))
    for owner in acting.modules():
        for tensors in (owner._parameters, owner._buffers):
            for name, one in tensors.items():
                if one is not None and id(one) not in reads.seen:
                    tensors[name] = None
