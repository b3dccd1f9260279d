"""Statistics of features, maps and inputs, by hand."""

import math

import pytest
import torch
from measure.entries import (
    entry_statistics,
    input_statistics,
    map_statistics,
    softmax_statistics,
)

from fetchlab.networks.pooling import GlobalAverage, SpatialSoftmax


def test_entries():
    features = torch.tensor([[1.0, 5.0, 0.0], [3.0, 5.0, 1e-4]])
    found = entry_statistics(features)
    assert found["mean"] == pytest.approx([2, 5, 5e-5])
    assert found["std"] == pytest.approx([1, 0, 5e-5])
    assert found["min"] == [1, 5, 0]
    assert found["max"] == pytest.approx([3, 5, 1e-4])
    assert found["rms"] == pytest.approx(math.sqrt((1 + 9 + 25 + 25 + 1e-8) / 6))
    assert found["std_rms"] == pytest.approx(math.sqrt((1 + 25e-10) / 3))
    assert found["dead"] == pytest.approx(2 / 3)


def test_maps():
    maps = torch.zeros(2, 3, 2, 2)
    maps[0, 0, 0, 1] = maps[1, 0, 1, 1] = 2.0
    maps[1, 1] = 1.0
    found = map_statistics(maps)
    assert found["shape"] == [3, 2, 2]
    assert found["zeros"] == pytest.approx(18 / 24)
    assert found["dead"] == pytest.approx(1 / 3)
    assert found["mean"] == pytest.approx(8 / 24)
    assert found["std"] == pytest.approx(math.sqrt(12 / 24 - (8 / 24) ** 2))
    assert found["max"] == 2.0


def test_softmax():
    pooling = SpatialSoftmax((1, 3, 3), temperature=0.5)
    found = softmax_statistics(pooling, torch.full((4, 1, 3, 3), 7.0))
    assert found == {
        "temperature": pytest.approx(0.5),
        "positions": 9,
        "used": pytest.approx(9),
    }
    point = torch.zeros(4, 1, 3, 3)
    point[:, :, 1, 2] = 100.0
    assert softmax_statistics(pooling, point)["used"] == pytest.approx(1)
    # p = 1/2 once and 1/16 eight times, where exp(a / T) is 8 and 1
    half = torch.zeros(1, 1, 3, 3)
    half[..., 0, 0] = 0.5 * math.log(8)
    entropy = 0.5 * math.log(2) + 0.5 * math.log(16)
    assert softmax_statistics(pooling, half)["used"] == pytest.approx(math.exp(entropy))
    assert softmax_statistics(GlobalAverage((1, 3, 3)), half) is None


def test_inputs():
    features = torch.tensor([[0.1, 0.1], [0.3, 0.1]])
    vectors = {
        "proprio": torch.tensor([[1.0], [3.0]]),
        "desired_goal": torch.tensor([[1.0], [1.0]]),
    }
    found = input_statistics(("pixels", "proprio", "desired_goal"), vectors, features)
    assert list(found["entries"]) == ["pixels", "proprio", "desired_goal"]
    pixels = found["entries"]["pixels"]
    assert pixels["size"] == 2
    assert pixels["rms"] == pytest.approx(math.sqrt((0.01 + 0.01 + 0.09 + 0.01) / 4))
    assert pixels["std_rms"] == pytest.approx(0.1 / math.sqrt(2))
    assert found["entries"]["proprio"]["std_rms"] == pytest.approx(1)
    assert found["rms_ratio"] == pytest.approx(math.sqrt(0.03) / math.sqrt(12 / 4))
    assert found["std_ratio"] == pytest.approx((0.1 / math.sqrt(2)) / (1 / math.sqrt(2)))


def test_inputs_where_a_ratio_means_nothing():
    features = torch.ones(2, 2)
    vectors = {"desired_goal": torch.ones(2, 3)}
    still = input_statistics(("pixels", "desired_goal"), vectors, features)
    assert (still["rms_ratio"], still["std_ratio"]) == (1.0, None)
    blind = input_statistics(("desired_goal",), vectors, features)
    assert (blind["rms_ratio"], blind["std_ratio"]) == (None, None)
