"""The protocol by which any number of processes make one output together."""

import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import differing_fields
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import process_place
from nakt_dist.runtime.work import WorkLedger, hold_lock, ledger_folder

_PATIENCE_SECONDS = 1800

Result = TypeVar("Result")
Done = Generator[tuple[int, Mapping[str, Any]], None, None]
"""Pieces that are done, each with its receipt."""


class Job(ABC):
    """An output, and what decides it: the same command takes it up, another one is refused.

    Attributes:
        written_last: the file with which the output is complete.

    Args:
        output: its folder, which may be absent.
        identity: JSON-serialisable values that decide the result.
    """

    stage: ClassVar[str]
    written_last: ClassVar[str]

    def __init__(self, output: str, identity: Mapping[str, Any]) -> None:
        self.output = Path(output)
        self.identity = json.loads(json.dumps(identity))

    @abstractmethod
    def check(self) -> list[str]:
        """Looks whether the job could be begun or taken up, or is done, and writes nothing.

        Returns:
            What is worth knowing, a sentence each.

        Raises:
            DatasetError: the output is another's, finished or not.
        """


class SharedJob(Job, Generic[Result]):
    """An output that any number of processes make together, whoever started them.

    A process begins the job or takes it up, does the pieces that no other does, and puts all of
    them together where it finds them done.

    Attributes:
        others: what an output of other settings is, for the message.

    Args:
        output: as for ``Job``; the ledger lies in ``OUTPUT/.STAGE``.
    """

    others: ClassVar[str]

    def __init__(self, output: str, identity: Mapping[str, Any], pieces: int = 0) -> None:
        super().__init__(output, identity)
        self.ledger = WorkLedger(ledger_folder(self.output, self.stage), self.identity, pieces)

    @abstractmethod
    def read(self) -> tuple[Mapping[str, Any], Result]:
        """Reads an output that is complete: its identity, and its result."""

    def finished(self) -> Result | None:
        """Returns the result of the job; None until it is complete.

        Raises:
            DatasetError: the output is complete, of other settings.
        """
        if not (self.output / self.written_last).exists():
            return None
        identity, result = self.read()
        if identity != self.identity:
            raise self.refusal("; ".join(differing_fields(identity, self.identity)[:5]))
        return result

    def refusal(self, what: str) -> DatasetError:
        """The error of an output that is complete and another's; ``what`` says what differs."""
        return DatasetError(
            f"{self.output}: already holds {self.others} ({what}). "
            "Choose another --output, or delete the folder"
        )

    def check(self) -> list[str]:
        """Looks whether the job could be begun or taken up, or is done: see ``Job``."""
        check_output(self.output, self.stage)
        if self.finished() is None:
            self.ledger.check()
        return []

    def begin(self) -> Result | None:
        """Begins the job or takes it up; returns its result where it is complete.

        Raises:
            DatasetError: as ``check``.
        """
        check_output(self.output, self.stage)
        self.output.mkdir(parents=True, exist_ok=True)
        result = self.finished()
        if result is not None:
            if process_place().is_main:
                self.ledger.close()  # a kill may have left it
            return result
        self.ledger.open()
        result = self.finished()
        if result is not None:  # another process finished all while this one looked
            self.ledger.close()
        return result

    def work(self, do: Callable[[Iterator[int]], Done]) -> Iterator[int]:
        """Does this process's part of the pieces.

        Args:
            do: does pieces in order, and yields each with its receipt. It may take up the next
                ones before: what it has taken is kept from others.

        Yields:
            The number of each piece that is done.
        """
        place, held = process_place(), dict[int, contextlib.ExitStack]()

        def taken() -> Iterator[int]:
            for piece, lock in self.ledger.claims(place.rank, place.world_size):
                held[piece] = lock
                yield piece

        try:
            with contextlib.closing(do(taken())) as done:
                for piece, receipt in done:
                    self.ledger.finish(piece, receipt)
                    held.pop(piece).close()
                    yield piece
        except FileNotFoundError:
            # The ledger went while a piece was claimed: others have done it, and all is complete.
            if self.finished() is None:
                raise
        finally:
            for lock in held.values():
                lock.close()

    def finalise(self, put_together: Callable[[], Result]) -> Result | None:
        """Lets one process put the pieces together, once all of them are done.

        Args:
            put_together: writes ``written_last`` last of all.

        Returns:
            The result of the job; None where others still work on it.
        """
        if self.ledger.is_complete():
            with hold_lock(self.ledger.folder / "finalise.lock") as held:
                result = self.finished() if held else None
                if held and result is None:
                    result = put_together()
            if result is not None:
                self.ledger.close()  # NFS would keep the folder of a lock that is open
                return result
        return self.finished()

    def finalise_or_wait(self, put_together: Callable[[], Result]) -> Result:
        """As ``finalise``, and waits for the process that puts the pieces together.

        Where that one dies, this one does it.

        Raises:
            DatasetError: it takes longer than anybody should wait.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (result := self.finalise(put_together)) is None:
            if time.monotonic() > deadline:
                raise DatasetError(
                    f"{self.output}: another process has not put the pieces together for "
                    f"{_PATIENCE_SECONDS // 60} minutes. Stop it, and run the same command again"
                )
            time.sleep(1)
        return result
