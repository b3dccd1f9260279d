"""Encoders compiled by `torch.compile`: the same networks, rounded differently."""

from __future__ import annotations

import pytest
import torch
from small_sac import PIXEL_INPUTS, make_batch, make_module
from torch._dynamo.utils import counters
from torch._inductor import config as inductor

from fetchlab.errors import ConfigError
from fetchlab.preflight import numerics


def test_compiled_passes_learn_the_same_under_the_same_names():
    inputs = {"actor_inputs": PIXEL_INPUTS, "critic_inputs": PIXEL_INPUTS}
    plain, compiled = (make_module(compiled=on, **inputs) for on in (False, True))
    counters.clear()
    for seed in range(2):
        for module in (plain, compiled):
            module.learn(make_batch(seed=seed))
    # With gradients, without, and for the target encoder.
    assert counters["stats"]["unique_graphs"] == 3
    mine, theirs = compiled.state_dict(), plain.state_dict()
    assert mine.keys() == theirs.keys()
    for key, value in theirs.items():
        torch.testing.assert_close(mine[key], value, rtol=1e-4, atol=1e-5)
    images = make_batch()["pixels"][:, :2].flatten(1, 2)
    with torch.no_grad():
        glanced, seen = compiled.agent.glance(images[:3]), compiled.agent.encode(images)[:3]
    torch.testing.assert_close(glanced, seen)
    assert counters["stats"]["unique_graphs"] == 3


def test_without_a_compiler_there_is_one_line(monkeypatch):
    assert numerics.compiler("cpu")
    # By torch's own means: what pytest gives back is hidden from torch's configuration afterwards.
    without = inductor.patch({"cpp.cxx": ("no-such-compiler",)})
    with without, pytest.raises(ConfigError, match=r"compile=True: expected a C\+\+ compiler"):
        numerics.compiler("cpu")
    assert numerics.compiler("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"trainer.compile=True: expected Triton"):
        numerics.compiler("cuda")
