"""Stop on request, at the next round boundary: Ctrl-C and what schedulers send only set a flag.

Enter it after Lightning has installed its own handlers (a callback's ``on_train_start``):
Lightning's SIGTERM handler would otherwise raise before the last checkpoint is committed.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

#: Schedulers announce the end of a job by SIGTERM or one of the two others, a terminal that is
#: closed or a connection that is lost by SIGHUP: the default of each ends a process at once.
STOP_SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
_EXIT_CODE_INTERRUPTED = 130
_NOTICE = b"\nstopping after this round; Ctrl-C again exits now, without a checkpoint\n"


class StopFlag:
    """A flag set by any of `STOP_SIGNALS`; a context manager.

    Only the main thread can listen to signals: entered in another one it stays what `request`
    makes of it. A SIGHUP that is ignored stays so: ``nohup`` asked for that.

    A second SIGINT ends the process at once with code 130, without any clean-up: the checkpoints
    on disk are whole at every moment.

    Attributes:
        stop: a stop was asked for.
        reason: name of the first signal that came, such as ``"SIGTERM"``, or what `request` was
            given; None before.
    """

    def __init__(self) -> None:
        self.stop = False
        self.reason: str | None = None
        self._interrupts = 0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        while self._previous:
            number, handler = self._previous.popitem()
            # None stands for a handler that Python did not install and cannot put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def request(self, reason: str) -> None:
        """Ask for a stop; the first reason stays."""
        self.stop = True
        self.reason = self.reason or reason

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            self._interrupts += 1
            if self._interrupts > 1:
                os._exit(_EXIT_CODE_INTERRUPTED)
            os.write(2, _NOTICE)
        self.request(signal.Signals(number).name)
