"""The worker processes of ``nakt pack``, and how several packings share pieces."""

import contextlib
import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any

from nakt_dist.errors import ConfigurationError, DatasetError, NaktError
from nakt_dist.runtime.imports import keep_imports, large_imports
from nakt_dist.runtime.processes import own_cores, process_place
from nakt_dist.runtime.work import WorkLedger

_PATIENCE_SECONDS = 600
_PAUSE_SECONDS = 0.2
_GUARD = (
    "Each worker imports the script that calls pack: put the call below "
    "'if __name__ == \"__main__\":' there, or set workers=1"
)


class Workers:
    """Processes that serve one packing; one worker is the calling process itself.

    Args:
        count: of processes; None takes all cores, shared with the other packings of a launch
            on this machine.
    """

    def __init__(self, count: int | None) -> None:
        self._count = own_cores(count)
        self._pool: ProcessPoolExecutor | None = None
        self._begun: Event | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def complete(
        self,
        ledger: WorkLedger,
        unsound: Mapping[int, int | None],
        function: Callable[..., Any],
        arguments: Callable[[int], tuple],
    ) -> Iterator[int]:
        """Does pieces that no other process does, until all are done by whomever.

        A piece of a process that has died is done here. So is one of a process that hangs, after
        ten minutes in which nobody finished any: to do a piece twice is harmless.

        Args:
            unsound: the pieces to do, see ``WorkLedger.unsound``.
            function: does a piece; of a module, as it is sent to other processes by its name.
            arguments: of the function by the number of the piece.

        Yields:
            The number of each piece when it is done.

        Raises:
            NaktError: a worker was killed, or none could start.
            DatasetError: another process has ended the job.
        """
        place, left = process_place(), dict(unsound)
        order = sorted(left, key=lambda piece: ((piece - place.rank) % place.world_size, piece))
        stalled, claims = time.monotonic(), {}

        def claimed() -> Iterator[tuple[int, tuple]]:
            by_force = time.monotonic() - stalled > _PATIENCE_SECONDS
            for piece in order:
                if piece in left and ledger.stamp(piece) == left[piece]:
                    claim = ledger.claim(piece, left[piece])
                    if claim is not None or by_force:
                        claims[piece] = claim or contextlib.ExitStack()
                        yield piece, arguments(piece)

        try:
            while left:
                before = len(left)
                for piece in self._run(function, claimed(), len(left) == 1):
                    claims.pop(piece).close()
                    del left[piece]
                    yield piece
                for piece in [each for each in left if ledger.stamp(each) != left[each]]:
                    del left[piece]
                    yield piece
                if len(left) < before:
                    stalled = time.monotonic()
                else:
                    ledger.folder.stat()  # gone, once another has ended the job
                    time.sleep(_PAUSE_SECONDS)
        except FileNotFoundError:
            if ledger.folder.is_dir():
                raise
            raise DatasetError(f"{ledger.folder}: another process has ended this job") from None
        finally:
            for claim in claims.values():
                claim.close()

    def _run(
        self, function: Callable[..., Any], tasks: Iterator[tuple[int, tuple]], is_last: bool
    ) -> Iterator[int]:
        """Calls a function for every task, asking for the next one when a worker is free.

        Where ``is_last``, there is one task at most, for which no process need be started.

        Yields:
            The number of each task when it is done, in any order.
        """
        if self._count == 1 or (is_last and self._pool is None):
            for number, task in tasks:
                function(*task)
                yield number
            return
        futures: dict[Future, int] = {}
        try:
            for number, task in tasks:
                # First, as its tracker of semaphores would let interrupts through.
                pool = self._opened(function)
                with _interrupts_later():  # workers inherit that: Ctrl-C is the main process's
                    futures[pool.submit(function, *task)] = number
                if len(futures) == self._count:
                    yield from _ended(futures)
            while futures:
                yield from _ended(futures)
        except BrokenProcessPool:
            if self._begun is None or not self._begun.is_set():
                raise NaktError(
                    "pack: its worker processes ended while they started. If one was killed, run "
                    f"the same command again. {_GUARD}"
                ) from None
            raise NaktError(
                "pack: a worker process was killed, often for want of memory. Finished shards "
                "are kept: run the same command again, with fewer --workers if memory is short"
            ) from None

    def _opened(self, function: Callable[..., Any]) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # forking with threads can hang
            self._begun = context.Event()
            first = (self._begun, function.__module__)
            self._pool = ProcessPoolExecutor(self._count, context, _begin_worker, first)
        return self._pool


def _ended(futures: dict[Future, int]) -> Iterator[int]:
    """Waits until a task ends; yields the numbers of those that have."""
    for future in wait(futures, return_when=FIRST_COMPLETED).done:
        future.result()
        yield futures.pop(future)


def refuse_import_by_worker() -> None:
    """Refuses to pack in a worker that is only importing the script which started it.

    Raises:
        ConfigurationError: the script packs whenever it is imported.
    """
    # What multiprocessing itself asks before it lets a process start others.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigurationError(f"pack was called while a worker process starts. {_GUARD}")


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Holds interrupts back, from the processes that are started for good.

    To ignore them instead, as this process starts others, would be to lose them.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin_worker(begun: Event, module: str) -> None:
    """Says that a worker runs, and ends it when the main process is gone, however that went.

    Args:
        module: what it will do is there; garbage is not looked for in what comes with it.
    """
    begun.set()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with large_imports():
        importlib.import_module(module)
    keep_imports()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
