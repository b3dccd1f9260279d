"""Stepping 8 FetchPush environments without a camera, env steps per second of wall clock.

    python scripts/bench/envs.py [--quick]

Rows: ``pool_vs_raw_physics`` holds our worker pool against MuJoCo alone, one process per core that
does nothing but ``mj_step(nstep=20)`` on the same models under random targets; ``pool_vs_async``
against gymnasium's ``AsyncVectorEnv``; ``torchrl_vs_pool`` our batched TorchRL environment with its
transforms against the pool below it. All four are measured in turn under uniform random actions,
resets included (gymnasium's reset takes a step's place, one in 51, and is counted as one).
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from table import alternate, main, ratio_row
from training import compose, torch_settings

EXPERIMENT = "state_push"
N_ENVS = 8
SUBSTEPS = 20  # of 2 ms, as one step of the task
RAW_TARGET, ASYNC_TARGET, TORCHRL_TARGET = 0.70, 1.4, 0.85
MAX_MOVE_M = 0.05  # what an action moves the gripper's target by, at most


class RawPhysics:
    """MuJoCo on all cores: each process steps its share of the models, all of them at once.

    Args:
        cfg: resolved, plain.
        processes: as many as the pool has workers.
    """

    def __init__(self, cfg: dict[str, Any], processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        bounds = [N_ENVS * i // processes for i in range(processes + 1)]
        self._pipes, self._processes = [], []
        for first, end in pairwise(bounds):
            pipe, theirs = context.Pipe()
            task = cfg["task"]
            arguments = (theirs, task["env_id"], task["max_episode_steps"], range(first, end))
            process = context.Process(target=_step_models, args=arguments, daemon=True)
            process.start()
            self._pipes.append(pipe)
            self._processes.append(process)
        self.steps(1)

    def steps(self, rounds: int) -> float:
        """Seconds that all processes take for ``rounds`` steps of each of their models."""
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(rounds)
        for pipe in self._pipes:
            pipe.recv()
        return time.perf_counter() - began

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send(0)
            process.join()


def _step_models(pipe: Connection, env_id: str, episode_steps: int, seeds: range) -> None:
    """Step one model per seed as often as the pipe says, from its start again after an episode."""
    import gymnasium
    import mujoco

    import fetchlab.envs.fetch  # noqa: F401  registers the tasks, without a release notice

    sims = []
    for seed in seeds:
        env = gymnasium.make(env_id).unwrapped
        env.reset(seed=seed)
        body = mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_BODY, "robot0:gripper_link")
        start = env.data.qpos.copy(), env.data.qvel.copy()
        sims.append((env.model, env.data, env.data.xpos[body], env.data.mocap_pos[0], start))
    rng, done = np.random.default_rng(seeds.start), 0
    while rounds := pipe.recv():
        moves = rng.uniform(-MAX_MOVE_M, MAX_MOVE_M, (rounds, len(sims), 3))
        for step in moves:
            for move, (model, data, gripper, target, (qpos, qvel)) in zip(step, sims, strict=True):
                if done % episode_steps == 0:
                    data.qpos[:], data.qvel[:] = qpos, qvel
                np.add(gripper, move, out=target)
                mujoco.mj_step(model, data, nstep=SUBSTEPS)
            done += 1
        pipe.send(done)


def pool_steps(pool: Any, actions: np.ndarray) -> float:
    """Seconds of our worker pool for the actions (T, N, 4)."""
    began = time.perf_counter()
    for action in actions:
        pool.send(action)
        pool.receive()
    return time.perf_counter() - began


def async_steps(env: Any, actions: np.ndarray) -> float:
    """Seconds of gymnasium's vector environment."""
    began = time.perf_counter()
    for action in actions:
        env.step(action)
    return time.perf_counter() - began


class TorchRLSteps:
    """Our batched environment with its transforms, as the collector steps it."""

    def __init__(self, env: Any) -> None:
        self.env = env
        self._obs = env.reset()

    def __call__(self, actions: np.ndarray) -> float:
        """Seconds for the actions (T, N, 4)."""
        import torch

        with torch_settings(threads=1, deterministic=False):
            began = time.perf_counter()
            for action in actions:
                self._obs.set("action", torch.from_numpy(action))
                _, self._obs = self.env.step_and_maybe_reset(self._obs)
            return time.perf_counter() - began


def bench(quick: bool) -> None:
    """Print the rows."""
    rounds, repetitions = (100, 5) if quick else (500, 15)
    import gymnasium

    import fetchlab.envs.fetch  # noqa: F401  registers the tasks, without a release notice

    cfg = compose(EXPERIMENT)
    # Before torch is imported: its processes are forked.
    theirs = gymnasium.make_vec(cfg["task"]["env_id"], N_ENVS, vectorization_mode="async")
    theirs.reset(seed=0)

    from fetchlab.build import build_env, task_spec
    from fetchlab.config import typed
    from fetchlab.envs.pool import WorkerPool
    from fetchlab.preflight.sizes import worker_count

    workers = worker_count(None, N_ENVS)
    raw = RawPhysics(cfg, workers)
    env = build_env(typed(cfg), N_ENVS, workers)
    spec, timeout_s = env.base_env.env_spec, cfg["collect"]["timeout_s"]
    pool = WorkerPool(task_spec(typed(cfg)), spec, N_ENVS, workers, timeout_s)
    pool.reset(list(range(N_ENVS)))
    rng = np.random.default_rng(0)

    def rate(steps: Callable[[np.ndarray], float]) -> float:
        actions = rng.uniform(-1, 1, (rounds, N_ENVS, 4)).astype(np.float32)
        return rounds * N_ENVS / steps(actions)

    measured = alternate(
        {
            "pool": partial(rate, partial(pool_steps, pool)),
            "raw physics": partial(rate, lambda actions: raw.steps(len(actions))),
            "AsyncVectorEnv": partial(rate, partial(async_steps, theirs)),
            "TorchRL": partial(rate, TorchRLSteps(env)),
        },
        repetitions,
        "env steps/s",
    )
    ours = measured["pool"]
    ratio_row("pool_vs_raw_physics", ours, measured["raw physics"], at_least=RAW_TARGET)
    ratio_row("pool_vs_async", ours, measured["AsyncVectorEnv"], at_least=ASYNC_TARGET)
    ratio_row("torchrl_vs_pool", measured["TorchRL"], ours, at_least=TORCHRL_TARGET)
    for each in (env, pool, theirs, raw):
        each.close()


if __name__ == "__main__":
    main(__doc__, bench)
