import io
import os
from collections import deque

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.envs import StepCounter
from torchrl.envs.utils import check_env_specs

from fetchlab.envs.batched import get_env_state, make_env, set_env_state
from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.spec import TaskSpec
from fetchlab.errors import ConfigError
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.schema import Pixels

N, LENGTH, STACK = 3, 5, 3
SPEC = TaskSpec("FetchPush-v4", max_episode_steps=LENGTH, pixels=None)
PIXELS = Pixels(
    image_size=20, supersample=2, camera=None, more_cameras={}, show_goal=True, quality="fast"
)
SEEDS = [31, 32, 33]


def build(spec, n_envs=N, workers=2):
    return make_env(spec, n_envs=n_envs, workers=workers, frame_stack=STACK, timeout_s=60.0)


@pytest.fixture(scope="module")
def env():
    env = build(SPEC)
    yield env
    env.close()


@pytest.fixture(scope="module")
def pixel_env():
    kept = dict(os.environ)
    choose_renderer()  # for the workers; this process does not render
    env = build(TaskSpec("FetchReach-v4", LENGTH, PIXELS))
    os.environ.clear()
    os.environ.update(kept)
    yield env
    env.close()


def actions(seed, steps, n=N):
    return torch.rand(steps, n, 4, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def restart(env, seeds=SEEDS):
    env.base_env.seed_next_reset(seeds)
    return env.reset()


def advance(env, root, action):
    return env.step_and_maybe_reset(root.set("action", action))


def play(env, root, sequence):
    """Returns (root, next) of every step, deeply copied at once, and the last root."""
    rows = []
    for action in sequence:
        step, root = advance(env, root, action)
        rows.append(step.clone())
    return rows, root


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for t, (a, b) in enumerate(zip(left, right, strict=True)):
        assert (a == b).all(), f"step {t}"


def test_specs_hold(env, pixel_env):
    for candidate in (env, env.base_env, pixel_env, pixel_env.base_env):
        check_env_specs(candidate, seed=0, break_when_any_done="both")
    keys = {"state", "achieved_goal", "desired_goal", "success", "proprio"}
    keys |= {"episode_return", "episode_length"}
    assert set(env.observation_spec.keys()) == keys
    assert set(pixel_env.observation_spec.keys()) == keys | {"pixels", "frames"}
    assert pixel_env.observation_spec["frames"].shape == (N, 3 * STACK, 20, 20)
    assert pixel_env.observation_spec["frames"].dtype == torch.uint8


def test_steps_equal_serial_environments_across_episodes(env):
    serial = [FetchEnv(SPEC) for _ in SEEDS]
    observed = [e.reset(s) for e, s in zip(serial, SEEDS, strict=True)]
    root = restart(env)
    for t, action in enumerate(actions(0, 3 * LENGTH + 2)):
        step, root = advance(env, root, action)
        for i, e in enumerate(serial):
            before, result = observed[i], e.step(action[i].numpy())
            after = step["next"]
            for name in ("state", "achieved_goal", "desired_goal"):
                np.testing.assert_array_equal(step[name][i], getattr(before, name))
                np.testing.assert_array_equal(after[name][i], getattr(result.obs, name))
            assert after["reward"][i].item() == result.reward
            assert after["success"][i].item() == result.success
            assert after["truncated"][i].item() == result.truncated == (t % LENGTH == LENGTH - 1)
            assert after["done"][i].item() == (result.truncated or result.terminated)
            observed[i] = e.reset() if result.truncated else result.obs
            np.testing.assert_array_equal(root["state"][i], observed[i].state)
        assert not root["done"].any() and not root["truncated"].any()
        torch.testing.assert_close(step["proprio"], step["state"][:, env.env_spec.proprio])


def test_returned_tensors_outlive_the_next_step(pixel_env):
    root = restart(pixel_env)
    held = []
    for action in actions(1, LENGTH + 2):
        step, root = advance(pixel_env, root, action)
        held.append((step, step.clone()))
    assert_same([live for live, _ in held], [copy for _, copy in held])


def test_frames_equal_a_hand_written_deque(pixel_env):
    root = restart(pixel_env)
    stacks = [deque([root["pixels"][i]] * STACK, STACK) for i in range(N)]
    distinct = set()
    for action in actions(2, 2 * LENGTH + 2):
        step, root = advance(pixel_env, root, action)
        for i, stack in enumerate(stacks):
            assert torch.equal(step["frames"][i], torch.cat(list(stack)))
            stack.append(step["next", "pixels"][i])
            assert torch.equal(step["next", "frames"][i], torch.cat(list(stack)))
            if step["next", "done"][i]:
                stack.extend([root["pixels"][i]] * STACK)
            distinct.add(step["pixels"][i].numpy().tobytes())
    assert len(distinct) > 2 * LENGTH  # the pictures do change: an empty one would prove nothing


def test_one_and_two_workers_see_the_same_pixels(pixel_env):
    sequence = actions(3, LENGTH + 2)
    rows, _ = play(pixel_env, restart(pixel_env), sequence)
    kept = dict(os.environ)
    choose_renderer()
    other = build(TaskSpec("FetchReach-v4", LENGTH, PIXELS), workers=1)
    os.environ.clear()
    os.environ.update(kept)
    try:
        assert_same(play(other, restart(other), sequence)[0], rows)
    finally:
        other.close()


def test_return_length_and_success_are_the_episodes_own(env):
    root = restart(env)
    total, length = torch.zeros(N, 1), torch.zeros(N, 1, dtype=torch.int64)
    for action in actions(4, 2 * LENGTH + 3):
        assert torch.equal(root["episode_return"], total)
        assert torch.equal(root["episode_length"], length)
        step, root = advance(env, root, action)
        total, length = total + step["next", "reward"], length + 1
        assert torch.equal(step["next", "episode_return"], total)
        assert torch.equal(step["next", "episode_length"], length)
        # sparse reward: 0 within the threshold, -1 outside
        assert torch.equal(step["next", "success"], step["next", "reward"] == 0)
        if step["next", "done"].any():
            total, length = torch.zeros_like(total), torch.zeros_like(length)
    assert total.min() == -3  # some environment was unsolved for these three steps


def mixed(env):
    """Brings env 0 and 2 to step 3 of an episode and leaves env 1 at its start."""
    start = restart(env).clone()
    early = get_env_state(env)
    _, root = play(env, start.clone(), actions(5, 3))
    late = get_env_state(env)
    late["envs"][1] = early["envs"][1]
    set_env_state(env, late)
    behind = torch.tensor([False, True, False])
    return start.set("action", root["action"]).where(behind, root)


@pytest.mark.parametrize("name", ["env", "pixel_env"])
def test_one_environment_ends_alone(name, request):
    env = request.getfixturevalue(name)
    root = mixed(env)
    frames, total = root.get("frames", None), root["episode_return"].clone()
    for t, action in enumerate(actions(6, LENGTH)):
        step, root = advance(env, root, action)
        after = step["next"]
        total = total + after["reward"]
        ends = torch.tensor([t == 1, t == LENGTH - 1, t == 1])
        assert torch.equal(after["done"].view(-1), ends)
        assert torch.equal(after["episode_return"], total)
        if frames is not None:
            frames = torch.cat((frames[:, 3:], after["pixels"]), 1)
            assert torch.equal(after["frames"], frames)
            frames[ends] = root["pixels"].repeat(1, STACK, 1, 1)[ends]
            assert torch.equal(root["frames"], frames)
        total[ends] = 0.0
        assert torch.equal(root["episode_return"], total)
        # those that go on see what they just saw; those that ended, something new
        assert torch.equal((root["state"] == after["state"]).all(1), ~ends)
        length = root["episode_length"].view(-1).tolist()
        assert length == [(t - 1) if t >= 1 else 4, (t + 1) % LENGTH, (t - 1) if t >= 1 else 4]


def test_a_sent_step_is_received_by_step(env):
    sequence = actions(7, LENGTH + 1)
    expected, _ = play(env, restart(env), sequence)
    root, rows = restart(env), []
    for action in sequence:
        env.base_env.send(action)
        step, root = advance(env, root, action)
        rows.append(step.clone())
    assert_same(rows, expected)


def test_what_does_not_fit_the_outstanding_step_is_refused(env):
    root = restart(env)
    action, other = actions(8, 2)
    env.base_env.send(action)
    for call in (env.reset, lambda: get_env_state(env), lambda: env.base_env.send(action)):
        with pytest.raises(RuntimeError, match="outstanding"):
            call()
    with pytest.raises(RuntimeError, match="not the one that was sent"):
        advance(env, root, other)
    step, root = advance(env, root, action)
    assert torch.equal(step["action"], action)
    root.set("_reset", torch.tensor([[False], [True], [False]]))
    with pytest.raises(RuntimeError, match=r"envs \[1\] in mid-episode"):
        env.reset(root)
    with pytest.raises(KeyError, match="episode_return"):
        env.step(TensorDict({"action": action}, [N]))


def test_a_nan_action_is_refused(env):
    root = restart(env)
    action = actions(9, 1)[0]
    action[2, 0] = float("nan")
    with pytest.raises(ValueError, match="action of env 2"):
        advance(env, root, action)


def test_seeds(env):
    def first(call):
        call()
        return env.reset()["desired_goal"]

    streams = np.random.SeedSequence(7).generate_state(N).tolist()
    by_stream = first(lambda: env.base_env.seed_next_reset(streams))
    by_seed = first(lambda: env.set_seed(7))
    assert torch.equal(by_seed, by_stream)
    assert len(by_seed.unique(dim=0)) == N
    assert not (env.reset()["desired_goal"] == by_seed).all(1).any()  # goes on without a seed
    assert not (first(lambda: env.set_seed(8)) == by_seed).all(1).any()
    with pytest.raises(ConfigError, match="seeds"):
        first(lambda: env.base_env.seed_next_reset([1]))


def test_compute_reward_is_the_tasks_own(env):
    achieved = torch.zeros(2, 2, 3)
    desired = torch.zeros(2, 2, 3)
    desired[0, 1, 0], desired[1, 0, 1], desired[1, 1, 2] = 0.049, 0.051, 1.0
    reward = env.base_env.compute_reward(achieved, desired)
    assert reward.dtype == torch.float32
    assert reward.tolist() == [[0.0, 0.0], [-1.0, -1.0]]
    rows, _ = play(env, restart(env), actions(10, LENGTH))
    for row in rows:
        after = row["next"]
        reward = env.base_env.compute_reward(after["achieved_goal"], after["desired_goal"])
        assert torch.equal(reward, after["reward"].squeeze(-1))


def test_restored_runs_continue_bit_for_bit():
    spec = TaskSpec("FetchPush-v4", max_episode_steps=50, pixels=None)
    source, target = build(spec, n_envs=2), build(spec, n_envs=2, workers=1)
    sequence = actions(11, 72, n=2)
    saved = {}
    try:
        root, rows = restart(source, SEEDS[:2]), []
        for t, action in enumerate(sequence):
            if t in (1, 12, 23, 37, 50, 61):
                buffer = io.BytesIO()
                torch.save({"env": get_env_state(source), "root": root.to_dict()}, buffer)
                saved[t] = buffer
            step, root = advance(source, root, action)
            rows.append(step.clone())
        target.set_seed(0)
        target.reset()
        for t, buffer in saved.items():
            buffer.seek(0)
            state = torch.load(buffer, weights_only=True)
            set_env_state(target, state["env"])
            root = TensorDict(state["root"], [2])
            assert_same(play(target, root, sequence[t : t + 11])[0], rows[t : t + 11])
        with pytest.raises(ConfigError, match="states=1"):
            set_env_state(target, state["env"] | {"envs": state["env"]["envs"][:1]})
    finally:
        source.close()
        target.close()


def test_what_cannot_be_built_is_refused_before_any_worker_starts():
    with pytest.raises(ConfigError, match="env_id='FetchFly-v0'"):
        build(TaskSpec("FetchFly-v0", 5, None))


@pytest.mark.parametrize("name", ["env", "pixel_env"])
def test_the_short_way_through_a_step_is_torchrls(name, request):
    env = request.getfixturevalue(name)
    sequence = actions(8, 2 * LENGTH)

    def played(step):
        root, pairs = restart(env), []
        for action in sequence:
            after, root = step(root.set("action", action))
            pairs += [after.clone(), root.clone()]
        return pairs

    ours = played(env.step_and_maybe_reset)
    theirs = played(super(type(env), env).step_and_maybe_reset)
    assert any(after["next", "done"].any() for after in ours[::2])
    for one, other in zip(ours, theirs, strict=True):
        assert set(one.keys(True, True)) == set(other.keys(True, True))
        assert all((one[key] == other[key]).all() for key in one.keys(True, True))


def test_a_transform_that_a_user_appends_takes_part_in_steps_and_resets():
    env = build(SPEC)
    env.append_transform(StepCounter())
    root = restart(env)
    for action in actions(9, LENGTH):
        after, root = advance(env, root, action)
    env.close()
    assert (after["next", "step_count"] == LENGTH).all()
    assert (root["step_count"] == 0).all()
