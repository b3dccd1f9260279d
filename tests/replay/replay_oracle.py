"""A brute-force replay: lists of episodes, and a simulation that feeds it and the real one."""

from __future__ import annotations

import io
from collections import deque
from typing import NamedTuple

import numpy as np
import torch
from tensordict import TensorDict

from fetchlab.replay.layout import ReplaySize, RowSpec
from fetchlab.replay.relabel import FutureRelabel
from fetchlab.replay.replay import HindsightReplay
from fetchlab.replay.sampler import HindsightSampler
from fetchlab.replay.storage import EpisodeStorage

LONGEST = 6
STATE_DIM, ACTION_DIM, FRAME = 9, 2, (3, 2, 2)


class Kind(NamedTuple):
    """What sort of goals an environment has."""

    state_dim: int
    goal_dim: int
    goal: slice | None  # of the state; None: achieved_goal is stored
    ends: bool  # whether reaching the goal ends an episode
    still: bool = False  # whether nothing moves in every other episode


SLICE = Kind(STATE_DIM, 3, slice(3, 6), ends=False)
KINDS = {
    "slice": SLICE,
    "stored": Kind(STATE_DIM, 2, None, ends=False),
    "fifteen": Kind(20, 15, slice(4, 19), ends=False),
    "ends": Kind(STATE_DIM, 3, slice(3, 6), ends=True),
    "stored_ends": Kind(STATE_DIM, 2, None, ends=True),
}
GOAL = SLICE.goal


def compute_reward(achieved, desired):
    return -(torch.linalg.vector_norm(achieved - desired, dim=-1) > 1e-6).float()


def compute_terminated(achieved, desired):
    return torch.linalg.vector_norm(achieved - desired, dim=-1) <= 1e-6


def open_replay(
    directory,
    *,
    n_envs=3,
    pixels=True,
    k=4,
    stack=3,
    seed=0,
    n_step=1,
    discount=0.9,
    kind=SLICE,
    **size,
):
    size = {"capacity": 90, "total_env_steps": 10_000, "margin_env_steps": 60, **size}
    frame = FRAME if pixels else None
    row = RowSpec(kind.state_dim, kind.goal_dim, ACTION_DIM, kind.goal is None, frame)
    size = ReplaySize(n_envs=n_envs, max_episode_steps=LONGEST, **size)
    relabel = k if callable(k) else FutureRelabel(k)
    terminated = compute_terminated if kind.ends else None
    return HindsightReplay(
        EpisodeStorage(directory, row, size, stack, torch.device("cpu"), n_step),
        HindsightSampler(relabel, compute_reward, terminated, kind.goal, discount),
        torch.Generator().manual_seed(seed),
    )


class Episode:
    """Everything one episode produced, in lists."""

    def __init__(self, env, number, rng, kind=SLICE):
        self.env, self.number, self.kind = env, number, kind
        self.length = int(rng.integers(1, LONGEST + 1))
        self.ends_terminated = bool(rng.random() < 0.5)
        self.reaches = bool(kind.ends and rng.random() < 0.5)
        self.states, self.frames, self.actions, self.goals = [], [], [], []
        self.achieved = []

    @property
    def still(self):
        """Whether it ends where it began, as far as goals can tell."""
        return self.kind.still and self.number % 2 == 0

    def observe(self, rng):
        state = rng.normal(size=self.kind.state_dim).astype(np.float32)
        state[:3] = self.env, self.number, len(self.states)
        if self.still and self.states:
            state[self.kind.goal] = self.achieved[0]
        self.states.append(state)
        apart = rng.normal(size=2).astype(np.float32) if self.kind.goal is None else None
        self.achieved.append(state[self.kind.goal] if apart is None else apart)
        if self.reaches and self.over:
            self.goals[-1] = self.achieved[-1]
        self.frames.append(rng.integers(0, 256, FRAME, dtype=np.uint8))

    def act(self, rng):
        self.actions.append(rng.uniform(-1, 1, ACTION_DIM).astype(np.float32))
        self.goals.append(rng.normal(size=self.kind.goal_dim).astype(np.float32))

    @property
    def over(self):
        return len(self.actions) == self.length

    @property
    def terminated(self):
        return self.over and (self.ends_terminated or self.reaches)

    def ends(self, t, goal):
        """Whether an episode with this goal had ended with transition t."""
        stored = t == self.length - 1 and (self.ends_terminated or self.reaches)
        if not self.kind.ends:
            return stored
        of_itself = stored and not np.array_equal(self.achieved[t + 1], self.goals[t])
        return of_itself or np.array_equal(self.achieved[t + 1], goal)


class Simulation:
    """N environments with random episodes; the window each should have is plain list work."""

    def __init__(self, n_envs, window_steps, window_rows, seed=0, fixed_length=None, kind=SLICE):
        self.rng, self.kind = np.random.default_rng(seed), kind
        self.steps, self.rows, self.fixed = window_steps, window_rows, fixed_length
        self.windows = [deque() for _ in range(n_envs)]
        self.count = 0
        self.open = [self._begin(env) for env in range(n_envs)]

    def _begin(self, env):
        episode = Episode(env, self.count, self.rng, self.kind)
        episode.length = self.fixed or episode.length
        self.count += 1
        episode.observe(self.rng)
        return episode

    def step(self, pixels=True):
        for episode in self.open:
            episode.act(self.rng)
            episode.observe(self.rng)

        def rows(values, dtype=None):
            return torch.from_numpy(np.stack(values).astype(dtype or values[0].dtype))

        over = np.array([[e.over] for e in self.open])
        terminated = np.array([[e.terminated] for e in self.open])
        root = {
            "state": rows([e.states[-2] for e in self.open]),
            "desired_goal": rows([e.goals[-1] for e in self.open]),
            "action": rows([e.actions[-1] for e in self.open]),
        }
        after = {
            "state": rows([e.states[-1] for e in self.open]),
            "terminated": torch.from_numpy(terminated),
            "truncated": torch.from_numpy(over & ~terminated),
        }
        if pixels:
            root["pixels"] = rows([e.frames[-2] for e in self.open])
            after["pixels"] = rows([e.frames[-1] for e in self.open])
        if self.kind.goal is None:
            root["achieved_goal"] = rows([e.achieved[-2] for e in self.open])
            after["achieved_goal"] = rows([e.achieved[-1] for e in self.open])
        n = len(self.open)
        for env, episode in enumerate(self.open):
            if episode.over:
                self._store(self.windows[env], episode)
                self.open[env] = self._begin(env)
        return TensorDict({**root, "next": TensorDict(after, [n])}, [n])

    def _store(self, window, episode):
        window.append(episode)
        while (
            sum(e.length for e in window) > self.steps
            or sum(e.length + 1 for e in window) > self.rows
        ):
            window.popleft()

    def snapshot(self):
        """The finished episodes that can be sampled now, by number."""
        return {e.number: e for window in self.windows for e in window}


def check_batch(batch, episodes, stack):
    """Every sampled transition against the lists; returns the goals' times, -1 for the own."""
    times = []
    for k in range(len(batch)):
        row = batch[k]
        env, number, t = (int(x) for x in row["state"][:3])
        episode = episodes[number]  # KeyError: sampled outside of the window
        assert episode.env == env
        assert t < episode.length, "a final row is never a transition's start"
        equal(row["state"], episode.states[t])
        equal(row["action"], episode.actions[t])
        equal(row["next", "state"], episode.states[t + 1])
        if "pixels" in batch:
            block = [episode.frames[max(0, i)] for i in range(t - stack + 1, t + 2)]
            equal(row["pixels"], np.stack(block))
        goal = row["desired_goal"].numpy()
        achieved = episode.achieved[t + 1]
        assert bool(row["next", "terminated"]) == episode.ends(t, goal)
        if episode.kind.goal is None:
            equal(row["achieved_goal"], episode.achieved[t])
            equal(row["next", "achieved_goal"], achieved)
        assert row["next", "reward"] == (0.0 if np.array_equal(achieved, goal) else -1.0)
        if np.array_equal(goal, episode.goals[t]):
            times.append(-1)
        else:
            later = [i for i in range(t + 1, episode.length + 1)]
            matches = [i for i in later if np.array_equal(episode.achieved[i], goal)]
            assert len(matches) == 1, "the goal is not one achieved later in this episode"
            times.append(matches[0])
    return times


def equal(tensor, array):
    np.testing.assert_array_equal(tensor.numpy(), array)


def filled(directory, steps=60, **options):
    replay = open_replay(directory, **options)
    layout = replay.storage.layout
    kind = options.get("kind", SLICE)
    sim = Simulation(layout.n_envs, layout.window_steps, layout.window_rows, kind=kind)
    for _ in range(steps):
        replay.extend(sim.step())
    return replay, sim


def saved(replay):
    """The state as a checkpoint holds it, committed."""
    text = io.BytesIO()
    torch.save(replay.state_dict(), text)
    replay.storage.flush()
    replay.storage.committed()
    return torch.load(io.BytesIO(text.getvalue()), weights_only=True)
