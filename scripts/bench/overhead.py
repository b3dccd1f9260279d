"""What Lightning, Hydra and TorchRL cost: our whole training against a bare loop of the same parts.

    python scripts/bench/overhead.py [--quick]

The bare loop has the same networks, losses, optimizers, simulator workers and replay files, and
none of Trainer, callbacks, `EnvBase`, transforms and replay buffer: numpy arrays go from the
workers to the storage and to the policy. Both train `state_push` from the same seeds, in turn in
one process, and their weights are compared after every turn: equal weights prove equal work.
``value`` and ``reference`` are seconds per round, ``ratio`` is the share that ours costs more.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from table import SCRATCH, main, print_row, ratios, say
from training import Entries, Turns, compose, without_trainer

EXPERIMENT = "state_push"
TARGET = 0.08
BARE_ENV_STEPS = 100_000  # room for the bare loop in its replay


class BareLoop:
    """The rounds of a training, written down without a framework.

    Args:
        cfg: resolved, plain; at most one update per round.
        run_dir: for the replay's files.
    """

    def __init__(self, cfg: Mapping[str, Any], run_dir: Path) -> None:
        import numpy as np
        import torch

        from fetchlab.build import build_parts, seed_for
        from fetchlab.config import typed

        parts = build_parts(typed(cfg), run_dir)
        self.module = without_trainer(parts.module)
        self.close = parts.env.close
        self._pool = parts.env.base_env.pool
        self._storage, self._sampler = parts.data.replay._storage, parts.data.replay._sampler
        self._n_envs, self._batch_size = cfg["collect"]["n_envs"], cfg["algo"]["batch_size"]
        self._per_round = cfg["algo"]["utd_ratio"] * self._n_envs
        self._learning_starts, self._env_steps = cfg["collect"]["learning_starts"], 0
        self._credit = 0.0
        self._warm_up = torch.Generator().manual_seed(seed_for(cfg["seed"], "warm-up"))
        seeds = np.random.SeedSequence(seed_for(cfg["seed"], "environments"))
        self._pool.reset(seeds.generate_state(self._n_envs).tolist())
        arrays = self._pool.arrays
        self._obs = _observation(arrays.now.state.copy(), arrays.now.desired_goal.copy())
        self._action: Any = None

    @property
    def learning(self) -> bool:
        """Whether updates run."""
        return self._env_steps >= self._learning_starts

    def block(self, rounds: int) -> float:
        """Seconds of so many rounds, until the last step has been received."""
        began = time.perf_counter()
        for _ in range(rounds):
            self.round()
        self.settle()
        return time.perf_counter() - began

    def round(self) -> None:
        """Receive and store, act, send, update."""
        self.settle()
        updates = int(self._credit) if len(self._storage) else 0
        self._credit -= updates
        self._act()
        for _ in range(updates):
            self.module.learn(self._sample())

    def settle(self) -> None:
        """Receive and store the outstanding step."""
        if self._action is None:
            return
        self._pool.receive()
        arrays = self._pool.arrays
        state, goal = arrays.now.state.copy(), arrays.now.desired_goal.copy()
        step = Entries(self._obs, action=self._action)
        step["next"] = _tensors(
            state=state,
            terminated=arrays.terminated.copy(),
            truncated=arrays.truncated.copy(),
        )
        self.module.observe(step)
        self._storage.set(None, step)
        done = arrays.done
        if done.any():
            # The storage has copied the final observations by now.
            state[done] = arrays.first.state[done]
            goal[done] = arrays.first.desired_goal[done]
        self._obs, self._action = _observation(state, goal), None
        self._env_steps += self._n_envs
        if self.learning:
            self._credit += self._per_round

    def _act(self) -> None:
        import torch

        if self.learning:
            self._action = self.module.explore(self._obs, self._env_steps)
        else:
            shape = self._pool.arrays.action.shape
            self._action = torch.rand(shape, generator=self._warm_up) * 2.0 - 1.0
        self._pool.send(self._action.numpy())

    def _sample(self) -> Any:
        index, relabelled = self._sampler.sample(self._storage, self._batch_size)
        batch = self._storage.get(index)
        for key, value in relabelled.items():
            batch.set(key, value)
        return batch


def _tensors(**arrays: Any) -> Entries:
    import torch

    return Entries({name: torch.from_numpy(array) for name, array in arrays.items()})


def _observation(state: Any, desired_goal: Any) -> Entries:
    return _tensors(state=state, desired_goal=desired_goal)


def bare_block(loop: BareLoop, rounds: int, module: Any) -> float:
    """Seconds per round of the bare loop; says so if its weights differ from the training's."""
    import torch

    while not loop.learning:  # the first time: the rounds of uniform actions
        loop.round()
    loop.settle()
    seconds = loop.block(rounds)
    ours, theirs = module.state_dict(), loop.module.state_dict()
    same = all(torch.equal(value, theirs[name]) for name, value in ours.items())
    counts = f"{module.grad_updates} and {loop.module.grad_updates} updates"
    say(f"weights after {counts}: {'equal, bit for bit' if same else 'NOT EQUAL'}")
    return seconds / rounds


def bench(quick: bool) -> None:
    """Print the row."""
    turns = measure(*((100, 7) if quick else (250, 21)))
    ratio = statistics.median(ratios(turns.ours, turns.theirs)) - 1
    value, reference = statistics.median(turns.ours), statistics.median(turns.theirs)
    print_row("framework_share", value, reference, ratio, TARGET, ratio <= TARGET)


def measure(rounds: int, repetitions: int, *overrides: str) -> Turns:
    """Seconds per round of both, in blocks of ``rounds``."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        cfg = compose(EXPERIMENT, *overrides, f"total_env_steps={BARE_ENV_STEPS}")
        loop = BareLoop(cfg, Path(folder) / "bare")
        turns = Turns(
            rounds,
            repetitions,
            partial(bare_block, loop, rounds),
            lambda seconds: seconds / rounds,
            "s a round",
        )
        try:
            turns.run(EXPERIMENT, Path(folder) / "run", *overrides)
        finally:
            loop.close()
    return turns


if __name__ == "__main__":
    main(__doc__, bench)
