"""Work that goes on in a thread while its results are used."""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], depth: int) -> Generator[Item, None, None]:
    """Makes items in a thread of its own, at most so many ahead of the one that is asked for.

    Closing it ends the thread, after the item that is being made, and closes ``items`` there.

    Args:
        items: used in that thread alone.
        depth: items that wait, at least 1.

    Yields:
        The items in order; what ``items`` raises is raised after those made before.
    """
    ready: queue.SimpleQueue[tuple[list[Item], BaseException | None]] = queue.SimpleQueue()
    room, stopped = threading.Semaphore(depth), threading.Event()

    def make() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                ready.put(([item], None))
                room.acquire()
                if stopped.is_set():
                    break
        except BaseException as raised:
            error = raised
        if isinstance(items, Generator):
            with contextlib.suppress(Exception):
                items.close()
        ready.put(([], error))

    maker = threading.Thread(target=make, name="ahead", daemon=True)
    maker.start()
    try:
        while True:
            made, error = ready.get()
            if error is not None:
                raise error
            if not made:
                return
            room.release()
            yield made[0]
    finally:
        stopped.set()
        room.release()
        maker.join()
