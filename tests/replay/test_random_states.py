"""Random states of checkpoints, on the device that they are of and on another one."""

import random

import numpy as np
import pytest
import torch
from replay_oracle import filled, saved

from fetchlab.callbacks.checkpoints import Checkpoints
from fetchlab.random_states import (
    global_random_states,
    restore_generator,
    restore_global_random_states,
)

#: What `torch.cuda.get_rng_state` returns: seed and offset.
CUDA_STATE = torch.arange(16, dtype=torch.uint8)


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_global_states_give_the_same_draws_again():
    np.random.normal(), random.gauss(0, 1)  # each keeps the second number of a pair
    before = global_random_states()
    first = draws(), np.random.normal(), random.gauss(0, 1)
    draws()
    restore_global_random_states(before)
    assert (draws(), np.random.normal(), random.gauss(0, 1)) == first


def test_states_of_a_cuda_device_are_left_out_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    before = {**global_random_states(), "cuda": [CUDA_STATE]}
    first = draws()
    restore_global_random_states(before)
    assert draws() == first


def test_a_generator_takes_a_state_of_its_own_kind_alone():
    generator, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    assert restore_generator(generator, other.get_state())
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=other))
    state = generator.get_state()
    assert not restore_generator(generator, CUDA_STATE)
    assert torch.equal(generator.get_state(), state)


def test_a_replay_keeps_its_generator_where_the_state_is_of_another_device(tmp_path):
    replay, _ = filled(tmp_path, steps=30)
    state = saved(replay)
    generator = replay._sampler._rng
    expected = replay.sample(20)["index"]
    replay.load_state_dict(state)
    assert replay._sampler._rng is generator
    assert torch.equal(replay.sample(20)["index"], expected)  # where the state was taken
    before = generator.get_state()
    replay.load_state_dict({**state, "_rng": (CUDA_STATE, "cuda:0")})
    assert torch.equal(generator.get_state(), before)
    replay.sample(20)


@pytest.mark.parametrize(
    ("saved_on", "here", "new"),
    [
        ("cpu", "cpu", False),
        ("cuda 12.8, A", "cuda 12.8, B", False),
        ("cuda 12.8, A", "cpu", True),
        ("cpu", "cuda 12.8, A", True),
    ],
)
def test_a_forced_change_of_device_is_said_and_recorded(saved_on, here, new, caplog):
    record, old = ({"fingerprint": {"device": name}, "forced": []} for name in (here, saved_on))
    callback = Checkpoints()
    callback.record = record
    rest = {"rng": global_random_states(), "loggers": {}, "wall_time_s": 1.0}
    callback.on_load_checkpoint(None, None, {"record": old, **rest})
    line = f"generators seeded anew: {saved_on} -> {here}, whose states differ"
    assert record["forced"] == [line] * new
    assert [one.getMessage() for one in caplog.records] == [f"warning: {line}"] * new
