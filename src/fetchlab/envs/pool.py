"""A pool of simulator workers, the parent's side: start, send, receive, fail loudly, leave nothing.

Any failure (an exception in a worker, its death, a timeout) kills all workers before `WorkerError`
is raised: what the survivors hold belongs to no common time step. No torch here.
"""

from __future__ import annotations

import os
import select
import weakref
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np

from fetchlab.entries import EnvSpec
from fetchlab.envs import worker as remote
from fetchlab.envs.link import BrokenLinkError, WorkerLink, shut_down
from fetchlab.envs.shared import SharedArrays
from fetchlab.envs.spec import TaskSpec
from fetchlab.errors import NonFiniteError, require
from fetchlab.patience import SLICES

_START_TIMEOUT_S, _CLOSE_GRACE_S = 120.0, 2.0  # a start may import from a cold, busy disk


class WorkerError(RuntimeError):
    """A simulator worker failed; every worker of its pool has been killed.

    The message names the environment it was at, the 1-based step of its episode (0 is the reset),
    and the seed of that environment's last seeded reset.
    """


class WorkerPool:
    """N environments, stepped together by worker processes that each hold a contiguous share.

    ``arrays`` (`SharedArrays`) are views on memory that the workers write: valid from `reset` or
    `receive` until the next `send`, so copy what must last. An outstanding step must be received
    before anything else but `close`: discarding it would silently drop a transition.

    Args:
        task: the environment.
        env_spec: what it yields.
        n_envs: number of environments N, >= 1; need not be a multiple of ``workers``.
        workers: number of processes, in [1, n_envs]; one per core is best.
        timeout_s: a worker that has not answered after this many seconds, those in which this
            process was suspended left out, counts as hung, > 0.

    Raises:
        ConfigError: more workers than environments.
        WorkerError: a worker fails. Every method but `close` raises it too, and RuntimeError when
            the pool is closed or, `receive` apart, while a step is outstanding.
    """

    def __init__(
        self, task: TaskSpec, env_spec: EnvSpec, n_envs: int, workers: int, timeout_s: float
    ) -> None:
        fits = f"at most n_envs={n_envs}"
        require(workers <= n_envs, "workers", workers, fits, "lower workers or raise n_envs")
        self.n_envs, self.timeout_s, self.outstanding = n_envs, timeout_s, False
        bounds = [n_envs * i // workers for i in range(workers + 1)]
        self._shares = [range(a, b) for a, b in pairwise(bounds)]
        self._pending: set[int] = set()  # workers that owe an answer
        self._built = False
        self._links: list[WorkerLink] = []
        # At most once: by `close`, at garbage collection or at exit.
        self._close = weakref.finalize(self, shut_down, self._links, _CLOSE_GRACE_S, os.getpid())
        memory = os.memfd_create("fetchlab")  # without a name, gone with its last user
        try:
            self._start(task, env_spec, memory)
        except BaseException:
            self._kill()
            raise
        finally:
            os.close(memory)  # the mappings keep it alive

    def _start(self, task: TaskSpec, env_spec: EnvSpec, memory: int) -> None:
        frame = None if task.pixels is None else task.pixels.shape
        shape = (self.n_envs, len(self._shares), env_spec, frame)
        self.arrays = SharedArrays(memory, *shape)
        self.arrays.seed[:] = self.arrays.episode[:] = -1
        self._poll = select.poll()
        self._index: dict[int, int] = {}
        for index, share in enumerate(self._shares):
            link = WorkerLink(index, memory, task.pixels is not None, self.timeout_s)
            self._links.append(link)
            self._index[link.sock.fileno()] = index
            self._poll.register(link.sock, select.POLLIN)
            self._send(index, remote.BUILD, (task, env_spec, shape, index, share))
        self._gather(_START_TIMEOUT_S)
        self._built = True

    def reset(self, seeds: Sequence[int] | None) -> None:
        """Begin new episodes: a seed in [0, 2**63) each; None goes on with their random streams."""
        self._require_settled("reset")
        if seeds is not None:
            seeds = [int(seed) for seed in seeds]
            ok = len(seeds) == self.n_envs and all(0 <= seed < 2**63 for seed in seeds)
            require(ok, "seeds", seeds, f"{self.n_envs} integers in [0, 2**63)", "one per env")
        self._request(remote.RESET, [seeds] * len(self._shares))

    def send(self, action: np.ndarray) -> None:
        """Start one step of every environment and return at once.

        Args:
            action: (N, A) float32; the environment clips it to [-1, 1].

        Raises:
            ValueError: it has another shape, or is not finite (MuJoCo would silently reset itself);
                nothing was sent.
        """
        self._require_settled("send")
        arrays = self.arrays
        if action.shape != arrays.action.shape:
            raise ValueError(f"action of shape {action.shape}: expected {arrays.action.shape}")
        if not np.isfinite(action).all():
            env = int(np.flatnonzero(~np.isfinite(action).all(axis=1))[0])
            raise NonFiniteError(
                f"action of env {env} is not finite: {action[env].tolist()} (step "
                f"{int(arrays.step[env, 0]) + 1} of its episode, seed {int(arrays.seed[env, 0])})"
            )
        arrays.action[:] = action
        self.outstanding = True
        for index in range(len(self._links)):
            self._send(index, remote.STEP, None)

    def receive(self) -> None:
        """Wait for the step that `send` started; ``arrays`` has the results."""
        self._require_open()
        if not self.outstanding:
            raise RuntimeError("receive() without an outstanding step: call send() first")
        self._gather(self.timeout_s)
        self.outstanding = False

    def get_state(self) -> list[dict[str, Any]]:
        """Return each environment's exact state (numpy arrays, plain Python) and shared rows."""
        self._require_settled("get_state")
        shares = self._request(remote.GET_STATE, [None] * len(self._shares))
        return [state for share in shares for state in share]

    def set_state(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore what `get_state` returned, under any number of workers."""
        self._require_settled("set_state")
        ok = len(states) == self.n_envs
        require(ok, "states", len(states), f"{self.n_envs} states", "keep the number of envs")
        self._request(remote.SET_STATE, [[states[env] for env in share] for share in self._shares])

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers, in order; empty once closed."""
        return [link.process.pid for link in self._links]

    def close(self) -> None:
        """End the workers, those that linger by SIGKILL. Safe at any time, and twice."""
        self.outstanding = False
        self._close()

    def _require_open(self) -> None:
        if not self._links:
            raise RuntimeError("the worker pool is closed: build a new one")

    def _require_settled(self, call: str) -> None:
        self._require_open()
        if self._pending:
            raise RuntimeError(f"{call}() while a step is outstanding: call receive() first")

    def _request(self, tag: bytes, values: Sequence[object]) -> list[Any]:
        for index, value in enumerate(values):
            self._send(index, tag, value)
        return self._gather(self.timeout_s)

    def _send(self, index: int, tag: bytes, value: object) -> None:
        self._pending.add(index)
        try:
            self._links[index].send(tag, value)
        except BrokenLinkError as broken:
            self._fail(index, broken)

    def _gather(self, timeout_s: float) -> list[Any]:
        """Wait for every pending answer; return the values, None for a plain OK."""
        values: list[Any] = [None] * len(self._links)
        silent_slices = 0
        while self._pending:
            # All sockets, not only the pending ones: a death is seen whoever is being waited for.
            ready = self._poll.poll(timeout_s / SLICES * 1000)
            silent_slices += not ready
            if silent_slices == SLICES:
                silent = BrokenLinkError(f"did not answer within {timeout_s:g} s")
                self._fail(min(self._pending), silent)
            for descriptor, _ in ready:
                index = self._index[descriptor]
                try:
                    values[index] = self._links[index].answer()
                except BrokenLinkError as broken:
                    self._fail(index, broken)
                self._pending.discard(index)
        return values

    def _fail(self, index: int, broken: BrokenLinkError) -> NoReturn:
        """Kill every worker and raise `WorkerError` naming where worker ``index`` was."""
        pid, share, arrays = self._links[index].process.pid, self._shares[index], self.arrays
        where = f"building envs {share.start}..{share.stop - 1}"
        if self._built:
            env = arrays.current[index, 0]
            step, episode, seed = arrays.step[env, 0], arrays.episode[env, 0], arrays.seed[env, 0]
            seeded = f"seed {seed}" if seed >= 0 else "unseeded"
            where = f"at env {env}, step {step} of episode {episode}, {seeded}"
        self._kill()
        raise WorkerError(f"worker {index} (pid {pid}), {where}: {broken}") from None

    def _kill(self) -> None:
        for link in self._links:
            link.process.kill()
        self.close()
