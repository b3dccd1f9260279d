import os
import subprocess
import sys
from pathlib import Path

import gymnasium
import mujoco
import numpy as np
import pytest
import yaml

from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.spec import SimulationError, TaskSpec
from fetchlab.errors import ConfigError

STEPS = 50
FILES = sorted((Path(__file__).parents[2] / "configs" / "task").glob("fetch_*.yaml"))
TASKS = [yaml.safe_load(file.read_text())["env_id"] for file in FILES]


@pytest.fixture
def push():
    env = FetchEnv(TaskSpec("FetchPush-v4", STEPS, None))
    yield env
    env.close()


def chase(obs, rng):
    """Noisy actions, beyond the bounds too, that run into the object (Reach: just noise)."""
    offset = obs["achieved_goal"] - obs["observation"][:3]
    action = rng.uniform(-1.3, 1.3, 4)
    action[:3] += np.clip(20 * offset, -1, 1) * rng.integers(2)
    return action.astype(np.float32)


def assert_same_obs(env, ours, theirs):
    # the float64 values behind the observation, then their casts
    np.testing.assert_array_equal(env._arrays.state, theirs["observation"])
    np.testing.assert_array_equal(ours.state, theirs["observation"].astype(np.float32))
    np.testing.assert_array_equal(ours.achieved_goal, theirs["achieved_goal"].astype(np.float32))
    np.testing.assert_array_equal(ours.desired_goal, theirs["desired_goal"].astype(np.float32))
    np.testing.assert_array_equal(ours.achieved_goal, ours.state[env.env_spec.goal_slice])
    assert {array.dtype for array in ours[:3]} == {np.dtype(np.float32)}


@pytest.mark.parametrize("env_id", TASKS)
def test_episodes_equal_gymnasium(env_id):
    reference = gymnasium.make(env_id)
    env = FetchEnv(TaskSpec(env_id, STEPS, None))
    rng = np.random.default_rng(1)
    moved_m = 0.0
    for seed in (3, None, 4, None):
        theirs, _ = reference.reset(seed=seed)
        start = theirs["achieved_goal"]
        assert_same_obs(env, env.reset(seed), theirs)
        for _ in range(STEPS):
            action = chase(theirs, rng)
            theirs, reward, terminated, truncated, info = reference.step(action)
            ours = env.step(action)
            assert_same_obs(env, ours.obs, theirs)
            assert ours[1:] == (reward, terminated, truncated, bool(info["is_success"]))
        moved_m = max(moved_m, np.abs(theirs["achieved_goal"] - start).max())
        assert ours.truncated
    assert moved_m > 0.03  # the comparison covered contacts


def test_every_fetch_task_has_a_file():
    bodies = ("Reach", "Push", "Slide", "PickAndPlace")
    assert sorted(TASKS) == sorted(f"Fetch{b}{r}-v4" for b in bodies for r in ("", "Dense"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_task_files_are_gymnasiums_tasks(file):
    task = yaml.safe_load(file.read_text())
    spec = gymnasium.spec(task["env_id"])
    own = {"kwargs": {}, "proprio": None, "reward_range": None}
    assert task == {"env_id": spec.id, "max_episode_steps": spec.max_episode_steps, **own}
    words = file.stem.removeprefix("fetch_").split("_")
    name = "".join("And" if word == "and" else word.capitalize() for word in words)
    assert spec.id == f"Fetch{name}-v4"


@pytest.mark.parametrize(
    ("env_id", "dim", "goal"),
    [
        ("FetchPush-v4", 25, 3),
        ("FetchReachDense-v4", 10, 0),
        ("FetchSlide-v4", 25, 3),
        ("FetchPickAndPlace-v4", 25, 3),
    ],
)
def test_layout(env_id, dim, goal):
    env = FetchEnv(TaskSpec(env_id, STEPS, None))
    assert (env.env_spec.state_dim, env.env_spec.goal_slice) == (dim, slice(goal, goal + 3))
    expected = (0, 1, 2, 9, 10, 20, 21, 22, 23, 24) if dim == 25 else tuple(range(10))
    assert env.env_spec.proprio == expected
    obs = env.reset(0)
    assert obs.state.shape == (dim,)
    assert obs.pixels is None


def test_proprioception_does_not_see_the_object(push):
    push.reset(0)
    before = push._arrays.read().copy()
    push._data.joint("object0:joint").qpos[:3] += 0.05
    push._data.joint("object0:joint").qvel[:] = 0.3
    mujoco.mj_forward(push._model, push._data)
    changed = np.flatnonzero(push._arrays.read() != before)
    assert {3, 4, 5, 6, 7, 8, 14, 15, 16, 17, 18, 19} <= set(changed)
    assert not set(changed) & set(push.env_spec.proprio)


def test_observations_are_the_callers(push):
    obs = push.reset(0)
    kept = [array.copy() for array in obs[:3]]
    push.step(np.ones(4))
    push.reset()
    for array, copy in zip(obs, kept, strict=False):
        np.testing.assert_array_equal(array, copy)


def test_reward_by_hand(push):
    goal = np.zeros((3, 3), np.float32)
    achieved = np.array([[0.049, 0, 0], [0, 0.03, 0.03], [0, 0.03, 0.05]], np.float32)
    reward = push.compute_reward(achieved, goal)
    assert reward.dtype == np.float32
    assert reward.tolist() == [0, 0, -1]  # distances 0.049, 0.0424, 0.0583 m against 0.05 m
    assert push.compute_reward(achieved[None], goal[None]).shape == (1, 3)


def test_dense_reward_by_hand():
    env = FetchEnv(TaskSpec("FetchPushDense-v4", STEPS, None))
    reward = env.compute_reward(np.array([[0.3, 0, 0.4]]), np.zeros((1, 3)))
    assert reward.dtype == np.float32
    assert reward == pytest.approx([-0.5])


def test_dense_rewards_fall_below_minus_one():
    """So [-1/(1-discount), 0] does not bound their values, as the dense task files say."""
    env = FetchEnv(TaskSpec("FetchReachDense-v4", STEPS, None))
    rewards = []
    for seed in range(4):
        env.reset(seed)
        rewards += [env.step(np.array([-1, 1, 1, 0])).reward for _ in range(STEPS)]
    assert -2 < min(rewards) < -1


@pytest.mark.parametrize("env_id", [name for name in TASKS if "Dense" in name])
def test_the_recomputed_dense_reward_is_the_steps(env_id):
    env = FetchEnv(TaskSpec(env_id, STEPS, None))
    env.reset(0)
    for _ in range(5):
        result = env.step(np.array([0.5, -0.5, 0.2, 0.0]))
        again = env.compute_reward(result.obs.achieved_goal, result.obs.desired_goal)
        assert result.reward < -0.001
        assert again == pytest.approx(result.reward, rel=1e-4)


def test_episode_length_is_the_specs():
    env = FetchEnv(TaskSpec("FetchReach-v4", 3, None))
    for _ in range(2):
        env.reset()
        assert [env.step(np.zeros(4)).truncated for _ in range(3)] == [False, False, True]


def test_unseeded_environments_differ_and_say_how_to_repeat(push):
    first = push.reset()
    again = FetchEnv(push.task).reset(push._seed)
    np.testing.assert_array_equal(first.state, again.state)
    assert FetchEnv(push.task).reset().desired_goal.tolist() != first.desired_goal.tolist()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_non_finite_action_never_reaches_the_simulator(push, bad):
    push.reset(7)
    push.step(np.zeros(4))
    before = push.get_state()
    action = np.zeros(4, np.float32)
    action[2] = bad
    with pytest.raises(ValueError, match=r"not finite \(FetchPush-v4, step 1 .* seed 7\)"):
        push.step(action)
    after = push.get_state()
    np.testing.assert_array_equal(before["integration"], after["integration"])
    assert before["elapsed_steps"] == after["elapsed_steps"] == 1


def test_infinities_of_both_signs_do_not_cancel(push):
    push.reset(7)
    with pytest.raises(ValueError, match="not finite"):
        push.step(np.array([np.inf, -np.inf, 0, 0]))


def test_misuse_is_refused(push):
    with pytest.raises(RuntimeError, match="call reset first"):
        push.step(np.zeros(4))
    push.reset(0)
    with pytest.raises(ValueError, match=r"shape \(5,\): expected \(4,\)"):
        push.step(np.zeros(5))
    with pytest.raises(RuntimeError, match="no camera"):
        push.render_frame()


@pytest.mark.parametrize(
    ("field", "value", "warning"),
    [("qpos", np.nan, "BADQPOS"), ("qvel", 1e11, "BADQVEL"), ("qfrc_applied", 1e30, "BADQACC")],
)
def test_silent_simulator_reset_is_found(push, field, value, warning, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo appends to MUJOCO_LOG.TXT where it stands
    push.reset(11)
    push.step(np.zeros(4))
    getattr(push._data, field)[:] = value
    with pytest.raises(SimulationError, match=rf"{warning}.*FetchPush-v4, step 2 .* seed 11"):
        push.step(np.zeros(4))
    with pytest.raises(RuntimeError, match="call reset first"):
        push.step(np.zeros(4))
    # a reset leaves nothing of the accident behind
    fresh = FetchEnv(push.task)
    action = np.full(4, 0.5, np.float32)
    for seed in (5, None):
        np.testing.assert_array_equal(push.reset(seed).state, fresh.reset(seed).state)
        ours, theirs = push.step(action), fresh.step(action)
        np.testing.assert_array_equal(ours.obs.state, theirs.obs.state)


@pytest.mark.parametrize("env_id", ["FetchPush-v9", "FetchPush-v1", "CartPole-v1"])
def test_what_is_no_fetch_task_is_refused_in_one_line(env_id):
    with pytest.raises(ConfigError, match=f"env_id='{env_id}'.*Push-v4") as error:
        FetchEnv(TaskSpec(env_id, 50, None))
    assert "\n" not in str(error.value)


def test_import_is_silent_and_light():
    code = "import sys, fetchlab.envs.fetch; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
