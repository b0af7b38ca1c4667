"""Signals that ask a job to leave: noticed at once, answered when its state is on disk."""

import signal
import threading
from types import FrameType
from typing import Any

REQUEUE_EXIT_CODE = 75
"""What a process leaves with when the same command goes on later: EX_TEMPFAIL of sysexits.h."""

REQUEUE_ALONE_EXIT_CODE = 76
"""The same, of one process whose peers did not leave with it: whoever started them ends them."""

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequests:
    """Notes SIGTERM and SIGUSR1 instead of dying of them, from ``listen`` to the end of ``with``.

    Before there is anything to save a process dies of them, which is sooner than any answer: it
    may be waiting for its peers where no Python runs.

    A scheduler sends them some minutes before it takes a node away, to every process of the
    job. Only a main thread can listen; elsewhere (a notebook's worker thread) nothing is noted.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """The signal's name, such as ``SIGTERM``; empty when there was none."""
        return signal.Signals(self.received).name if self.received else ""

    def __enter__(self) -> "StopRequests":
        return self

    def listen(self) -> None:
        """Begins to note signals; does nothing where it does already."""
        if not self._before and threading.current_thread() is threading.main_thread():
            self._before = {each: signal.signal(each, self._note) for each in _SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler or signal.SIG_DFL)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number


def ignore_stop_signals() -> None:
    """Lets the code say how this process ended: its peers' launcher may signal it once more."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
