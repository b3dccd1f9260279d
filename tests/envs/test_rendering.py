import gc
from itertools import pairwise
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import yaml

from fetchlab.envs import rendering
from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.spec import TaskSpec
from fetchlab.errors import ConfigError
from fetchlab.schema import Camera, Pixels

SIZE = 84


def preset_camera(name):
    file = Path(__file__).parents[2] / "configs" / "obs" / f"{name}.yaml"
    return Camera(**yaml.safe_load(file.read_text())["pixels"]["camera"])


CLOSE = preset_camera("pixels_strict")
CLOSE_BY_TASK = {
    "FetchPush-v4": CLOSE,
    "FetchPickAndPlace-v4": preset_camera("pixels_strict_pick_and_place"),
    "FetchSlide-v4": preset_camera("pixels_strict_slide"),
}
INSIDE = Camera((1.3, 0.75, 0.45), 0.05, 200.0, 10.0)


def make(env_id="FetchPush-v4", *, size=SIZE, block=1, camera=None, show_goal=True, quality="fast"):
    return FetchEnv(TaskSpec(env_id, 50, Pixels(size, block, camera, {}, show_goal, quality)))


def action(rng):
    return rng.uniform(-1, 1, 4).astype(np.float32)


def red(frame):
    """Where a frame shows the goal marker's colour."""
    r, g, b = frame.astype(int)
    return (r > 120) & (g < 60) & (b < 60)


@pytest.mark.parametrize(
    ("env_id", "size"),
    [
        ("FetchPush-v4", SIZE),
        ("FetchReach-v4", 48),
        ("FetchPickAndPlace-v4", 32),
        ("FetchSlide-v4", 64),
    ],
)
def test_reference_equals_gymnasium(env_id, size):
    theirs = gymnasium.make(env_id, render_mode="rgb_array", width=size, height=size)
    env = make(env_id, size=size, quality="reference")
    rng = np.random.default_rng(0)

    def assert_same(obs, observation):
        if viewer := theirs.unwrapped.mujoco_renderer.viewer:
            viewer.make_context_current()  # two renderers share this thread
        frame = theirs.render()
        np.testing.assert_array_equal(obs.pixels, frame.transpose(2, 0, 1))
        np.testing.assert_array_equal(obs.state, observation["observation"].astype(np.float32))

    for seed in (6, None):
        observation, _ = theirs.reset(seed=seed)
        assert_same(env.reset(seed), observation)
        for _ in range(15):
            a = action(rng)
            observation = theirs.step(a)[0]
            assert_same(env.step(a).obs, observation)
    theirs.close()
    env.close()


def test_block_means_by_hand():
    rgb = np.zeros((4, 4, 3), np.uint8)
    rgb[:2, :2, 0] = [[0, 1], [0, 1]]  # 2 / 4 is a half: up
    rgb[:2, 2:, 1] = [[255, 255], [255, 254]]  # 1019 / 4 = 254.75
    rgb[2:, :2, 2] = [[0, 1], [0, 0]]  # 1 / 4
    expected = np.zeros((2, 2, 3), np.uint8)
    expected[0, 0, 0], expected[0, 1, 1] = 1, 255
    np.testing.assert_array_equal(rendering.block_mean(rgb, 2), expected)
    assert rendering.block_mean(rgb, 1) is rgb
    white = np.full((32, 32, 3), 255, np.uint8)  # the largest sum, 65,280
    np.testing.assert_array_equal(rendering.block_mean(white, 16), white[:2, :2])
    noise = np.random.default_rng(0).integers(0, 256, (15, 15, 3), np.uint8)
    exact = [[round(int(cell.sum()) / 9) for cell in row] for row in blocks(noise, 3)]
    np.testing.assert_array_equal(rendering.block_mean(noise, 3)[..., 0], exact)


def blocks(rgb, block):
    """Of the first channel."""
    starts = range(0, len(rgb), block)
    return [[rgb[y : y + block, x : x + block, 0] for x in starts] for y in starts]


@pytest.mark.parametrize(
    ("size", "block", "quality"), [(32, 2, "fast"), (16, 4, "reference"), (16, 3, "fast")]
)
def test_a_supersampled_frame_is_the_mean_of_blocks_of_the_large_one(size, block, quality):
    small = make(size=size, block=block, camera=CLOSE, quality=quality)
    large = make(size=size * block, camera=CLOSE, quality=quality)
    rng = np.random.default_rng(0)
    frames, shape = (small.reset(1).pixels, large.reset(1).pixels), (3, size, block, size, block)
    for _ in range(4):
        assert frames[0].shape == (3, size, size)
        mean = frames[1].astype(float).reshape(shape).mean(axis=(2, 4))
        np.testing.assert_array_equal(frames[0], np.floor(mean + 0.5))
        assert frames[0].std() > 10
        a = action(rng)
        frames = small.step(a).obs.pixels, large.step(a).obs.pixels


@pytest.mark.parametrize("show_goal", [True, False])
@pytest.mark.parametrize("env_id", ["FetchPush-v4", "FetchSlide-v4", "FetchPickAndPlace-v4"])
def test_rendering_moves_the_simulation_as_gymnasium_does(env_id, show_goal):
    # where the gripper opens, each frame refreshes the poses that the next action starts from
    theirs = gymnasium.make(env_id, render_mode="rgb_array", width=8, height=8)
    env = make(env_id, size=8, show_goal=show_goal)
    rng = np.random.default_rng(0)
    theirs.reset(seed=1)
    env.reset(1)
    for _ in range(50):
        a = action(rng)
        theirs.unwrapped._render_callback()  # what `render` does to the simulation
        observation = theirs.step(a)[0]["observation"]
        np.testing.assert_array_equal(env.step(a).obs.state, observation.astype(np.float32))


def test_frames_are_new_contiguous_images():
    env = make(size=20)
    first = env.reset(0).pixels
    kept = first.copy()
    second = env.step(np.ones(4)).obs.pixels
    assert (second.shape, second.dtype) == ((3, 20, 20), np.uint8)
    assert second.flags.c_contiguous
    assert second.flags.owndata
    np.testing.assert_array_equal(first, kept)
    assert (second != first).any()
    np.testing.assert_array_equal(env.render_frame(), second)


def test_fast_looks_like_reference():
    fast, reference = make(), make(quality="reference")
    rng = np.random.default_rng(0)
    fast.reset(0)
    reference.reset(0)
    differences = []
    for _ in range(5):
        a = action(rng)
        pictures = [env.step(a).obs.pixels.astype(int) for env in (fast, reference)]
        differences.append(np.abs(pictures[0] - pictures[1]).mean())
    assert 0 < np.mean(differences) < 3  # of 255: edges without smoothing, nothing missing


@pytest.mark.parametrize("quality", ["fast", "reference"])
def test_each_camera_fills_its_own_channels(quality):
    other = Camera(**{**vars(CLOSE), "azimuth": 90.0})
    spec = Pixels(SIZE, 1, CLOSE, {"opposite": other, "own": None}, True, quality)
    together = FetchEnv(TaskSpec("FetchPush-v4", 50, spec))
    alone = [make(camera=camera, quality=quality) for camera in (CLOSE, other, None)]
    assert together.reset(3).pixels.shape == spec.shape == (9, SIZE, SIZE)
    for env in alone:
        env.reset(3)
    rng = np.random.default_rng(0)
    for _ in range(5):
        a = action(rng)
        frame, frames = together.step(a).obs.pixels, [env.step(a).obs.pixels for env in alone]
        np.testing.assert_array_equal(frame, np.concatenate(frames))
    assert (frames[0] != frames[1]).any()


@pytest.mark.parametrize("camera", [None, CLOSE, INSIDE])
def test_culling_changes_no_pixel(camera):
    env = make(camera=camera)
    renderer = env._renderer
    views, everything = renderer._views, np.zeros_like(env._model.geom_group)
    rng = np.random.default_rng(0)
    env.reset(0)
    hidden = 0
    for _ in range(20):
        frame = env.step(action(rng)).obs.pixels
        hidden = max(hidden, np.count_nonzero(env._model.geom_group))
        renderer._views = [(view, None) for view, _ in views]
        env._model.geom_group[:] = everything
        np.testing.assert_array_equal(env.render_frame(), frame)
        renderer._views = views
    assert hidden >= 2  # at least the covered e-stop and laser


def test_hidden_goal():
    shown, hidden = make(camera=CLOSE), make(camera=CLOSE, show_goal=False)
    for seed in range(4):
        with_goal, without = shown.reset(seed).pixels, hidden.reset(seed).pixels
        marker = red(with_goal)
        assert 4 <= marker.sum() < 100
        assert not red(without).any()
        # nothing else differs: a ball of 2 cm covers at most its surroundings
        rows, columns = np.nonzero((with_goal != without).any(axis=0))
        assert np.ptp(rows) < 15
        assert np.ptp(columns) < 15


def test_the_marker_follows_the_goal():
    env = make(camera=CLOSE)
    places = []
    for seed in range(12):
        obs = env.reset(seed)
        columns = np.nonzero(red(obs.pixels))[1]
        if len(columns) > 8:  # else behind the gripper
            places.append((columns.mean(), obs.desired_goal[0]))
    assert len(places) >= 6
    columns, x = np.array(places).T
    assert np.corrcoef(columns, -x)[0, 1] > 0.95  # seen from azimuth 270, +x points left


def object_pixels(env, place):
    """(rows, columns) of the object, set down at ``place`` (3,) metres."""
    env._data.joint("object0:joint").qpos[:3] = place
    frames = []
    for group in (0, rendering.HIDDEN_GROUP):
        shown = env._model.geom("object0").id
        env._renderer._views[0][1]._shown[shown] = group
        frames.append(env.render_frame())
    env._renderer._views[0][1]._shown[shown] = 0
    return np.nonzero((frames[0] != frames[1]).any(axis=0))


def on_the_table(env, dx, dy):
    """A place ``dx, dy`` metres from the first gripper place."""
    env.reset(0)
    x, y, _ = env._inner.initial_gripper_xpos
    return x + dx, y + dy, env._inner.height_offset


def test_close_camera_enlarges_the_object():
    widths = {}
    for name, camera in {"default": None, "close": CLOSE}.items():
        env = make(camera=camera, show_goal=False)
        _, columns = object_pixels(env, on_the_table(env, 0.1, 0.0))
        widths[name] = np.ptp(columns) + 1
    assert widths["default"] <= 4
    assert 8 <= widths["close"] <= 12


@pytest.mark.parametrize(
    ("size", "block", "step_m"), [(16, 1, 0.034), (16, 4, 0.01), (32, 1, 0.017), (32, 2, 0.01)]
)
def test_an_object_that_moves_changes_a_small_image(size, block, step_m):
    env = make(size=size, block=block, camera=CLOSE, show_goal=False)
    frames = []
    for n in range(6):
        place = on_the_table(env, 0.1 - n * step_m, 0.05)
        rows, _ = object_pixels(env, place)
        assert len(rows) >= 2  # two of 16 x 16 are a cube's whole width
        frames.append(env.render_frame())
    changed = [(a != b).any(axis=0).sum() for a, b in pairwise(frames)]
    assert min(changed) >= 2


def test_supersampling_shows_motions_of_less_than_a_pixel():
    def distinct(block):
        env = make(size=32, block=block, camera=CLOSE, show_goal=False)
        x, y, z = on_the_table(env, 0.1, 0.05)
        moved = []
        for millimetres in range(17):  # a pixel of the image
            env._data.joint("object0:joint").qpos[:3] = x - millimetres / 1000, y, z
            moved.append(env.render_frame().tobytes())
        return len(set(moved))

    assert distinct(1) + 4 <= distinct(4)


@pytest.mark.parametrize(
    ("env_id", "least"),
    [("FetchPush-v4", 40), ("FetchPickAndPlace-v4", 15), ("FetchSlide-v4", 15)],
)
def test_close_cameras_see_the_corners_of_object_and_goal_area(env_id, least):
    env = make(env_id, camera=CLOSE_BY_TASK[env_id], show_goal=False)
    inner = env._inner
    heights = (0.0, 0.45) if inner.target_in_the_air else (0.0,)
    areas = ((inner.obj_range, 0.0), (inner.target_range, inner.target_offset))
    for reach, offset in areas:
        x_offset = np.broadcast_to(offset, 3)[0]
        for dx in (-reach, reach):
            for dy in (-reach, reach):
                for dz in heights:
                    x, y, z = on_the_table(env, dx + x_offset, dy)
                    rows, columns = object_pixels(env, (x, y, z + dz))
                    assert len(rows) >= least
                    for pixels in (rows, columns):
                        assert pixels.min() >= 4  # room for a random shift of 4 pixels
                        assert pixels.max() < SIZE - 4


def test_environments_of_one_process_take_turns():
    alone = [make(camera=CLOSE).reset(seed).pixels for seed in range(3)]
    envs = [make(camera=CLOSE) for _ in range(3)]
    together = [env.reset(seed).pixels for seed, env in enumerate(envs)]
    np.testing.assert_array_equal(together, alone)
    envs[1].close()  # closing one leaves the others' contexts alone
    np.testing.assert_array_equal(envs[0].render_frame(), alone[0])
    np.testing.assert_array_equal(envs[2].render_frame(), alone[2])


def test_close_is_final_and_repeatable():
    env = make(size=8)
    env.reset(0)
    env.close()
    env.close()
    with pytest.raises(RuntimeError, match="no camera"):
        env.render_frame()
    gc.collect()


def test_without_a_backend_one_line_says_so(monkeypatch):
    monkeypatch.delattr(mujoco, "GLContext")
    with pytest.raises(ConfigError, match=r"MUJOCO_GL=.*egl"):
        make()
