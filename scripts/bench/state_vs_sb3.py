"""Whole training at Run 0 settings against Stable-Baselines3's SAC + HER, env steps per second.

    python scripts/bench/state_vs_sb3.py [--quick]

The same task, networks, batch size, update ratio and hindsight on both sides; Stable-Baselines3 at
its best of {DummyVecEnv, SubprocVecEnv} x {1, 2 torch threads}, which a short selection finds
first. Then both train in turn, each continuing where its last block ended. The clock starts when
updates run; neither side evaluates.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from table import SCRATCH, alternate, main, ratio_row, say
from training import Turns, compose

EXPERIMENT = "state_push"
TARGET = 2.0
THREADS = (1, 2)


def make_agents(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Stable-Baselines3 agents with the settings of ``cfg``, past ``learning_starts``."""
    from stable_baselines3 import SAC, HerReplayBuffer
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    import fetchlab.envs.fetch  # noqa: F401  registers the tasks, without a release notice

    algo, collect = cfg["algo"], cfg["collect"]
    n_envs = collect["n_envs"]
    # Forked: a fresh interpreter per environment would take a minute to import torch.
    kinds = ((SubprocVecEnv, {"start_method": "fork"}), (DummyVecEnv, {}))
    agents = {}
    for kind, options in kinds:
        env = make_vec_env(
            cfg["task"]["env_id"],
            n_envs=n_envs,
            seed=cfg["seed"],
            vec_env_cls=kind,
            vec_env_kwargs=options,
        )
        agents[kind.__name__] = SAC(
            "MultiInputPolicy",
            env,
            learning_rate=algo["lr"],
            buffer_size=cfg["replay"]["capacity"],
            learning_starts=collect["learning_starts"],
            batch_size=algo["batch_size"],
            tau=algo["tau"],
            gamma=algo["discount"],
            train_freq=1,
            gradient_steps=round(algo["utd_ratio"] * n_envs),
            replay_buffer_class=HerReplayBuffer,
            replay_buffer_kwargs={
                "n_sampled_goal": algo["her_k"],
                "goal_selection_strategy": "future",
            },
            ent_coef=algo["entropy_coefficient"],
            policy_kwargs={"net_arch": list(algo["hidden"])},
            seed=cfg["seed"],
            device="cpu",
        )
        agents[kind.__name__].learn(collect["learning_starts"] + n_envs)
        say(f"{kind.__name__}: past {collect['learning_starts']} random steps")
    return agents


def serve(connection: Connection, cfg: Mapping[str, Any]) -> None:
    """Train with Stable-Baselines3 in this process, as asked: ``(agent, threads, env steps)``."""
    import torch

    agents = make_agents(cfg)
    connection.send(list(agents))
    for name, threads, env_steps in iter(connection.recv, None):
        torch.set_num_threads(threads)
        began = time.perf_counter()
        agents[name].learn(env_steps, reset_num_timesteps=False)
        connection.send(env_steps / (time.perf_counter() - began))
    for agent in agents.values():
        agent.env.close()


class Peer:
    """Stable-Baselines3 in a process of its own, with the C library's own memory settings."""

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, cfg))
        self._process.start()
        theirs.close()
        self.agents: list[str] = self._connection.recv()

    def block(self, agent: str, threads: int, env_steps: int) -> float:
        """Continue its training for ``env_steps``; env steps per second."""
        self._connection.send((agent, threads, env_steps))
        return self._connection.recv()

    def best(self, env_steps: int, tries: int) -> tuple[str, int]:
        """Try all combinations in turn; the best one's agent and threads."""
        variants = {
            f"{agent} {threads} threads": (agent, threads)
            for agent in self.agents
            for threads in THREADS
        }
        tried = alternate(
            {name: partial(self.block, *one, env_steps) for name, one in variants.items()},
            tries,
            "env steps/s",
        )
        best = max(tried, key=lambda name: statistics.median(tried[name]))
        say(f"Stable-Baselines3 at its best: {best}")
        return variants[best]

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.join()


def bench(quick: bool) -> None:
    """Print the row."""
    cfg = compose(EXPERIMENT)
    n_envs = cfg["collect"]["n_envs"]
    block_rounds, repetitions = (60, 3) if quick else (250, 15)
    tried_rounds, tries = (30, 1) if quick else (200, 3)
    peer = Peer(cfg)
    best = peer.best(tried_rounds * n_envs, tries)
    env_steps = block_rounds * n_envs
    turns = Turns(
        block_rounds,
        repetitions,
        lambda module: peer.block(*best, env_steps),
        lambda seconds: env_steps / seconds,
        "env steps/s",
    )
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        turns.run(EXPERIMENT, Path(folder) / "run")
    ratio_row("state_vs_sb3", turns.ours, turns.theirs, at_least=TARGET)
    peer.close()


if __name__ == "__main__":
    main(__doc__, bench)
