import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import gone

from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.pool import WorkerError, WorkerPool
from fetchlab.envs.spec import TaskSpec
from fetchlab.errors import ConfigError

SPEC = TaskSpec("FetchPush-v4", max_episode_steps=6, pixels=None)
OBS = ("state", "achieved_goal", "desired_goal")
FIELDS = (*OBS, "reward", "terminated", "truncated", "success")
FIRST = tuple(f"first_{name}" for name in OBS)
SEEDS = [11, 12, 13]
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def actions(seed, steps, n=3):
    return np.random.default_rng(seed).uniform(-1, 1, (steps, n, 4)).astype(np.float32)


def make_pool(n_envs, workers, task=SPEC):
    return WorkerPool(task, FetchEnv(task).env_spec, n_envs, workers, timeout_s=60.0)


def reported(arrays):
    """A copy of everything the workers report."""
    rows = {name: getattr(arrays.now, name) for name in OBS}
    rows |= {name: getattr(arrays, name) for name in FIELDS[3:]}
    rows |= {f"first_{name}": getattr(arrays.first, name) for name in OBS}
    return {name: array.copy() for name, array in rows.items()}


def play(pool, sequence):
    """Steps the pool and returns a copy of everything it reports, time by time."""
    rows = []
    for action in sequence:
        pool.send(action)
        pool.receive()
        rows.append(reported(pool.arrays))
    return rows


def assert_same(left, right):
    assert len(left) == len(right) > 0
    for t, (a, b) in enumerate(zip(left, right, strict=True)):
        done = a["terminated"] | a["truncated"]
        for name in FIELDS:
            np.testing.assert_array_equal(a[name], b[name], err_msg=f"{name} at {t}")
        for name in FIRST:  # meaningful where an episode ended
            np.testing.assert_array_equal(a[name][done], b[name][done], err_msg=f"{name} at {t}")


@pytest.fixture(scope="module")
def shared():
    pool = make_pool(3, workers=2)  # shares of 1 and 2
    yield pool
    pool.close()


@pytest.fixture
def pool():
    """A pool that the test may break: two workers with one environment each."""
    pool = make_pool(2, workers=2)
    pool.reset([21, 22])
    yield pool
    pool.close()


def test_pool_equals_serial_environments(shared):
    envs = [FetchEnv(SPEC) for _ in SEEDS]
    shared.reset(SEEDS)
    for i, env in enumerate(envs):
        obs = env.reset(SEEDS[i])
        np.testing.assert_array_equal(shared.arrays.now.state[i], obs.state)
        np.testing.assert_array_equal(shared.arrays.now.desired_goal[i], obs.desired_goal)
    sequence = actions(0, 20)  # three ends of episodes of 6 steps
    expected = []
    for action in sequence:
        row = {name: np.zeros_like(array) for name, array in reported(shared.arrays).items()}
        for i, env in enumerate(envs):
            obs, *rest = env.step(action[i])
            for name, value in zip(FIELDS, (*obs[:3], *rest), strict=True):
                row[name][i] = value
            if row["truncated"][i]:
                first = env.reset()
                for name, value in zip(FIRST, first[:3], strict=True):
                    row[name][i] = value
        expected.append(row)
    assert sum(row["truncated"].all() for row in expected) == 3
    assert_same(play(shared, sequence), expected)


def test_state_moves_between_pools_of_other_worker_counts(shared):
    sequence = actions(1, 16)
    shared.reset(SEEDS)
    play(shared, sequence[:4])  # mid-episode
    states = shared.get_state()
    expected = play(shared, sequence[4:])
    one = make_pool(3, workers=1)
    try:
        one.reset(None)
        one.set_state(states)
        assert one.arrays.seed.ravel().tolist() == SEEDS
        assert_same(play(one, sequence[4:]), expected)
        # and the same from the start, without any state: only the seeds decide
        one.reset(SEEDS)
        shared.reset(SEEDS)
        assert_same(play(one, sequence), play(shared, sequence))
    finally:
        one.close()
    with pytest.raises(ConfigError, match="states=2"):
        shared.set_state(states[:2])


def test_seeds_decide_and_unseeded_resets_go_on(shared):
    shared.reset(SEEDS)
    first = shared.arrays.now.state.copy(), shared.arrays.now.desired_goal.copy()
    shared.reset(None)
    assert not (shared.arrays.now.desired_goal == first[1]).all(axis=1).any()
    shared.reset(SEEDS)
    np.testing.assert_array_equal(shared.arrays.now.state, first[0])
    np.testing.assert_array_equal(shared.arrays.now.desired_goal, first[1])
    for bad in ([1, 2], [1, 2, -3]):
        with pytest.raises(ConfigError, match="seeds="):
            shared.reset(bad)


def test_an_outstanding_step_must_be_received_first(shared):
    shared.reset(SEEDS)
    with pytest.raises(RuntimeError, match="without an outstanding step"):
        shared.receive()
    action = actions(2, 1)[0]
    shared.send(action)
    for call in (lambda: shared.send(action), lambda: shared.reset(None), shared.get_state):
        with pytest.raises(RuntimeError, match="call receive"):
            call()
    shared.receive()
    assert shared.arrays.step.ravel().tolist() == [1, 1, 1]


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_non_finite_action_is_refused_by_name_before_anything_is_sent(shared, poison):
    shared.reset(SEEDS)
    before = shared.arrays.now.state.copy()
    action = actions(3, 1)[0]
    action[1, 2] = poison
    with pytest.raises(ValueError, match=r"env 1 .*step 1 .*seed 12"):
        shared.send(action)
    assert not shared.outstanding
    np.testing.assert_array_equal(shared.arrays.now.state, before)
    with pytest.raises(ValueError, match="shape"):
        shared.send(action[:2])


@needs_proc
def test_workers_load_mujoco_but_not_torch(shared):
    for pid in shared.pids:
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "libmujoco" in maps
        assert "libtorch" not in maps
        assert "torchrl" not in maps
    code = "import sys, fetchlab.envs.pool, fetchlab.envs.worker, fetchlab.envs.fetch;"
    code += "print([m for m in ('torch', 'torchrl', 'tensordict') if m in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_workers_ignore_signals_meant_for_the_group(shared):
    shared.reset(SEEDS)
    for pid in shared.pids:
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"):
            os.kill(pid, getattr(signal, name))
    play(shared, actions(4, 3))
    assert shared.arrays.step.ravel().tolist() == [3, 3, 3]


@needs_proc
@pytest.mark.parametrize("when", ["in a step", "between steps"])
def test_a_killed_worker_is_named_at_once_and_leaves_no_orphans(pool, when):
    pids = pool.pids
    action = actions(5, 1, n=2)[0]
    play(pool, [action])
    if when == "in a step":
        os.kill(pids[1], signal.SIGSTOP)  # so that the step is certainly unfinished
        pool.send(action)
    os.kill(pids[1], signal.SIGKILL)
    start = time.monotonic()
    named = rf"worker 1 \(pid {pids[1]}\).*env 1.*seed 22: .*SIGKILL"
    with pytest.raises(WorkerError, match=named):
        if not pool.outstanding:
            pool.send(action)
        pool.receive()
    assert time.monotonic() - start < 10.0  # at once, not after timeout_s = 60
    assert gone(pids)
    with pytest.raises(RuntimeError, match="closed"):
        pool.send(action)


@needs_proc
def test_a_hung_worker_is_an_error_after_the_timeout(pool):
    pids = pool.pids
    os.kill(pids[0], signal.SIGSTOP)
    pool.timeout_s = 0.5
    pool.send(actions(6, 1, n=2)[0])
    start = time.monotonic()
    with pytest.raises(WorkerError, match=r"worker 0 .*env 0.*did not answer within 0.5 s"):
        pool.receive()
    assert 0.4 < time.monotonic() - start < 2.4  # killed, without two seconds of grace
    assert gone(pids)


SUSPENDED = """
import os, signal
import numpy as np
from fetchlab.envs.fetch import FetchEnv
from fetchlab.envs.pool import WorkerPool
from fetchlab.envs.spec import TaskSpec
task = TaskSpec("FetchReach-v4", 50, None)
pool = WorkerPool(task, FetchEnv(task).env_spec, 2, 2, timeout_s=2.0)
pool.reset([1, 2])
os.kill(pool.pids[0], signal.SIGSTOP)
pool.send(np.ones((2, 4), np.float32))
print("waiting", flush=True)
pool.receive()
print(pool.arrays.now.state.tobytes().hex(), flush=True)
states = pool.get_state()
os.kill(pool.pids[1], signal.SIGSTOP)
states[1]["padding"] = bytes(10_000_000)  # more than the socket holds: sending waits
print("sending", flush=True)
pool.set_state(states)
pool.send(np.ones((2, 4), np.float32))
pool.receive()
print(pool.arrays.now.state.tobytes().hex(), flush=True)
pool.close()
"""


@needs_proc
def test_time_in_which_the_whole_group_was_suspended_counts_for_no_time_out():
    with subprocess.Popen(
        [sys.executable, "-c", SUSPENDED],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        seen = []
        for word in ("waiting", "sending"):  # for an answer; for a worker to take a request
            assert process.stdout.readline() == f"{word}\n"
            time.sleep(0.1)
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(2.4)
            os.killpg(process.pid, signal.SIGCONT)
            seen.append(process.stdout.readline().strip())
    assert process.returncode == 0
    pool = make_pool(2, workers=2, task=TaskSpec("FetchReach-v4", 50, None))
    pool.reset([1, 2])
    for state in seen:
        pool.send(np.ones((2, 4), np.float32))
        pool.receive()
        assert pool.arrays.now.state.tobytes().hex() == state
    pool.close()


@needs_proc
def test_an_exception_in_a_worker_names_env_step_seed_and_traceback(pool):
    pids = pool.pids
    play(pool, actions(7, 2, n=2))
    states = pool.get_state()
    states[1]["simulator"]["integration"][1:8] = 1e12  # MuJoCo will reset itself
    pool.set_state(states)
    pool.send(actions(8, 1, n=2)[0])
    with pytest.raises(WorkerError, match=r"env 1, step 3 of episode 0, seed 22") as error:
        pool.receive()
    assert "Traceback" in str(error.value)
    assert "SimulationError" in str(error.value)
    assert gone(pids)


@needs_proc
def test_close_is_idempotent_and_garbage_collection_is_enough():
    pool = make_pool(1, workers=1)
    pids = pool.pids
    os.kill(pids[0], signal.SIGSTOP)  # does not leave when asked
    pool.close()
    pool.close()
    assert gone(pids)
    assert pool.pids == []

    pool = make_pool(1, workers=1)
    pids = pool.pids
    del pool
    gc.collect()
    assert gone(pids)


@needs_proc
def test_workers_die_with_a_killed_parent_and_its_script_runs_once(tmp_path):
    script = tmp_path / "script.py"  # no `if __name__ == "__main__"`
    script.write_text(
        "import os, signal\n"
        "from fetchlab.envs.fetch import FetchEnv\n"
        "from fetchlab.envs.pool import WorkerPool\n"
        "from fetchlab.envs.spec import TaskSpec\n"
        "open('runs', 'a').write('x')\n"
        "task = TaskSpec('FetchReach-v4', 5, None)\n"
        "pool = WorkerPool(task, FetchEnv(task).env_spec, 2, 2, 60.0)\n"
        "os.kill(pool.pids[0], signal.SIGSTOP)  # cannot read the end of file\n"
        "print(*pool.pids, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, script],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
    )
    pids = [int(pid) for pid in run.stdout.split()]
    assert len(pids) == 2
    assert gone(pids)
    assert (tmp_path / "runs").read_text() == "x"


def test_a_worker_that_cannot_build_its_environments_says_why():
    with pytest.raises(WorkerError, match=r"building envs 0\.\.0(.|\n)*env_id='Fetch"):
        WorkerPool(TaskSpec("FetchFly-v0", 5, None), FetchEnv(SPEC).env_spec, 1, 1, 60.0)


def test_more_workers_than_environments_are_refused():
    with pytest.raises(ConfigError, match="workers=3: expected at most n_envs=2"):
        make_pool(2, workers=3)


@needs_proc
@pytest.mark.parametrize(("asked", "given"), [(None, ["0", "3", "0"]), ("1", ["1", "1", "1"])])
def test_workers_take_the_rendering_devices_in_turn(asked, given, monkeypatch):
    monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
    monkeypatch.setenv("FETCHLAB_EGL_DEVICES", "0,3")
    if asked is not None:
        monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", asked)
    pool = make_pool(3, workers=3)
    environments = [Path(f"/proc/{pid}/environ").read_bytes() for pid in pool.pids]
    pool.close()
    variables = [dict(v.split(b"=", 1) for v in e.split(b"\0") if v) for e in environments]
    assert [one[b"MUJOCO_EGL_DEVICE_ID"].decode() for one in variables] == given
