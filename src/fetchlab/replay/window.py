"""Which transitions can be sampled: the finished episodes in each environment's window.

Everything here lives in memory and is O(1) per stored transition, so that drawing a batch never
depends on how much is stored. Per environment there is

* a table of episodes, itself a ring, with the columns below;
* a ring that maps each transition to its episode's place in that table.

Transitions of finished episodes are numbered per environment 0, 1, 2, ... without end. Number ``j``
of environment ``i`` has the *index* ``i * C + j % C`` with ``C = window_steps``; at most ``C`` are
in the window, so an index names one of them.

Below it: which rows the two newest checkpoints need, and how far the ring may still be written.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fetchlab.replay.layout import Layout
from fetchlab.replay.mirror import Mirrored, push

# Of an episode: first physical row of its environment's ring, absolute row of its first
# observation, number of its first transition, and how many it has.
_RING, _START, _FIRST, _LENGTH = range(4)


class Places(NamedTuple):
    """Where sampled transitions lie; all (B,) int64."""

    ring: Tensor  # first physical row of the environment's ring
    start: Tensor  # absolute row of the episode's first observation
    t: Tensor  # time within the episode, in [0, length - 1]
    length: Tensor  # transitions of the episode


class EpisodeRows(NamedTuple):
    """Where episodes lie, those of one environment oldest first; all (K,) int64."""

    env: np.ndarray
    start: np.ndarray
    length: np.ndarray
    checksum: np.ndarray

    @classmethod
    def none(cls) -> EpisodeRows:
        """No episode."""
        return cls(*np.zeros((4, 0), np.int64))

    def named(self, prefix: str) -> dict[str, np.ndarray]:
        """As entries of a state: ``<prefix>_env`` and so on."""
        return {f"{prefix}_{name}": part for name, part in self._asdict().items()}

    @classmethod
    def of(cls, prefix: str, state: dict[str, np.ndarray]) -> EpisodeRows:
        """What `named` put into a state."""
        return cls(*(state[f"{prefix}_{name}"] for name in cls._fields))

    def only(self, chosen: np.ndarray) -> EpisodeRows:
        """Those that the mask (K,) bool chooses."""
        return EpisodeRows(*(part[chosen] for part in self))


class EpisodeWindow:
    """The episode index of the rings; transitions are drawn and located on ``device``."""

    def __init__(self, layout: Layout, device: torch.device) -> None:
        self._device, self._n_envs = device, layout.n_envs
        n, self._steps, self._max_rows = layout.n_envs, layout.window_steps, layout.window_rows
        # An episode takes at least two rows, so the window never holds more than this.
        self._slots = layout.window_rows // 2 + 1
        self._table = _zeros(device, n * self._slots, 4)
        self._table.host[:, _RING] = np.repeat(np.arange(n) * layout.rows, self._slots)
        self._table.push_all()
        self._checksums = np.zeros(n * self._slots, np.int64)
        self._episode_of = _zeros(device, n * self._steps)
        # Per environment: numbers of the oldest episode and transition, and how many there are.
        self._oldest = np.zeros(n, np.int64)
        self._episodes = np.zeros(n, np.int64)
        self.oldest_transitions = np.zeros(n, np.int64)
        self._transitions = np.zeros(n, np.int64)
        # To draw: cumulative counts, and what turns a drawn number into an index.
        self._ends, self._shift = _zeros(device, n), _zeros(device, n)
        self.total = 0
        # Of the two tables above, since they were last read: what the device lacks.
        self._new_slots: list[int] = []
        self._new_numbers: list[np.ndarray] = []
        self._last: tuple[Tensor, Places] | None = None

    def append(self, env: int, start: int, length: int, checksum: int) -> None:
        """Add a finished episode and evict the oldest ones it has no room with."""
        # This bounds the transitions too: more than C of them, in episodes of at most L, would lie
        # in at least ceil(C / L) episodes, so take more than C + ceil(C / L) = window_rows rows.
        while self._episodes[env]:
            oldest = self._table.host[env * self._slots + self._oldest[env] % self._slots]
            if start + length + 1 - oldest[_START] <= self._max_rows:
                break
            self._oldest[env] += 1
            self._episodes[env] -= 1
            self.oldest_transitions[env] += oldest[_LENGTH]
            self._transitions[env] -= oldest[_LENGTH]
        slot = env * self._slots + (self._oldest[env] + self._episodes[env]) % self._slots
        first = self.oldest_transitions[env] + self._transitions[env]
        self._table.host[slot, _START:] = start, first, length
        self._checksums[slot] = checksum
        self._last = None
        numbers = env * self._steps + np.arange(first, first + length) % self._steps
        self._episode_of.host[numbers] = slot
        if self._table.copied:
            self._new_slots.append(slot)
            self._new_numbers.append(numbers)
        self._episodes[env] += 1
        self._transitions[env] += length
        self._recount()

    def _recount(self) -> None:
        ends, shift = self._ends.host, self._shift.host
        np.cumsum(self._transitions, out=ends)
        np.subtract(ends, self._transitions, out=shift)
        np.subtract(self.oldest_transitions, shift, out=shift)
        self.total = int(ends[-1])

    def _push(self) -> None:
        """Push the episodes that were appended: in lockstep all environments end in one round."""
        if not self._new_slots:
            return
        push(np.array(self._new_slots), self._table)
        push(np.concatenate(self._new_numbers), self._episode_of)
        push(np.arange(self._n_envs), self._ends, self._shift)
        self._new_slots, self._new_numbers = [], []

    def first_rows(self, otherwise: np.ndarray) -> np.ndarray:
        """Absolute row (N,) of each environment's oldest episode, or ``otherwise`` without one."""
        oldest = np.arange(self._n_envs) * self._slots + self._oldest % self._slots
        return np.where(self._episodes > 0, self._table.host[oldest, _START], otherwise)

    def draw(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Indices (n,) int64 of transitions, each stored one equally likely, with replacement."""
        self._push()
        # 63 random bits: with 1M transitions the remainder favours none by more than 1e-12.
        drawn = torch.empty(n, dtype=torch.int64, device=self._device)
        drawn.random_(generator=generator)
        drawn.remainder_(self.total)
        # Counting is a binary search over few environments. `torch.searchsorted` starts threads
        # from 200 values on, and waits for them while the simulators hold the cores.
        env = (drawn[:, None] >= self._ends.tensor).sum(1)
        drawn += self._shift.tensor.index_select(0, env)
        return drawn.remainder_(self._steps).add_(env.mul_(self._steps))

    def locate(self, index: Tensor) -> Places:
        """Ring, episode and time of the transitions ``index`` (B,) int64."""
        if self._last is not None and self._last[0] is index:
            return self._last[1]  # the sampler asks first, the storage a moment later
        self._push()
        rows = self._table.tensor.index_select(0, self._episode_of.tensor.index_select(0, index))
        ring, start, first, length = rows.unbind(1)
        # index = i * C + j % C and t = j - first < C, so t = (index - first) mod C.
        places = Places(ring, start, index.sub(first).remainder_(self._steps), length)
        self._last = (index, places)
        return places

    def episodes(self) -> EpisodeRows:
        """All finished episodes in the window."""
        env = np.repeat(np.arange(self._n_envs), self._episodes)
        nth = np.concatenate([np.arange(count) for count in self._episodes])
        slot = env * self._slots + (self._oldest[env] + nth) % self._slots
        start, length = self._table.host[slot][:, [_START, _LENGTH]].T
        return EpisodeRows(env, start, length, self._checksums[slot])

    def restore(self, episodes: EpisodeRows, oldest_transitions: np.ndarray) -> None:
        """Hold exactly these episodes, as `episodes` and `oldest_transitions` had them."""
        self._last = None
        self._oldest[:] = 0
        self._episodes[:] = 0
        self._transitions[:] = 0
        self.oldest_transitions[:] = oldest_transitions
        self._recount()
        for env, start, length, checksum in zip(*(part.tolist() for part in episodes), strict=True):
            self.append(env, start, length, checksum)


class Commit(NamedTuple):
    """What one checkpoint can sample, or continue: rows ``start .. cursor``; both (N,) int64."""

    start: np.ndarray
    cursor: np.ndarray


class CommittedRows:
    """Keeps a checkpoint's rows from being overwritten while it is one of the two newest.

    ``limit`` (N,) int64 is the first absolute row that may not be written yet.
    """

    def __init__(self, n_envs: int, rows: int) -> None:
        self._rows = rows
        self._commits: list[Commit] = []
        self._taken: Commit | None = None
        self.newest: Commit | None = None  # of the durable ones, and the one before it
        self.previous: Commit | None = None
        self.limit = np.full(n_envs, np.iinfo(np.int64).max)

    def take(self, commit: Commit) -> None:
        """A state was handed out for a checkpoint that is not durable yet."""
        self._taken = commit

    def committed(self) -> None:
        """The state handed out last is durable now; the oldest of three loses its protection."""
        if self._taken is None:
            raise RuntimeError("committed() without state_dict(): save the state first")
        self.restore([*self._commits, self._taken])

    def replace(self) -> None:
        """The next checkpoint takes the place of the newest, and needs the same rows."""
        self.restore(self._commits[:-1])

    def restore(self, commits: list[Commit]) -> None:
        """Protect the two newest of ``commits``, oldest first."""
        self._commits = commits[-2:]
        self.previous, self._taken = [None, None, *commits][-2:]
        self.newest = self._taken
        # Writing absolute row a destroys row a - rows: all below start + rows are free to write.
        self.limit.fill(np.iinfo(np.int64).max)
        for commit in self._commits:
            np.minimum(self.limit, commit.start + self._rows, out=self.limit)


def _zeros(device: torch.device, *size: int) -> Mirrored:
    """int64 numbers that numpy writes, small things fast, and torch reads to sample."""
    mirrored = Mirrored(np.zeros(size, np.int64), device)
    mirrored.push_all()
    return mirrored
