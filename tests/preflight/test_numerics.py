"""What a process was set to before a run does not reach it: the run's own settings do."""

from __future__ import annotations

import os

import pytest
import torch

from fetchlab.checkpoint.fingerprint import fingerprint
from fetchlab.preflight import numerics

EXACT = {"deterministic": True, "tf32": False}


@pytest.fixture(autouse=True)
def settings_come_back():
    yield
    numerics.apply(EXACT, 1, cuda=False)


def settings():
    backends = torch.backends
    return {
        **fingerprint(workers=1, renderer="none", device="cpu"),
        "dtype": torch.get_default_dtype(),
        "fills": torch.utils.deterministic.fill_uninitialized_memory,
        "benchmark": backends.cudnn.benchmark,
        "convolutions": backends.cudnn.allow_tf32,
        "products": backends.cuda.matmul.allow_tf32,
        "cpu_products": backends.mkldnn.matmul.fp32_precision,
        "tiny": float(torch.tensor(1e-42) * 1.0),
        "workspace": os.environ["CUBLAS_WORKSPACE_CONFIG"],
    }


def leave_another_run():
    numerics.apply({"deterministic": False, "tf32": True}, 2, cuda=True)


def leave_a_notebook():
    torch.set_num_threads(3)
    torch.set_default_dtype(torch.float64)
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"


def leave_finer_switches():
    torch.backends.fp32_precision = "tf32"
    torch.backends.cudnn.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "tf32"


@pytest.mark.parametrize(
    "leave", [leave_another_run, leave_a_notebook, leave_finer_switches], ids=lambda f: f.__name__
)
def test_nothing_of_the_process_before_reaches_a_run(leave):
    numerics.apply(EXACT, 1, cuda=False)
    alone = settings()
    assert (alone["threads"], alone["deterministic"], alone["dtype"]) == (1, True, torch.float32)
    assert alone["tiny"] > 0
    assert not alone["fills"]
    leave()
    numerics.apply(EXACT, 1, cuda=False)
    assert settings() == alone
    assert not torch.is_deterministic_algorithms_warn_only_enabled()


def test_tf32_is_off_unless_asked_for_and_means_nothing_on_a_cpu():
    numerics.apply(EXACT, 1, cuda=True)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    numerics.apply({**EXACT, "deterministic": False, "tf32": True}, 1, cuda=True)
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.mkldnn.matmul.fp32_precision != "tf32"
    assert torch.backends.cudnn.benchmark
    numerics.apply({**EXACT, "tf32": True}, 1, cuda=False)
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("precision", "device", "flags", "warned"),
    [
        ("bfloat16", "cpu", {"avx2": True, "avx512_f": True}, True),
        ("bfloat16", "cpu", {"neon": True, "bf16": False}, True),
        ("bfloat16", "cpu", {"avx512_bf16": True}, False),
        ("bfloat16", "cpu", {"avx512_bf16": False, "amx_bf16": True}, False),
        ("bfloat16", "cpu", {"neon": True, "bf16": True}, False),
        ("bfloat16", "cuda", {"avx2": True}, False),
        ("float32", "cpu", {"avx2": True}, False),
    ],
)
def test_bfloat16_is_warned_of_where_the_processor_emulates_it(
    monkeypatch, precision, device, flags, warned
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    lines = numerics.emulation(precision, device)
    assert len(lines) == warned
    for line in lines:
        assert line.startswith("warning   trainer.precision=bfloat16: ")
        assert line.endswith("use trainer.precision=float32")
