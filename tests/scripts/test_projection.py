"""Projected points against hand-computed ones and against what is rendered."""

import math

import numpy as np
import pytest
from measure.projection import FOVY_DEGREES, project

from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.spec import TaskSpec
from fetchlab.schema import Camera, Pixels

CLOSE = Camera((1.36, 0.75, 0.44), 0.65, 270.0, -35.0)
EDGE = math.tan(math.radians(22.5))  # half the picture's height at a distance of 1 m


@pytest.mark.parametrize(
    ("azimuth", "elevation", "point", "expected"),
    [
        (90, 0, (0, 0, 0), (41.5, 41.5)),  # the middle of 84 pixels
        (90, 0, (EDGE, 0, 0), (83.5, 41.5)),  # looks along +y, so +x is to the right
        (90, 0, (0, 0, EDGE), (41.5, -0.5)),  # +z is up, rows run down
        (90, 0, (EDGE, 1, 0), (62.5, 41.5)),  # twice as far away, half as far from the middle
        (0, 0, (0, EDGE, 0), (-0.5, 41.5)),  # looks along +x, so +y is to the left
        (270, 0, (EDGE / 2, 0, 0), (20.5, 41.5)),  # looks along -y, so +x is to the left
        (90, -90, (EDGE, 0, 0), (83.5, 41.5)),  # straight down
        (90, -90, (0, EDGE, 0), (41.5, -0.5)),  # and ahead is up
        (90, 90, (0, EDGE, 0), (41.5, 83.5)),  # straight up: ahead is down
    ],
)
def test_by_hand(azimuth, elevation, point, expected):
    camera = Camera((0, 0, 0), 1.0, azimuth, elevation)
    np.testing.assert_allclose(project(np.array(point), camera, 84), expected, atol=1e-9)


def test_shapes_and_points_behind_the_camera():
    camera = Camera((0, 0, 0), 1.0, 90.0, 0.0)
    points = np.zeros((4, 2, 3))
    points[1, 0, 1] = -1.01  # the camera stands at -1
    points[2, 1, 1] = -3.0
    there = project(points, camera, 10)
    assert there.shape == (4, 2, 2)
    hidden = np.isnan(there).all(-1)
    np.testing.assert_array_equal(np.argwhere(hidden), [[1, 0], [2, 1]])
    np.testing.assert_allclose(there[~hidden], 4.5)


@pytest.mark.parametrize("camera", [None, CLOSE])
def test_the_goal_marker_is_drawn_where_its_place_projects(camera):
    env = FetchEnv(TaskSpec("FetchPush-v4", 50, Pixels(252, 1, camera, {}, True, "fast")))
    measured = 0
    for seed in range(6):
        obs = env.reset(seed)
        r, g, b = obs.pixels.astype(int)
        rows, columns = np.nonzero((r > 120) & (g < 60) & (b < 60))
        # a ball that the table or the gripper hides in part has its middle elsewhere
        if len(rows) and abs(np.ptp(rows) - np.ptp(columns)) <= 1:
            measured += 1
            middle = [(v.min() + v.max()) / 2 for v in (columns, rows)]
            place = project(obs.desired_goal, camera, 252)
            assert np.abs(place - middle).max() < 1.5
    assert measured >= 2
    env.close()


@pytest.mark.parametrize("task", ["Push", "Reach", "Slide", "PickAndPlace"])
def test_no_task_changes_the_field_of_view(task):
    env = FetchEnv(TaskSpec(f"Fetch{task}-v4", 50, None))
    assert env._model.vis.global_.fovy == FOVY_DEGREES
    env.close()
