import json
from functools import cache

import numpy as np
import pytest
import torch

from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.spec import SimulationError, TaskSpec
from fetchlab.schema import Pixels

STEPS = 50
KS = (1, 12, 23, 37, 50, 61)
AHEAD = 52  # past the next reset, which continues the random stream
PIXELS = Pixels(24, 1, None, {}, True, "fast")
SMOOTH = Pixels(16, 2, None, {}, True, "fast")


@cache
def actions(seed=0):
    """A long stream that pushes one way for a while: contacts, and poses that lag behind."""
    rng = np.random.default_rng(seed)
    drift = np.repeat(rng.uniform(-0.7, 0.7, (20, 4)), 10, axis=0)
    return (drift + rng.uniform(-0.5, 0.5, drift.shape)).astype(np.float32)


def advance(env, stream):
    """What ``env`` returns for ``stream``, with resets where episodes end."""
    seen = []
    for action in stream:
        result = env.step(action)
        obs = result.obs
        seen.append((obs.state, obs.desired_goal, obs.pixels, *result[1:]))
        if result.truncated:
            obs = env.reset()
            seen.append((obs.state, obs.desired_goal, obs.pixels))
    return seen


def assert_identical(ours, theirs):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.fixture(
    scope="module",
    params=[
        ("FetchPush-v4", None),
        ("FetchPush-v4", PIXELS),
        ("FetchPickAndPlace-v4", None),
        ("FetchPickAndPlace-v4", SMOOTH),
        ("FetchPickAndPlaceDense-v4", None),
        ("FetchSlide-v4", None),
        ("FetchSlideDense-v4", None),
        ("FetchReachDense-v4", None),
        ("FetchPushDense-v4", None),
    ],
    ids=lambda param: param[0][5:-3].lower() + ("-pixels" if param[1] else ""),
)
def run(request):
    """One uninterrupted run: its spec, what each step returned, and a snapshot before each k."""
    spec = TaskSpec(request.param[0], STEPS, request.param[1])
    env = FetchEnv(spec)
    env.reset(2)
    seen, snapshots = [], {}
    for t, action in enumerate(actions()[: max(KS) + AHEAD]):
        if t in KS:
            snapshots[t] = env.get_state()
        seen.append(advance(env, [action]))
    env.close()
    return spec, seen, snapshots


@pytest.mark.parametrize("k", KS)
def test_restore_into_a_fresh_environment(run, k):
    spec, seen, snapshots = run
    env = FetchEnv(spec)
    for _ in range(1 + (k == 23)):  # the second time into an environment that has been elsewhere
        env.set_state(snapshots[k])
        for t in range(k, k + AHEAD):
            assert_identical(advance(env, [actions()[t]]), seen[t])
    env.close()


def test_the_frame_after_a_restore_is_the_frame():
    spec = TaskSpec("FetchPush-v4", STEPS, PIXELS)
    env, fresh = FetchEnv(spec), FetchEnv(spec)
    env.reset(3)
    advance(env, actions()[:17])
    state = env.get_state()
    expected = env.render_frame()
    assert expected.std() > 10  # a picture, not a blank
    fresh.set_state(state)
    assert_same_state(fresh.get_state(), state)
    np.testing.assert_array_equal(fresh.render_frame(), expected)


def test_a_restore_mends_an_unstable_simulation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo appends to MUJOCO_LOG.TXT where it stands
    env = FetchEnv(TaskSpec("FetchPush-v4", STEPS, None))
    env.reset(0)
    state = env.get_state()
    expected = advance(env, actions()[:60])
    env._data.qpos[:] = np.nan
    with pytest.raises(SimulationError):
        env.step(np.zeros(4))
    env.set_state(state)
    assert_identical(advance(env, actions()[:60]), expected)


def test_a_state_is_plain_data(tmp_path):
    spec = TaskSpec("FetchPush-v4", STEPS, None)
    env = FetchEnv(spec)
    env.reset()  # unseeded: the seed is drawn by numpy and has 128 bits
    advance(env, actions()[:5])
    state = env.get_state()
    assert leaf_types(state) == {np.ndarray, int, str}
    torch.save(as_tensors(state), tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    fresh = FetchEnv(spec)
    fresh.set_state(loaded)  # tensors do as arrays
    assert_same_state(fresh.get_state(), state)
    assert_identical(advance(fresh, actions(1)), advance(env, actions(1)))
    json.dumps({key: value for key, value in state.items() if not isinstance(value, np.ndarray)})


def test_a_state_is_a_copy():
    env = FetchEnv(TaskSpec("FetchPush-v4", STEPS, None))
    env.reset(0)
    state = env.get_state()
    kept = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    advance(env, actions()[:70])
    assert_same_state(state, kept)
    env.set_state(state)
    advance(env, actions()[:70])
    assert_same_state(state, kept)


def test_a_state_before_the_first_reset():
    env = FetchEnv(TaskSpec("FetchReach-v4", STEPS, None))
    state = env.get_state()
    first = env.reset()
    fresh = FetchEnv(TaskSpec("FetchReach-v4", STEPS, None))
    fresh.set_state(state)
    with pytest.raises(RuntimeError, match="call reset first"):
        fresh.step(np.zeros(4))
    np.testing.assert_array_equal(fresh.reset().desired_goal, first.desired_goal)
    assert fresh._seed == env._seed


def test_another_tasks_state_is_refused():
    push = FetchEnv(TaskSpec("FetchPush-v4", STEPS, None))
    reach = FetchEnv(TaskSpec("FetchReach-v4", STEPS, None))
    state = reach.get_state()
    with pytest.raises(ValueError, match="state of FetchReach-v4: expected one of FetchPush-v4"):
        push.set_state(state)
    with pytest.raises(ValueError, match="another model"):
        push.set_state({**state, "env_id": "FetchPush-v4"})


def as_tensors(value):
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    return torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value


def leaf_types(value):
    if isinstance(value, dict):
        return set().union(*(leaf_types(item) for item in value.values()))
    return {type(value)}


def assert_same_state(ours, theirs):
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, theirs[key])
        else:
            assert value == theirs[key]
