"""The worker processes of ``nakt pack``."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import Any

from nakt_dist.errors import ConfigurationError, NaktError

_GUARD = (
    "Each worker imports the script that calls pack: put the call below "
    "'if __name__ == \"__main__\":' there, or set workers=1"
)


class Workers:
    """Processes that serve one packing; one worker is the calling process itself.

    Args:
        count: of processes; None takes all cores.
    """

    def __init__(self, count: int | None) -> None:
        self._count = count or len(os.sched_getaffinity(0))
        self._pool: ProcessPoolExecutor | None = None
        self._begun: Event | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, function: Callable[..., Any], tasks: Mapping[int, tuple]) -> Iterator[int]:
        """Calls a function for every task.

        Args:
            function: of a module, as it is sent to other processes by its name.
            tasks: arguments by number.

        Yields:
            The number of each task when it is done, in any order.

        Raises:
            NaktError: a worker was killed, or none could start.
        """
        if self._count == 1 or (len(tasks) == 1 and self._pool is None):
            for number, task in tasks.items():
                function(*task)
                yield number
            return
        pool = self._opened()
        try:
            with _interrupts_ignored():  # workers inherit it: Ctrl-C is the main process's
                futures = {pool.submit(function, *task): n for n, task in tasks.items()}
            for future in as_completed(futures):
                future.result()
                yield futures.pop(future)
        except BrokenProcessPool:
            if not self._begun.is_set():
                raise NaktError(
                    "pack: its worker processes ended while they started. If one was killed, run "
                    f"the same command again. {_GUARD}"
                ) from None
            raise NaktError(
                "pack: a worker process was killed, often for want of memory. Finished shards "
                "are kept: run the same command again, with fewer --workers if memory is short"
            ) from None

    def _opened(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")  # forking with threads can hang
            self._begun = context.Event()
            self._pool = ProcessPoolExecutor(self._count, context, _begin_worker, (self._begun,))
        return self._pool


def refuse_import_by_worker() -> None:
    """Refuses to pack in a worker that is only importing the script which started it.

    Raises:
        ConfigurationError: the script packs whenever it is imported.
    """
    # What multiprocessing itself asks before it lets a process start others.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigurationError(f"pack was called while a worker process starts. {_GUARD}")


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set this, and only it is interrupted
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _begin_worker(begun: Event) -> None:
    """Says that a worker runs, and ends it when the main process is gone, however that went."""
    begun.set()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
