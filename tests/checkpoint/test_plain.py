"""Everything a checkpoint may be given becomes what `torch.load(weights_only=True)` accepts."""

import io
from collections import Counter, OrderedDict, deque, namedtuple
from enum import IntEnum, StrEnum
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fetchlab.checkpoint.plain import to_plain

Pair = namedtuple("Pair", "left right")


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


def reload(value):
    buffer = io.BytesIO()
    torch.save(to_plain(value), buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Path("/a/b"), "/a/b"),
        (deque([1, np.int8(2)], maxlen=5), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Counter("aab"), {"a": 2, "b": 1}),
        (Pair(1, Path("x")), (1, "x")),
        (torch.Size([2, 3]), (2, 3)),
        (torch.device("cpu"), "cpu"),
        (torch.float32, "torch.float32"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        ({np.int64(1): None, (1, "a"): b"\x00"}, {1: None, (1, "a"): b"\x00"}),
        (2**128 + 1, 2**128 + 1),
        (-(2**128), -(2**128)),
        (float("inf"), float("inf")),
    ],
)
def test_conversion_survives_loading(value, expected):
    loaded = reload({"x": value})["x"]
    assert loaded == expected
    assert type(loaded) is type(expected)


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i8", "u1", "u2", "u4", "u8", "?", "f2", "c8"])
def test_arrays_become_tensors_bit_for_bit(dtype):
    array = np.arange(-6, 6).astype(dtype).reshape(3, 4)[:, ::-2]  # a view with negative strides
    loaded = reload([array])[0]
    assert loaded.numpy().dtype == array.dtype
    assert loaded.shape == (3, 2)
    assert loaded.numpy().tobytes() == array.tobytes()


def test_arrays_are_copied():
    array = np.zeros(3)
    plain = to_plain(array)
    array[:] = 1
    assert plain.tolist() == [0, 0, 0]
    assert to_plain(np.array(2.5)).shape == ()


def test_tensors_are_plain_and_save_only_themselves():
    big = torch.arange(100_000)
    buffer = io.BytesIO()
    torch.save(to_plain({"view": big[10:12], "parameter": nn.Parameter(torch.ones(2))}), buffer)
    assert buffer.tell() < 10_000
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=True)
    assert loaded["view"].tolist() == [10, 11]
    assert type(loaded["parameter"]) is torch.Tensor
    shared = torch.ones(3)
    assert to_plain([shared])[0].data_ptr() == shared.data_ptr()


def test_module_versions_are_kept():
    state = nn.BatchNorm1d(2).state_dict()
    loaded = reload({"state_dict": state})["state_dict"]
    assert loaded._metadata[""]["version"] == state._metadata[""]["version"] == 2
    nn.BatchNorm1d(2).load_state_dict(loaded)


def test_simulator_random_state_survives():
    generator = np.random.default_rng(3)
    loaded = reload(generator.bit_generator.state)
    assert loaded == generator.bit_generator.state  # 128-bit integers among it


@pytest.mark.parametrize(
    ("value", "path", "kind"),
    [
        ({"a": [1, {"b": {1, 2}}]}, "a.1.b", "builtins.set"),
        ({"a": {"f": print}}, "a.f", "builtin_function"),
        ({"a": nn.Linear(1, 1)}, "a", "Linear"),
        ([torch.Generator()], "0", "Generator"),
        ({"a": np.array(["x"])}, "a", "ndarray"),
        ({"a": np.array([None])}, "a", "ndarray"),
        ({"a": np.longdouble(1)}, "a", "longdouble"),
        ({"a": 2**3000}, "a", "int"),
        ({"k": {frozenset(): 1}}, "k.frozenset()", "frozenset"),
        ({"a": 1j}, "a", "complex"),
        (object(), "(root)", "object"),
    ],
)
def test_anything_else_is_refused_by_its_path(value, path, kind):
    with pytest.raises(TypeError) as caught:
        to_plain(value)
    assert f"checkpoint entry {path} is a " in str(caught.value)
    assert kind in str(caught.value)
