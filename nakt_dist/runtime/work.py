"""A job cut into numbered pieces whose progress lives on disk alone.

Processes that share nothing but a folder work through the pieces: each begins with its own
share, then helps with what is left. No process waits for another, so ranks may die, come
back, or be another number next time. A piece is finished when its receipt exists; a lock
that the system drops with its holder keeps two living processes from the same piece. On a
file system without locks a piece may be done twice, which is harmless: pieces are
deterministic and written atomically.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from nakt_dist.errors import DatasetError
from nakt_dist.runtime.files import (
    differing_fields,
    read_json,
    write_bytes,
    write_json,
    write_new_json,
)
from nakt_dist.runtime.processes import process_place

LOCK_NAME = ".lock"
COUNT_NAME = "pieces.json"
"""Says how many pieces there are, to those who watch."""

_IDENTITY_NAME = "identity.json"
_ATTEMPTS = 100
_PAUSE_SECONDS = 0.02
_NO_FILE = (errno.ELOOP, errno.ENXIO, errno.EISDIR)  # a link, a pipe, a folder
_HELD: set[IO[str]] = set()


def ledger_folder(output: Path, stage: str) -> Path:
    """Returns where the ledger of a stage's output is kept, until the output is whole."""
    return output / f".{stage}"


def is_unfinished(output: Path, stage: str) -> bool:
    """Says whether pieces of an output are left to be done or put together, by whomever.

    A process of several ends when it finds nothing more to do, whether or not others do.
    """
    # Not the folder: NFS keeps it for a while where a file in it was open when it was removed. And
    # not whether the file exists: NFS remembers that for a while, but looks when it is opened.
    path = ledger_folder(output, stage) / _IDENTITY_NAME
    with contextlib.suppress(OSError):
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        return True
    return False


class WorkLedger:
    """The pieces of one job and which of them are finished.

    Args:
        folder: where the ledger lives, such as ``OUTPUT/.teach``.
        identity: what the job is; a ledger of another job in the same folder is refused. Empty
            for a part of a job, which is not begun where the job's folder is gone.
        pieces: how many pieces there are, numbered from 0.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], pieces: int) -> None:
        self.folder = folder
        self.identity = dict(identity)
        self.pieces = pieces

    def open(self) -> None:
        """Begins the job, or takes up the one that is there.

        Raises:
            DatasetError: the folder holds an unfinished job of another identity, or is a link.
        """
        self._until_settled(self._begin_or_take_up)

    def check(self) -> None:
        """Looks whether the job could be begun or taken up, and writes nothing.

        Raises:
            DatasetError: as ``open``.
        """
        self._until_settled(self._check_what_is_there)

    def _until_settled(self, act: Callable[[], None]) -> None:
        if self.folder.is_symlink():
            raise DatasetError(
                f"{self.folder}: is a link, expected a folder of our own or none: what is written "
                "there would lie elsewhere. Remove the link"
            )
        for _ in range(_ATTEMPTS):
            try:
                return act()
            except FileNotFoundError:
                time.sleep(_PAUSE_SECONDS)  # the job ended, and took its folder along, just now
        raise DatasetError(
            f"{self._identity_path}: stays empty, or keeps vanishing; delete the folder if no job "
            "works there"
        )

    @property
    def _identity_path(self) -> Path:
        return self.folder / _IDENTITY_NAME

    def _begin_or_take_up(self) -> None:
        self.folder.mkdir(parents=bool(self.identity), exist_ok=True)
        # Of two jobs that begin at once, the second must find the first one's settings.
        if self._identity_path.exists() or not write_new_json(self._identity_path, self.identity):
            self._compare()

    def _check_what_is_there(self) -> None:
        if self._identity_path.exists():
            self._compare()

    def _compare(self) -> None:
        path = self._identity_path
        try:
            if path.stat().st_size == 0:  # without hard links, while another rank writes it
                raise FileNotFoundError(path)
            found = read_json(path, "record of an unfinished job")
        except DatasetError:
            if path.exists():
                raise
            raise FileNotFoundError(path) from None
        if found != self.identity:
            differences = "; ".join(differing_fields(found, self.identity)[:5])
            raise DatasetError(
                f"{self.folder.parent}: holds an unfinished job with other settings "
                f"({differences}). Finish it with its own settings, or delete the folder"
            )

    def receipt_path(self, piece: int) -> Path:
        """Returns where the receipt of a piece is or will be."""
        return self.folder / f"{piece:06d}.json"

    def is_finished(self, piece: int) -> bool:
        """Says whether a piece has its receipt."""
        return self.receipt_path(piece).exists()

    def finish(self, piece: int, receipt: Mapping[str, Any]) -> None:
        """Marks a piece as finished; its outputs must be on disk by now."""
        # Indented, it would take Python's own encoder, which is many times slower.
        write_bytes(self.receipt_path(piece), json.dumps(receipt, sort_keys=True).encode())

    def receipt(self, piece: int) -> dict[str, Any]:
        """Reads what ``finish`` was given."""
        return read_json(self.receipt_path(piece), "receipt")

    def receipts(self) -> Iterator[dict[str, Any]]:
        """Yields what every piece was finished with, in order."""
        return (self.receipt(piece) for piece in range(self.pieces))

    def stamp(self, piece: int) -> int | None:
        """Returns the inode, which tells a receipt from its successor; None where there is none."""
        try:
            return self.receipt_path(piece).stat().st_ino
        except FileNotFoundError:
            return None

    def unsound(self, is_sound: Callable[[int], bool]) -> dict[int, int | None]:
        """Returns the pieces without a receipt, and those that do not stand as theirs says.

        Args:
            is_sound: looks at a finished piece.

        Returns:
            The ``stamp`` of each; with another one it has been done anew.
        """
        self._tell_count()
        stamps = {piece: self.stamp(piece) for piece in range(self.pieces)}
        return {
            piece: stamp for piece, stamp in stamps.items() if stamp is None or not is_sound(piece)
        }

    def claim(self, piece: int, stamp: int | None) -> contextlib.ExitStack | None:
        """Takes the lock of a piece for as long as the stack that is returned stays open.

        Args:
            stamp: its ``stamp`` as long as it is not done.

        Returns:
            None where a living process holds it, or it is done.
        """
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(hold_lock(self._lock_path(piece)))
            return stack.pop_all() if held and self.stamp(piece) == stamp else None

    def _tell_count(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # finished just now, its folder is gone
            if not (self.folder / COUNT_NAME).exists():
                write_json(self.folder / COUNT_NAME, {"pieces": self.pieces})

    def _lock_path(self, piece: int) -> Path:
        return self.folder / f"{piece:06d}.lock"

    def is_complete(self) -> bool:
        """Says whether every piece is finished."""
        return all(self.is_finished(piece) for piece in range(self.pieces))

    def unfinished(self, rank: int, world_size: int) -> Iterator[int]:
        """Yields pieces to do, each held by a lock until the next one is asked for.

        First the rank's own share (``piece % world_size == rank``), then whatever other
        ranks have neither finished nor hold.
        """
        for piece, held in self.claims(rank, world_size):
            with held:
                yield piece

    def claims(self, rank: int, world_size: int) -> Iterator[tuple[int, contextlib.ExitStack]]:
        """Yields pieces as ``unfinished`` does, each with its lock: who works ahead holds several.

        Yields:
            The number, and what frees the lock when it is closed.
        """
        self._tell_count()
        order = sorted(range(self.pieces), key=lambda piece: ((piece - rank) % world_size, piece))
        for piece in order:
            held = None if self.is_finished(piece) else self.claim(piece, None)
            if held is not None:
                yield piece, held

    def close(self) -> None:
        """Removes the ledger; called when what it led to is complete under its final name."""
        for _ in range(_ATTEMPTS):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                return
            time.sleep(_PAUSE_SECONDS)  # another process wrote there just now


@contextlib.contextmanager
def hold_lock(path: Path) -> Iterator[bool]:
    """Tries to hold an exclusive lock; the system frees it when the process ends, however.

    Yields:
        True when the lock is held, or when the file system has no locks at all; False when
        a living process holds it, or when the folder is gone because the job has ended.

    Raises:
        DatasetError: what has the name is no regular file.
    """
    try:
        stream = _open_lock(path)
    except FileNotFoundError:
        yield False
        return
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass  # no locks here: doing a piece twice is harmless
        _HELD.add(stream)
        try:
            yield _is_still_named(stream, path)
        finally:
            _HELD.discard(stream)


def _open_lock(path: Path) -> IO[str]:
    """Opens a lock, or makes it; follows no link, and waits for no pipe."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        stream = open(path, "a", opener=lambda name, mode: os.open(name, mode | flags, 0o666))  # noqa: SIM115
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
    else:
        if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return stream
        stream.close()
    raise DatasetError(
        f"{path}: is a link, a pipe or a folder, expected a lock, which is a regular file, or "
        "nothing. Remove it"
    )


def _leave_locks_to_the_parent() -> None:
    """Closes a forked child's copies: it would keep the lock of a killed trainer."""
    for stream in _HELD:
        stream.close()
    _HELD.clear()


os.register_at_fork(after_in_child=_leave_locks_to_the_parent)


def _is_still_named(stream: IO[str], path: Path) -> bool:
    """Says whether ``path`` still names the locked file; its last holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def sole_user(folder: Path, what: str) -> Iterator[None]:
    """Refuses a second process that would write the same output.

    Args:
        folder: the output folder, which must exist.
        what: the stage's name, for the message.

    Raises:
        DatasetError: another living process holds the folder.
    """
    lock = folder / LOCK_NAME
    with hold_lock(lock) as held:
        if not held:
            raise in_use(folder, what)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def sole_launch(folder: Path, what: str) -> Iterator[None]:
    """As ``sole_user``, for the processes of one launch: the first of them holds the output.

    Raises:
        DatasetError: another launch holds it.
    """
    if process_place().is_main:
        with sole_user(folder, what):
            yield
        return
    yield
    lock = folder / LOCK_NAME
    if lock.exists():
        with hold_lock(lock) as held:
            if held:  # the first process has died
                lock.unlink(missing_ok=True)


def in_use(folder: Path, what: str) -> DatasetError:
    """The error of an output folder that another living process writes."""
    return DatasetError(
        f"{folder}: another {what} is writing here right now. Wait for it, stop it, "
        "or choose another --output"
    )
