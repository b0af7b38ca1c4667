"""Ends a job in which nothing happens any more, and says what every process was doing."""

import contextlib
import faulthandler
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from nakt_dist.runtime.processes import ProcessPlace

_PATIENCE_SECONDS = 5.0
_STACKS_NAME = ".stacks"
_REPORTED = "reported"


class Watchdog:
    """Watches one process of a job; all processes of the job have one.

    ``beat`` says that something was done. When nothing was for ``seconds``, the first process to
    notice calls the others; each writes its stack into a file, even one that hangs in native
    code, the first prints them all, and every process ends. So a job whose one rank hangs is
    over some seconds later, instead of never.

    Args:
        folder: on a disk that all processes share, such as the output.
        seconds: without a beat, after which the job counts as hung.
    """

    def __init__(self, folder: Path, place: ProcessPlace, seconds: float) -> None:
        self._folder = folder / _STACKS_NAME
        self._place = place
        self._seconds = seconds
        self._doing = "nothing yet"
        self._deadline = float("inf")
        self._slack, self._next_arming = min(1.0, seconds / 4), 0.0
        self._stream: TextIO
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._folder.mkdir(exist_ok=True)
        self._stream = self._stack_path(self._place.rank).open("w", encoding="utf-8")
        self._stream.write(f"{socket.gethostname()}, process {os.getpid()}\n")
        self._stream.flush()
        self.beat("starting")
        self._thread.start()
        return self

    def beat(self, doing: str) -> None:
        """Says what is about to be done, such as ``step 12``."""
        self._doing = doing
        self._deadline = time.monotonic() + self._seconds
        now = time.monotonic()
        if now >= self._next_arming:
            # A thread without Python: it writes even when this process never gives it its turn.
            # A new one each time, so not for each of many quick steps; it may be late instead.
            faulthandler.dump_traceback_later(self._seconds + self._slack, file=self._stream)
            self._next_arming = now + self._slack

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        faulthandler.cancel_dump_traceback_later()
        self._stream.close()
        self._stack_path(self._place.rank).unlink(missing_ok=True)
        if self._place.is_main:
            (self._folder / _REPORTED).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a peer still has its file there
            self._folder.rmdir()

    def _watch(self) -> None:
        poll = min(1.0, self._seconds / 4)
        while not self._stopped_for(poll):
            if (self._folder / _REPORTED).exists():
                self._follow()
            elif time.monotonic() >= self._deadline:
                self._lead()

    def _stopped_for(self, poll: float) -> bool:
        """Waits; says whether the work has ended. Time spent suspended does not count."""
        before = time.monotonic()
        ended = self._ended.wait(poll)
        suspended = time.monotonic() - before - poll
        if suspended > _PATIENCE_SECONDS:
            self._deadline += suspended
        return ended

    def _lead(self) -> None:
        """Reports, unless a peer already does, and ends this process whatever the disk says."""
        self._end_within(4 * _PATIENCE_SECONDS)
        try:
            (self._folder / _REPORTED).touch(exist_ok=False)
        except FileExistsError:
            return
        finally:
            time.sleep(_PATIENCE_SECONDS)  # for the stacks of the others
        stacks = [self._stack(rank) for rank in range(self._place.world_size)]
        print(describe_hang(self._seconds, self._doing, stacks), file=sys.stderr, flush=True)
        os._exit(1)

    def _follow(self) -> None:
        """Adds this process's stack to the report that a peer makes, and ends."""
        # The first process to end takes the launcher's other ones along: not before the report.
        self._end_within(2 * _PATIENCE_SECONDS)
        faulthandler.cancel_dump_traceback_later()
        if not self._stack(self._place.rank).partition("\n")[2]:
            faulthandler.dump_traceback(file=self._stream)
        time.sleep(4 * _PATIENCE_SECONDS)

    @staticmethod
    def _end_within(seconds: float) -> None:
        timer = threading.Timer(seconds, os._exit, (1,))
        timer.daemon = True
        timer.start()

    def _stack(self, rank: int) -> str:
        try:
            return self._stack_path(rank).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _stack_path(self, rank: int) -> Path:
        return self._folder / f"rank-{rank}.txt"


def clear_stacks(folder: Path) -> None:
    """Removes what the watchdogs of a killed job left; before any process of this one begins."""
    shutil.rmtree(folder / _STACKS_NAME, ignore_errors=True)


def describe_hang(seconds: float, doing: str, stacks: Sequence[str]) -> str:
    """Says what a hung job was doing.

    Args:
        seconds: without progress.
        doing: what the reporting process was about to do.
        stacks: of each rank: a line that says where it runs, and its stack; or less.
    """
    parts = [
        f"nakt: error: nothing happened for {seconds:g} s ({doing}); this job is ended. Its last "
        "checkpoint is whole: start the same command again to go on. Larger --watchdog_seconds "
        "give slow steps more time"
    ]
    for rank, stack in enumerate(stacks):
        where, _, frames = stack.partition("\n")
        if not where:
            parts.append(f"process {rank} has ended, or shares no disk with this one")
        elif not frames.strip():
            parts.append(f"process {rank} ({where}) wrote no stack: it is stopped, or ended")
        else:
            parts.append(f"process {rank} ({where}):\n{frames.rstrip()}")
    return "\n".join(parts)
