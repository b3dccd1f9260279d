"""One simulator worker as its parent sees it: a process to start and end, a socket to talk through.

A worker is a fresh interpreter that runs `fetchlab.envs.worker.main`, not a `multiprocessing`
process: a fork would copy OpenGL contexts and threads, and ``spawn`` would run the caller's
``__main__`` again (with Lightning and Hydra in it, six seconds per worker).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from fetchlab.envs import worker as remote
from fetchlab.patience import SLICES, patiently

_BOOT = "from fetchlab.envs.worker import main; main()"
# One simulator is one thread; a maths library that starts one per core only gets in its way, and so
# does Mesa's software renderer: beside a busy core a small frame waited 7 ms for such a thread.
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "NUMEXPR_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",  # 0: none beside the caller's
}


class BrokenLinkError(Exception):
    """The worker is gone, silent, or answered with an exception; the message says which."""


class WorkerLink:
    """Starts a worker; `send` and `answer` raise `BrokenLinkError`.

    Args:
        index: of the worker, from 0; where several GPUs render, it takes that one in turn.
        memory: file descriptor of the shared mapping, which the worker inherits.
        renders: whether its environments have a camera.
        timeout_s: a message may stop halfway for this many seconds.
    """

    def __init__(self, index: int, memory: int, renders: bool, timeout_s: float) -> None:
        self.sock, theirs = socket.socketpair()
        self._silence = f"for {timeout_s:g} s"
        self.sock.settimeout(timeout_s / SLICES)
        environment = os.environ | _ONE_THREAD
        if not renders:
            environment["MUJOCO_GL"] = "disabled"  # needs no OpenGL library: see `without_gl`
        if devices := os.environ.get("FETCHLAB_EGL_DEVICES"):  # `fetchlab.preflight.renderer`
            numbers = devices.split(",")
            environment.setdefault("MUJOCO_EGL_DEVICE_ID", numbers[index % len(numbers)])
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        # The kernel's death signal follows the *thread* that started a process: only the main one
        # lives as long as the program. (The end of file on the socket covers the rest.)
        with_parent = int(threading.current_thread() is threading.main_thread())
        arguments = (theirs.fileno(), memory, os.getpid(), with_parent)
        # Terminals, `timeout` and schedulers signal the whole process group, and the parent still
        # has a round to finish: the child inherits this mask, from its first instruction on. It
        # holds every signal that can be blocked: a worker ends with its parent, or by SIGKILL.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, *map(str, arguments)],
                pass_fds=(theirs.fileno(), memory),
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            theirs.close()

    def send(self, tag: bytes, value: object) -> None:
        """Send a request; `STEP` goes without its value."""
        try:
            if tag == remote.STEP:
                self.sock.send(tag)
            else:
                remote.send_value(self.sock, tag, value)
        except ConnectionError:
            raise self._gone() from None
        except TimeoutError:
            raise BrokenLinkError(f"took no request {self._silence}") from None

    def answer(self) -> Any:
        """Read one answer, which has begun to arrive: a value, None for a plain OK."""
        try:
            tag = self.sock.recv(1)
            if tag == remote.OK:
                return None
            if not tag:
                raise self._gone()
            value = remote.receive_value(self.sock)
        except ConnectionError:
            raise self._gone() from None
        except TimeoutError:
            raise BrokenLinkError(f"stopped in an answer {self._silence}") from None
        if tag == remote.ERROR:
            raise BrokenLinkError(f"raised {value.splitlines()[-1]}\n{value}")
        return value

    def _gone(self) -> BrokenLinkError:
        try:
            code = patiently(partial(self.process.wait, timeout=1.0 / SLICES))
        except subprocess.TimeoutExpired:
            return BrokenLinkError("closed its socket")
        if code >= 0:
            return BrokenLinkError(f"exited with status {code}")
        hint = " (by the kernel, if memory ran out)" if -code == signal.SIGKILL else ""
        return BrokenLinkError(f"was killed by {signal.Signals(-code).name}{hint}")


def shut_down(links: list[WorkerLink], grace_s: float, owner: int) -> None:
    """End and reap all workers, and empty the list.

    Closing the sockets asks them to leave; SIGKILL (they block SIGTERM), which also ends a stopped
    process, takes those that have not left after ``grace_s``: they have nothing to lose.
    A forked child of ``owner``, the process that started them, leaves them alone.
    """
    if os.getpid() != owner:
        return
    for link in links:
        link.sock.close()
    deadline = time.monotonic() + grace_s
    for link in links:
        try:
            link.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            link.process.kill()
            link.process.wait()
    links.clear()
