"""A simulator worker: one process that steps several environments into shared memory.

Parent and worker share one mapping (`SharedArrays`) and one socket pair. A round costs one byte
each way per worker: the parent writes the actions into the mapping and sends ``STEP``; the worker
steps its environments in order, writes what they return and answers ``OK``. An environment whose
episode ends is reset at once, so that its final *and* its next first observation come back
together. Everything rarer (reset, get_state, set_state) carries a pickled value; both ends of the
socket are our own processes.

A worker imports neither torch nor torchrl (half a GB and six seconds each). It inherits all signals
blocked (`WorkerLink`), ends when its socket closes, and dies with its parent by the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

from fetchlab.envs.shared import SharedArrays
from fetchlab.patience import patiently

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fetchlab.entries import EnvSpec
    from fetchlab.envs.fetch import FetchEnv
    from fetchlab.envs.goal_env import GoalEnv
    from fetchlab.envs.spec import TaskSpec

BUILD, RESET, STEP = b"b", b"r", b"s"
GET_STATE, SET_STATE = b"g", b"w"
OK, VALUE, ERROR = b"k", b"v", b"e"

_LENGTH = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1


class Worker:
    """Serves the parent's requests; ``memory`` is the file descriptor of the shared mapping."""

    def __init__(self, sock: socket.socket, memory: int) -> None:
        self._sock, self._memory = sock, memory
        self.envs: list[FetchEnv | GoalEnv] = []

    def serve(self) -> None:
        """Answer requests; return at the end of file. An exception answers the request it broke."""
        handlers: dict[bytes, Callable[[Any], Any]] = {
            BUILD: self._build,
            RESET: self._reset,
            GET_STATE: self._get_state,
            SET_STATE: self._set_state,
        }
        while request := self._sock.recv(1):
            try:
                if request == STEP:
                    self._step()
                    self._sock.sendall(OK)
                else:
                    send_value(self._sock, VALUE, handlers[request](receive_value(self._sock)))
            except ConnectionError:
                raise
            except Exception:
                send_value(self._sock, ERROR, traceback.format_exc())

    def _build(self, request: tuple[TaskSpec, EnvSpec, tuple[Any, ...], int, range]) -> None:
        from fetchlab.envs.goal_env import open_env  # here, so that a failing import is reported

        task, env_spec, shape, self._index, self._numbers = request
        self._arrays = SharedArrays(self._memory, *shape)
        for _ in self._numbers:
            self.envs.append(open_env(task, env_spec))

    def _each(self) -> Iterator[tuple[int, FetchEnv | GoalEnv]]:
        """Its environments in order, with their numbers; the parent sees which one it is at."""
        for number, env in zip(self._numbers, self.envs, strict=True):
            self._arrays.current[self._index] = number
            yield number, env

    def _reset(self, seeds: Sequence[int] | None) -> None:
        arrays = self._arrays
        for number, env in self._each():
            seed = None if seeds is None else seeds[number]
            if seed is None:
                arrays.episode[number] += 1
            else:
                arrays.seed[number] = seed
                arrays.episode[number] = 0
            arrays.step[number] = 0
            arrays.now.write(number, env.reset(seed))
            arrays.reward[number] = 0.0
            arrays.flags[number] = False

    def _step(self) -> None:
        arrays = self._arrays
        for number, env in self._each():
            arrays.step[number] += 1
            obs, reward, terminated, truncated, success = env.step(arrays.action[number])
            arrays.now.write(number, obs)
            arrays.reward[number] = reward
            done = terminated or truncated
            arrays.flags[number] = (terminated, truncated, done, success)
            if done:
                arrays.episode[number] += 1
                arrays.step[number] = 0
                arrays.first.write(number, env.reset())

    def _get_state(self, _: None) -> list[dict[str, Any]]:
        row = self._arrays.get_row
        return [{"simulator": env.get_state(), "row": row(number)} for number, env in self._each()]

    def _set_state(self, states: Sequence[dict[str, Any]]) -> None:
        for (number, env), state in zip(self._each(), states, strict=True):
            env.set_state(state["simulator"])
            self._arrays.set_row(number, state["row"])


def send_value(sock: socket.socket, tag: bytes, value: object) -> None:
    """Send ``tag`` (one byte), the length and the pickle of ``value``.

    It raises ConnectionError where the other end is gone, TimeoutError where it takes nothing.
    """
    payload = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    view = memoryview(tag + _LENGTH.pack(len(payload)) + payload)
    while view:
        view = view[patiently(partial(sock.send, view)) :]


def receive_value(sock: socket.socket) -> Any:
    """Receive what `send_value` sent, after its tag; it raises what that does."""
    (length,) = _LENGTH.unpack(_receive_exactly(sock, _LENGTH.size))
    return pickle.loads(_receive_exactly(sock, length))


def _receive_exactly(sock: socket.socket, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        count = patiently(partial(sock.recv_into, view))
        if not count:
            raise ConnectionResetError("the other end closed its socket")
        view = view[count:]
    return buffer


def main() -> None:
    """Run a worker; arguments: socket and memory descriptors, the parent's pid, die with it."""
    descriptor, memory, parent, die_with_parent = map(int, sys.argv[1:])
    if die_with_parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call
            os._exit(0)
    with socket.socket(fileno=descriptor) as sock:
        worker = Worker(sock, memory)
        with contextlib.suppress(ConnectionError):  # the parent is gone: nobody is left to tell
            worker.serve()
        for env in worker.envs:
            env.close()
    os._exit(0)  # skip the interpreter's teardown, in which OpenGL libraries may hang or crash
