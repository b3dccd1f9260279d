"""A CUDA device acted out on the CPU: does code for it wait, mix devices, bake numbers in?

Tensors stay on the CPU; a note is kept of the storages that would lie on the device. Two modes see
what happens to them: `_Calls` what Python asks of torch (where a tensor lies, to make or move one),
`_Kernels` the operations that run, those of a backward pass too. While a graph is recorded they are
noted down and, as a recording computes nothing, undone; a replay runs them again on the tensors of
the recording. What reads anything else than these tensors then gives other numbers than the same
code called in turn. Rounding, memory, streams and time of a real device are beyond this.
"""

from __future__ import annotations

import contextlib
import traceback
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

THERE, HERE = torch.device("cuda", 0), torch.device("cpu")
#: Operations that read something back: a value, or how large their result is.
READS = {
    *("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
_DEVICE, _IS_CUDA, _IS_CPU = (getattr(Tensor, n).__get__ for n in ("device", "is_cuda", "is_cpu"))


class DeviceError(RuntimeError):
    """What CUDA refuses, or what a graph cannot hold."""


class Device:
    """Which storages lie there, and what the host waited for.

    Attributes:
        phase: what is going on, named by the test.
        waits: (phase, what, where) of each time the host waited.
        graph: the one that is being recorded.
        graphs: recorded so far.
    """

    def __init__(self) -> None:
        self._there = _Storages()
        #: Constants that C++ makes beside its inputs, where it sees them: on the CPU.
        self.anywhere = _Storages()
        self.phase, self.waits, self.graph, self.graphs = "", [], None, 0

    def holds(self, tensor: Tensor) -> bool:
        return tensor in self._there

    def take(self, tensor: Tensor) -> Tensor:
        self._there.add(tensor)
        return tensor

    def storages(self):
        return self._there.alive()

    def wait(self, what: str) -> None:
        self.waits.append((self.phase, what, _caller()))
        if self.graph is not None:
            raise DeviceError(f"{what} while a graph is recorded, in {_caller()}")

    def move(self, tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        to_device = device.type == "cuda"
        if to_device == self.holds(tensor):
            return tensor
        if not (to_device and non_blocking):
            self.wait("a copy to the device" if to_device else "a copy to the host")
        with torch._C._DisableTorchDispatch():
            moved = tensor.detach().clone()
        if to_device:
            self.take(moved)
        return moved.requires_grad_(tensor.requires_grad) if tensor.is_leaf else moved


class _Storages:
    """A set of storages that keeps none of them alive."""

    def __init__(self) -> None:
        self._refs = {}

    def add(self, tensor: Tensor) -> None:
        ref = StorageWeakRef(tensor.untyped_storage())
        self._refs[ref.cdata] = ref

    def __contains__(self, tensor: Tensor) -> bool:
        ref = self._refs.get(tensor.untyped_storage()._cdata)
        return ref is not None and not ref.expired()

    def alive(self):
        self._refs = {key: ref for key, ref in self._refs.items() if not ref.expired()}
        return [torch.UntypedStorage._new_with_weak_ptr(ref.cdata) for ref in self._refs.values()]


class _Calls(TorchFunctionMode):
    """Answers where a tensor lies; makes and moves tensors."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self.device, self.running = device, ""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        outer, self.running = self.running, getattr(func, "__name__", "")
        try:
            return self._answer(func, args, kwargs or {})
        finally:
            self.running = outer

    def _answer(self, func, args, kwargs):
        tensor = args[0] if args else None
        if func == _DEVICE:
            return THERE if self.device.holds(tensor) else HERE
        if func in (_IS_CUDA, _IS_CPU):
            return self.device.holds(tensor) == (func == _IS_CUDA)
        if func in (Tensor.numpy, Tensor.__array__, Tensor.tolist) and self.device.holds(tensor):
            if func is not Tensor.tolist:
                raise DeviceError(f"numpy of a device tensor, in {_caller()}")
            self.device.wait("tolist")
        if func is Tensor.cpu:
            return self.device.move(tensor, HERE, False)
        if func is Tensor.to:
            return self._to(tensor, args[1:], kwargs)
        asked = kwargs.get("device")
        if asked is None:
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": HERE})
        return self.device.take(made) if torch.device(asked).type == "cuda" else made

    def _to(self, tensor, args, kwargs):
        if args and isinstance(args[0], Tensor):
            args = (THERE if self.device.holds(args[0]) else HERE, args[0].dtype, *args[1:])
        given = {name: value for name, value in kwargs.items() if value is not None}
        given.pop("copy", None)
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **given)
        if device is not None:
            tensor = self.device.move(tensor, device, non_blocking)
        layout = {} if memory_format is None else {"memory_format": memory_format}
        return tensor.to(dtype=dtype or tensor.dtype, **layout) if dtype or layout else tensor


class _Kernels(TorchDispatchMode):
    """Results lie where their inputs lie; refuses mixtures, notes waits, records graphs."""

    def __init__(self, device: Device, calls: _Calls) -> None:
        super().__init__()
        self.device, self.calls = device, calls

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, device = kwargs or {}, self.device
        name = func._schema.name.partition("::")[2]
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        there = any(device.holds(x) for x in inputs)
        if there:
            self._check(name, args, inputs)
        generator = kwargs.get("generator")
        if device.graph is not None and generator is not None:
            device.graph.require(generator)
        result = func(*args, **kwargs)
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
        for one in outputs:
            if there:
                device.take(one)
            elif not inputs and name != self.calls.running:
                device.anywhere.add(one)
        if device.graph is not None and (there or not inputs):
            device.graph.record(func, args, kwargs, inputs, outputs)
        return result

    def _check(self, name, args, inputs):
        device = self.device
        if name == "copy_":  # allowed across devices
            if not device.holds(args[0]):
                device.wait("a copy to the host")
            elif not device.holds(args[1]) and args[1].dim() and not any(args[2:3]):
                device.wait("a copy to the device")
            return
        strays = [x for x in inputs if not device.holds(x) and x not in device.anywhere]
        if name != "_to_copy" and any(x.dim() for x in strays):
            raise DeviceError(f"{name}: tensors of host and device, in {_caller()}")
        masks = args[1] if name in INDEXING else ()
        if name in READS or any(x is not None and x.dtype == torch.bool for x in masks):
            device.wait(name)


class _Graph:
    """`torch.cuda.CUDAGraph`: operations, with the tensors that they were recorded on."""

    device: Device

    def __init__(self) -> None:
        self._generators, self._operations = [], []

    def register_generator_state(self, generator) -> None:
        self._generators.append(generator)

    def require(self, generator) -> None:
        if all(generator._cdata != known._cdata for known in self._generators):
            raise DeviceError(f"a generator that the graph does not know, in {_caller()}")

    def record(self, func, args, kwargs, inputs, outputs) -> None:
        writes = any(a.alias_info and a.alias_info.is_write for a in func._schema.arguments)
        owners = {x.untyped_storage()._cdata for x in inputs}
        is_view = outputs and all(x.untyped_storage()._cdata in owners for x in outputs)
        if writes or not is_view:
            self._operations.append((func, args, kwargs, () if writes else outputs))

    def replay(self) -> None:
        with torch._C._DisableTorchDispatch(), torch.no_grad(), _no_autocast():
            for func, args, kwargs, outputs in self._operations:
                computed = [x for x in tree_leaves(func(*args, **kwargs)) if isinstance(x, Tensor)]
                for old, new in zip(outputs, computed, strict=False):
                    old.detach().copy_(new)

    @classmethod
    @contextlib.contextmanager
    def recording(cls, graph):
        """`torch.cuda.graph`: what runs inside is recorded, and leaves no trace."""
        device, unseen = cls.device, torch._C._DisableTorchDispatch
        with unseen(), torch._C.DisableTorchFunction():
            contents = [(storage, storage.clone()) for storage in device.storages()]
            states = [(g, torch.Generator.get_state(g)) for g in graph._generators]
        device.graph, device.graphs = graph, device.graphs + 1
        try:
            yield
        finally:
            device.graph = None
            with unseen(), torch._C.DisableTorchFunction():
                for storage, content in contents:
                    storage.copy_(content)
                for generator, state in states:
                    generator.set_state(state)


class _Generator(torch.Generator):
    """One for the device draws on the CPU what a CPU's would."""

    def __new__(cls, device="cpu"):
        self = super().__new__(cls, "cpu")
        self._device = torch.device(device)
        return self

    def __init__(self, device="cpu") -> None:
        """Only to take the argument."""

    @property
    def device(self):
        return self._device


def _caller() -> str:
    """Where in the package; a checkout's folder may have its name too."""
    package = "/src/fetchlab/"
    frames = [f for f in traceback.extract_stack() if package in f.filename]
    return f"{frames[-1].filename.rpartition(package)[2]}:{frames[-1].lineno}" if frames else ""


def _no_autocast():
    return torch.autocast("cpu", enabled=False)


@contextlib.contextmanager
def pretended():
    """A CUDA device, as far as Python can tell; yields the `Device`."""
    device, plain_autocast = Device(), torch.autocast
    _Graph.device = device
    grouped = torch.optim.Optimizer._group_tensors_by_device_and_dtype

    def by_device(lists, with_indices=False):
        """C++ groups them, and sees CPU tensors."""
        groups = grouped(lists, with_indices).items()
        return {
            (THERE if device.holds(value[0][0][0]) else key[0], key[1]): value
            for key, value in groups
        }

    cuda = {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: device.graph is not None,
        "Stream": mock.MagicMock(),
        "current_stream": mock.MagicMock(),
        "stream": lambda _: contextlib.nullcontext(),
        "CUDAGraph": _Graph,
        "graph": _Graph.recording,
    }
    optimizer = {
        "_group_tensors_by_device_and_dtype": staticmethod(by_device),
        # Asks whether the build has CUDA; the name depends on torch's release.
        "_cuda_graph_capture_health_check": lambda self: None,
        "_accelerator_graph_capture_health_check": lambda self: None,
    }
    here = {
        "Generator": _Generator,
        "autocast": lambda kind, *a, **k: plain_autocast(
            "cpu" if kind == "cuda" else kind, *a, **k
        ),
    }
    no_page_locking = {"is_available": lambda: False}
    patches = (
        (torch.cuda, cuda),
        (torch.optim.Optimizer, optimizer),
        (torch, here),
        (torch.accelerator, no_page_locking),
    )
    calls = _Calls(device)
    with contextlib.ExitStack() as stack:
        for owner, parts in patches:
            for name, part in parts.items():
                stack.enter_context(mock.patch.object(owner, name, part, create=True))
        stack.enter_context(calls)
        stack.enter_context(_Kernels(device, calls))
        yield device
