"""Work that is done in a thread while its caller goes on."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from nakt_dist.runtime.processes import say


class Beside:
    """Does pieces of work in one thread, in the order they are given.

    After a piece that failed no other is done, and ``wait`` raises what it raised.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: ThreadPoolExecutor | None = None
        self._error: BaseException | None = None

    def add(self, work: Callable[[], object]) -> None:
        """Has a piece done; it may use nothing that its caller changes meanwhile."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, self._name)
        self._thread.submit(self._do, work)

    @property
    def has_failed(self) -> bool:
        """Whether a piece has failed by now; waits for none."""
        return self._error is not None

    def wait(self) -> None:
        """Returns when all pieces are done.

        Raises:
            BaseException: what the first piece that failed raised.
        """
        if self._thread is not None:
            self._thread.submit(lambda: None).result()
        if self._error is not None:
            raise self._error

    def close(self, error: BaseException | None) -> None:
        """Waits for all pieces and ends the thread; another piece begins a new one.

        Args:
            error: why the caller leaves, if it fails: what a piece raised is then only told,
                unless it is why.

        Raises:
            BaseException: as ``wait``, when the caller did not fail.
        """
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        if self._error is not None and error is None:
            raise self._error
        if self._error is not None and error is not self._error:
            say(f"besides, something could not be written: {self._error}")

    def _do(self, work: Callable[[], object]) -> None:
        if self._error is not None:
            return
        try:
            work()
        except BaseException as error:
            self._error = error
