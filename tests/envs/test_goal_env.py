"""Any gymnasium goal environment: what it yields, that it is unchanged, and goes on exactly."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_goal_env
import yaml

from fetchlab.envs.batched import get_env_state, make_env, set_env_state
from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.goal_env import GoalEnv, OverBatch, open_env
from fetchlab.envs.spec import SimulationError, TaskSpec
from fetchlab.errors import ConfigError
from fetchlab.schema import Pixels

N, LENGTH = 2, 25
TASKS = Path(__file__).parents[2] / "configs" / "task"
TOY = f"{toy_goal_env.__name__}:Toy-v0"


def toy(flaw="", length=LENGTH, **more):
    return TaskSpec(TOY, length, None, {"flaw": flaw}, **more)


def shipped(name, length=LENGTH):
    return TaskSpec(
        pixels=None,
        **yaml.safe_load((TASKS / f"{name}.yaml").read_text()) | {"max_episode_steps": length},
    )


def build(task, workers=2):
    return make_env(task, N, workers, frame_stack=1, timeout_s=60.0)


def play(env, root, actions):
    rows = []
    for action in actions:
        step, root = env.step_and_maybe_reset(root.set("action", action))
        rows.append(step.clone())
    return rows, root


def actions(seed, steps, size):
    return torch.rand(steps, N, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "dims", "goal", "terminates", "rewards"),
    [
        ("point_maze", (4, 2, 2), slice(0, 2), True, (0, 1)),
        ("ant_maze", (105, 2, 8), None, False, (0, 1)),
        ("hand_reach", (63, 15, 20), slice(48, 63), False, (-1, 0)),
        ("fetch_push", (25, 3, 4), slice(3, 6), False, (-1, 0)),
        ("fetch_reach_dense", (10, 3, 4), slice(0, 3), False, (-np.inf, 0)),
    ],
)
def test_what_the_shipped_tasks_yield(name, dims, goal, terminates, rewards):
    spec = open_env(shipped(name)).env_spec
    assert (spec.state_dim, spec.goal_dim, spec.action_dim) == dims
    assert (spec.goal_slice, spec.terminates, spec.reward_range) == (goal, terminates, rewards)
    assert spec.restorable


def test_a_toy_is_what_gymnasium_makes_of_it():
    env, own = build(toy("ends")), [toy_goal_env.Toy("ends") for _ in range(N)]
    try:
        spec = env.base_env.env_spec
        assert (spec.state_dim, spec.goal_dim, spec.action_dim) == (2, 2, 2)
        assert spec.goal_slice is None and spec.terminates and spec.proprio == (0, 1)
        env.base_env.seed_next_reset([5, 6])
        root = env.reset()
        observed = [one.reset(seed=5 + i)[0] for i, one in enumerate(own)]
        ends = set()
        for action in actions(0, 4 * LENGTH, 2):
            step, root = env.step_and_maybe_reset(root.set("action", action))
            for i, one in enumerate(own):
                # [-1, 1] is stretched to [-1, 3] x [-2, 2].
                scaled = action[i].numpy() * np.float32(2) + np.array([1, 0], np.float32)
                after, reward, terminated, _, info = one.step(scaled)
                assert_observed(step, i, observed[i])
                assert_observed(step["next"], i, after)
                assert step["next", "reward"][i].item() == reward
                assert step["next", "terminated"][i].item() == terminated
                assert step["next", "success"][i].item() == info["success"]
                done = step["next", "done"][i].item()
                assert done == (terminated or step["next", "episode_length"][i].item() == LENGTH)
                observed[i] = one.reset()[0] if done else after
                ends |= {terminated} if done else set()
        assert ends == {True, False}
    finally:
        env.close()


def assert_observed(row, i, obs):
    for name, theirs in (("state", "observation"), ("achieved_goal",) * 2, ("desired_goal",) * 2):
        np.testing.assert_array_equal(row[name][i], obs[theirs].astype(np.float32))
    np.testing.assert_array_equal(row["proprio"][i], obs["observation"].astype(np.float32))


@pytest.mark.parametrize("task", ["point_maze", "ant_maze", "hand_reach", "toy"])
def test_other_processes_go_on_exactly(task):
    spec = toy() if task == "toy" else shipped(task, 12)
    first, second = build(spec), build(spec, workers=1)
    size = first.base_env.env_spec.action_dim
    try:
        first.base_env.seed_next_reset([1, 2])
        root = first.reset()
        second.reset()
        for k, steps in enumerate((0, 1, 5, 9)):  # at a start, on the way, in another episode
            _, root = play(first, root, actions(k, steps, size))
            text = io.BytesIO()
            torch.save({"env": get_env_state(first), "root": root.to_dict()}, text)
            saved = torch.load(io.BytesIO(text.getvalue()), weights_only=True)
            set_env_state(second, saved["env"])
            there = root.clone().update(saved["root"])
            ahead = actions(10 + k, 20, size)
            rows, root = play(first, root, ahead)
            for one, other in zip(rows, play(second, there, ahead)[0], strict=True):
                assert (one == other).all()
    finally:
        first.close()
        second.close()


def test_one_that_cannot_be_saved_says_so():
    env = open_env(toy("unsaved"))
    assert not env.env_spec.restorable
    env.reset(0)
    assert env.get_state()["simulation"] == {}
    assert open_env(toy()).env_spec.restorable


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskSpec("FetchPsh-v4", 5, None), "env_id='FetchPsh-v4'.*did you mean FetchPush-v4"),
        (TaskSpec("no_such_module:Toy-v0", 5, None), "No module named 'no_such_module'"),
        (TaskSpec("CartPole-v1", 5, None), "Dict observations with the vectors observation, ach"),
        (TaskSpec("PointMaze_UMaze-v3", 5, None, {"wall": 1}), "keyword argument 'wall'"),
        (toy("achieved_goal"), "vectors observation, achieved_goal, desired_goal, not Dict"),
        (toy("unbounded"), "a Box of actions in finite bounds, not Box"),
        (toy("no reward"), "a method compute_reward"),
        (toy("no success"), r"info\['is_success'\] or info\['success'\] at every step"),
        (toy("moving goal"), "one desired_goal an episode"),
        (toy("needs info"), "needs nothing in info; it raised KeyError: 'key'"),
        (
            toy("needs info to end"),
            "a compute_terminated .*nothing in info; it raised KeyError: 'k",
        ),
        (toy("control cost"), "a step gave -1.1, compute_reward -1"),
        (toy("nan"), "finite observations"),
        (toy(proprio=[0, 2]), r"task.proprio=\(0, 2\): expected entries of a state of 2 numbers"),
        (toy(reward_range=[0, 1]), r"task.reward_range=\[0, 1\]: expected a range that holds"),
        (
            TaskSpec(TOY, 5, Pixels(84, 1, None, {}, True, "fast")),
            "obs.pixels=.*expected a Fetch task",
        ),
    ],
)
def test_what_is_lacking_is_said_in_one_line(task, message):
    with pytest.raises(ConfigError, match=message) as caught:
        open_env(task)
    assert "\n" not in str(caught.value)


def test_a_range_needs_two_ends_in_order():
    with pytest.raises(ConfigError, match=r"task.reward_range=\[1, 0\]: expected \[lowest"):
        toy(reward_range=[1, 0])


@pytest.mark.parametrize(("flaw", "vectorised"), [("", True), ("one pair", False)])
def test_rewards_of_a_batch_are_those_of_its_pairs(flaw, vectorised):
    env = open_env(toy(flaw))
    assert env._reward.vectorised == vectorised
    achieved = np.array([[0.0, 0.0], [0.0, 0.5]], np.float32)
    rewards = env.compute_reward(achieved, np.array([[0.0, 0.2], [0.0, 0.2]], np.float32))
    assert rewards.dtype == np.float32
    assert rewards.tolist() == [0.0, -1.0]  # 0.2 and 0.3 away


def test_a_function_that_mixes_pairs_is_asked_for_each():
    goals = np.array([[0.0], [1.0]], np.float32), np.array([[0.0], [0.0]], np.float32)
    mixing = OverBatch(lambda a, b, info: float(np.linalg.norm(a - b)), goals)
    assert not mixing.vectorised
    assert mixing(*goals).tolist() == [0.0, 1.0]


def test_goals_that_end_episodes_on_a_batch_of_torch_goals():
    env = build(toy("ends"), workers=1)
    try:
        base = env.base_env
        achieved, desired = torch.zeros(3, 2, 2), torch.zeros(3, 2, 2)
        desired[1, 0, 1] = 0.2
        desired[2, :, 0] = 0.3
        ended = base.compute_terminated(achieved, desired)
        assert ended.tolist() == [[True, True], [True, True], [False, False]]
        assert base.compute_reward(achieved, desired).tolist() == [[0, 0], [0, 0], [-1, -1]]
    finally:
        env.close()


def test_an_unstable_simulation_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo appends to MUJOCO_LOG.TXT where it stands
    env = open_env(shipped("point_maze"))
    env.reset(0)
    env._env.unwrapped.data.qvel[:] = np.nan
    with pytest.raises(SimulationError, match=r"unstable \(PointMaze_UMaze-v3, step 1 of the"):
        env.step(np.zeros(2, np.float32))


def test_fetch_tasks_keep_their_fast_path():
    assert isinstance(open_env(shipped("fetch_push")), FetchEnv)
    assert isinstance(open_env(shipped("hand_reach")), GoalEnv)
    assert "toy_goal_env" in sys.modules


def text_in(state):
    if isinstance(state, dict):
        return [text for one in state.values() for text in text_in(one)]
    if isinstance(state, list):
        return [text for one in state for text in text_in(one)]
    return [state] if isinstance(state, str) else []


@pytest.mark.parametrize("name", ["point_maze", "ant_maze", "hand_reach"])
def test_a_saved_state_holds_no_path(name):
    """The mazes' is of a file that each process names by the time; states are compared."""
    env = open_env(shipped(name))
    try:
        env.reset(seed=0)
        assert env.env_spec.restorable
        texts = text_in(env.get_state())
    finally:
        env.close()
    assert not [text for text in texts if "/" in text]
