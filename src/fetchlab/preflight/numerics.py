"""What a process sets once for torch, for its numbers and its speed: from the run's settings.

A sweep, a notebook or a test has several runs in one process, so each run sets all of it, whatever
an earlier run, a user's cell or torch's defaults left; the fingerprint reads it afterwards.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import os
import subprocess
from collections.abc import Mapping
from typing import Any

import torch
import torch.utils.deterministic

from fetchlab.errors import ConfigError, require

#: What torch calls bfloat16 products of a processor: x86 has the first two, ARM the others.
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_LARGEST = 2**31 - 1


def apply(trainer: Mapping[str, Any], threads: int, cuda: bool) -> None:
    """Make this process compute as the run says.

    Args:
        trainer: group ``trainer`` of the configuration.
        threads: torch threads, >= 1.
        cuda: whether the run trains on a CUDA device; TF32 means nothing elsewhere.
    """
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_flush_denormal(False)
    deterministic = trainer["deterministic"]
    torch.use_deterministic_algorithms(deterministic)
    # Fresh memory is filled in that mode, for those who read what nobody wrote: 11 feature maps of
    # an update, and no number depends on it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not deterministic
    # cuBLAS sums in the same order only with a workspace of fixed size, which it reads once.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    _set_tf32(trainer["tf32"] and cuda)
    _free_earlier_runs()
    reuse_memory()


def reuse_memory() -> bool:
    """Let the C library keep what tensors gave back, up to 2 GB; False where it is not glibc.

    glibc asks the kernel for every block above 32 MB and returns it when it is freed. A pixel
    update with a batch of 256 allocates dozens of such tensors, and each arrives as pages that the
    kernel clears one by one when they are first touched: 830,000 page faults and half of the
    update's time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST))


def _set_tf32(on: bool) -> None:
    """TF32 in matrix products and convolutions; torch's own default is the latter alone."""
    # The newer, finer switches win over these where somebody set them: back to "not set".
    torch.backends.fp32_precision = "none"  # type: ignore[attr-defined]
    torch.backends.cudnn.fp32_precision = "none"
    # Not "high", which on some processors means TF32 on the CPU too.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on


def emulation(precision: str, device: str) -> list[str]:
    """A line that says so where convolutions on this processor would be slower in bfloat16."""
    # torch 2.10 cannot tell.
    ask = getattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(_BFLOAT16, True))
    if precision != "bfloat16" or device != "cpu" or any(map(ask().get, _BFLOAT16)):
        return []
    return [
        f"warning   trainer.precision={precision}: this processor has no bfloat16 arithmetic and "
        "emulates it, 2 to 6 times slower; use trainer.precision=float32"
    ]


def compiler(device: str) -> str:
    """The C++ compiler of ``trainer.compile``: what it says of its version, in one line.

    Raises:
        ConfigError: there is none, or no Triton for a CUDA device.
    """
    from torch._inductor import cpp_builder, exc  # seconds, which no other run needs

    key, remedy = "trainer.compile", "or use trainer.compile=false"
    triton = device != "cuda" or importlib.util.find_spec("triton") is not None
    require(triton, key, True, "Triton, for a CUDA device", f"pip install triton, {remedy}")
    try:
        found = cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        expected = "a C++ compiler, which torch.compile calls"
        raise ConfigError(key, True, expected, f"install g++, {remedy}") from None
    says = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    return says.stdout.partition("\n")[0]


def _free_earlier_runs() -> None:
    """Give back what ended runs hold on the device: the next one's replay must fit there."""
    if torch.cuda.is_initialized():
        gc.collect()  # a Trainer and its module refer to each other
        torch.cuda.empty_cache()
