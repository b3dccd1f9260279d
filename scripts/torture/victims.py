"""Real runs of `src/train.py` in forked processes, to be killed, stopped, starved and resumed.

The process that forks has imported torch, Lightning and Hydra, and has started no thread and no
OpenGL: a fork of it is a fresh command line, seconds earlier. A victim dies with its parent.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "src" / "train.py"
TIMEOUT_S = 900.0  # of anything: a machine may be busy, nothing here takes a twentieth of it
_POLL_S = 0.002
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


class Outcome(NamedTuple):
    """How a process ended: exit code (negative for a signal), what it printed, and how long."""

    rc: int
    text: str
    seconds: float

    @property
    def error(self) -> str:
        """The line that starts with ``error: ``, or an empty one."""
        return next((line for line in self.text.splitlines() if line.startswith("error: ")), "")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Victim:
    """`python src/train.py <args>`, running.

    Args:
        args: of the command line.
        log: file of its standard output and error.
        fault: run in the new process before the command; patches what it wants to break.
        environment: added to the environment variables.
    """

    def __init__(
        self,
        args: list[str],
        log: Path,
        fault: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log, self._began = log, time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(args, log, fault, environment or {})

    def signal(self, number: int) -> None:
        """Send a signal to the run, not to its workers."""
        os.kill(self.pid, number)

    def kill(self) -> Outcome:
        """``kill -9``, and wait until it is dead."""
        self.signal(signal.SIGKILL)
        return self.wait()

    def wait(self, timeout_s: float = TIMEOUT_S) -> Outcome:
        """Wait for the end of it; a run that does not end is killed and an error."""
        deadline = time.monotonic() + timeout_s
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                self.signal(signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"no end within {timeout_s:g} s:\n{self.text()}")
            time.sleep(_POLL_S)
        seconds = time.monotonic() - self._began
        return Outcome(os.waitstatus_to_exitcode(status), self.text(), seconds)

    def wait_for(self, happened: Callable[[], bool]) -> float:
        """Wait for something to be true while it runs; seconds since its start.

        Raises:
            RuntimeError: it ended before.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while not happened():
            if self.ended() and not happened():
                raise RuntimeError(f"the run ended too early:\n{self.text()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not happen:\n{self.text()}")
            time.sleep(_POLL_S)
        return time.monotonic() - self._began

    def ended(self) -> bool:
        """Whether it is dead, and waits for `wait`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def workers(self) -> list[int]:
        """Process ids of its simulator workers, oldest first."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


def _become(
    args: list[str], log: Path, fault: Callable[[], None] | None, environment: Mapping[str, str]
) -> NoReturn:
    code = 1
    try:
        die_with_parent()
        os.setsid()
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for stream in (1, 2):
            os.dup2(output, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` has it ignored
        os.environ.update(environment)
        tempfile.tempdir = None
        os.chdir(ROOT)
        sys.argv = [str(TRAIN), *args]
        if fault is not None:
            fault()
        runpy.run_path(str(TRAIN), run_name="__main__")
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone(pids: list[int], within_s: float = 10.0) -> bool:
    """Whether all these processes are dead soon."""
    deadline = time.monotonic() + within_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return not any(map(alive, pids))


def copy(source: Path, target: Path) -> Path:
    """A copy of a run's folder at ``target``, replacing what is there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)
    return target
