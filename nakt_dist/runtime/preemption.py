"""Signals that ask a job to leave: noticed at once, answered when its state is on disk."""

import os
import signal
import threading
from types import FrameType
from typing import Any

REQUEUE_EXIT_CODE = 75
"""What a process leaves with when the same command goes on later: EX_TEMPFAIL of sysexits.h."""

REQUEUE_ALONE_EXIT_CODE = 76
"""The same, of one process whose peers did not leave with it: whoever started them ends them."""

_LOADER_SECONDS = 60
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequests:
    """Notes SIGTERM and SIGUSR1 instead of dying of them, from ``listen`` to the end of ``with``.

    Before there is anything to save a process dies of them, which is sooner than any answer: it
    may be waiting for its peers where no Python runs.

    A scheduler sends them some minutes before it takes a node away, to every process of the
    job, loader processes included: those go on, so that the step they read for can end. Only a
    main thread can listen; elsewhere (a notebook's worker thread) nothing is noted.
    """

    def __init__(self) -> None:
        self.received = 0
        self._owner = os.getpid()
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
        if os.getpid() == self._owner:
            self.received = number
        else:  # a forked loader process before its own start
            shield_loader_process()


def ignore_stop_signals() -> None:
    """Lets the code say how this process ended: its peers' launcher may signal it once more."""
    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def shield_loader_process(*_: object) -> None:
    """Lets a loader process outlive SIGTERM for a while: its trainer still needs the next batch.

    It may come twice, from the scheduler and from the launcher. A minute after the first the
    process ends, so that a trainer that waits for its end does not do so for ever.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_later)


def _end_later(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_LOADER_SECONDS)
