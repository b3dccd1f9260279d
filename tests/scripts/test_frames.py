"""Frames of real rollouts: what belongs together, and where gripper and object are seen."""

import math
from types import SimpleNamespace

import pytest
import torch
from known_specs import PUSH, REACH
from measure.frames import Moments, look_times
from measure.geometry import Geometry, geometry, signal, uniform_std

from fetchlab.entries import DESIRED_GOAL, STATE

PX = math.tan(math.radians(22.5)) / 42  # metres that a pixel of 84 shows at a distance of 1 m


def test_look_times_are_spread_over_an_episode():
    # the middles of 8 equal parts of the 49 times 0 to 48
    assert look_times(8, 50) == [3, 9, 15, 21, 27, 33, 39, 45]
    assert look_times(1, 50) == [24]
    assert look_times(1000, 50)[-1] == 48  # the moment after it is the 49th, not the last


def test_moments(moments):
    assert moments.pixels.shape == moments.next_pixels.shape == (3, 12, 84, 84)
    assert moments.pixels.dtype == torch.uint8
    # three of four frames are the same, moved on by one
    assert torch.equal(moments.pixels[:, 3:], moments.next_pixels[:, :-3])
    assert not torch.equal(moments.pixels, moments.next_pixels)
    assert moments.visited.batch_size == (3 * 26,)  # reset, 24 steps, the moment's own
    state = moments.rows.get(STATE)
    assert torch.equal(state, moments.visited.get(STATE).view(26, 3, 25)[24])
    assert moments.rows.get(DESIRED_GOAL).shape == (3, 3)
    assert torch.equal(moments.gripper, state[:, :3])
    assert torch.equal(moments.object, state[:, 3:6])
    assert len(moments.object[:, 0].unique()) == 3  # of different episodes


def test_reach_has_no_object(moments):
    assert moments._replace(layout=REACH).object is None


@pytest.mark.parametrize(
    ("encoder", "cells", "stride"),
    [
        ("manipulation_cnn", 21, 4),
        ("nature_cnn", 7, 8),  # 84 / 7 is 12: without padding, maps lose their border
        ("drqv2_cnn", 35, 2),
        ("impala_cnn", 11, 8),
    ],
)
def test_geometry_of_each_encoder(compose_run, encoder, cells, stride):
    found = geometry(compose_run("pixel_push", f"encoder={encoder}"))
    assert found == (84, cells, stride)
    assert found.per_px == pytest.approx(2 / (cells - 1) / stride)


def test_shift_of_the_study_in_coordinates():
    found = Geometry(84, 21, 4)
    assert found.cells_per_px == 0.25
    assert 4 * found.per_px == pytest.approx(0.1)
    assert uniform_std(4) == pytest.approx(2.581989)
    assert uniform_std(4) * found.per_px == pytest.approx(0.0645497)
    assert uniform_std(1) == pytest.approx(math.sqrt(2 / 3))


def placed(*objects_px):
    """Moments with the gripper in the middle, and the object that many pixels right and up."""
    state = torch.zeros(len(objects_px), 25)
    for row, (right, up) in zip(state, objects_px, strict=True):
        row[3], row[5] = right * PX, up * PX
    pixels = torch.zeros(0)
    return Moments(pixels, pixels, SimpleNamespace(get={STATE: state}.get), None, PUSH)


def test_signal_by_hand():
    camera = {"lookat": [0.0, 0.0, 0.0], "distance": 1.0, "azimuth": 90.0, "elevation": 0.0}
    cfg = {"obs": {"pixels": {"image_size": 84, "camera": camera}}}
    shape = Geometry(84, 21, 4)  # 0.025 a pixel
    found = signal(cfg, placed((8, 0), (16, 4)), shape)
    assert found["mean"] == pytest.approx([0.3, -0.05], abs=1e-5)
    assert found["std"] == pytest.approx([0.1, 0.05], abs=1e-5)
    assert found["std_rms"] == pytest.approx(math.sqrt((0.01 + 0.0025) / 2), abs=1e-5)
    assert found["distance"] == pytest.approx((0.2 + math.hypot(0.4, 0.1)) / 2, abs=1e-5)
    assert found["inside"] == 1.0
    # the image ends 42 pixels from its middle
    assert signal(cfg, placed((41.9, 0), (42.1, 0), (0, -42.1)), shape)["inside"] == 1 / 3
    assert signal(cfg, placed((8, 0))._replace(layout=REACH), shape) is None
