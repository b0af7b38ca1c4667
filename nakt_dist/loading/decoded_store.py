"""Decoded images in memory that the processes of a machine share, so that each is decoded once."""

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from nakt_dist.runtime.machine import available_memory, free_bytes
from nakt_dist.runtime.processes import process_place

SHARED_MEMORY = Path("/dev/shm")
_MARK = 8  # bytes that say whether a record is there, and its checksum
_THERE = 1 << 32
_LONGEST_WAIT = 10.0


class DecodedStore:
    """Keeps the decoded pixels of the first samples of a dataset, as many as fit.

    Whoever decodes a sample first writes it for all; a record counts once its checksum, written
    after its pixels, is right, so that one half written by a killed process is decoded anew. The
    memory is a file in ``/dev/shm`` that is gone with its last user; what killed users left is
    taken on, or cleared away by the next run of this user. Where there is no room the process
    keeps its own.

    Args:
        name: tells these samples' pixels from all others'.
        record_bytes: of a decoded sample.
        most_bytes: that it may take; None for half of the memory that is left.
    """

    def __init__(self, name: str, samples: int, record_bytes: int, most_bytes: int | None) -> None:
        whole = samples * (record_bytes + _MARK)
        left = available_memory()
        if most_bytes is None:
            most_bytes = whole if left is None else left // 2
        memory = _shared(name, min(whole, most_bytes))
        if memory is None:
            records = min(samples, most_bytes // process_place().local_world_size // record_bytes)
            memory = mmap.mmap(-1, max(records * (record_bytes + _MARK), 1))
        self.records = min(len(memory) // (record_bytes + _MARK), samples)
        self._marks = np.frombuffer(memory, np.uint64, self.records)
        pixels = np.frombuffer(memory, np.uint8, self.records * record_bytes, self.records * _MARK)
        self._pixels = pixels.reshape(self.records, record_bytes)
        self._trusted = np.zeros(self.records, bool)

    def read(self, number: int, parts: Sequence[np.ndarray]) -> bool:
        """Fills the parts of a decoded sample; says whether it was there.

        Args:
            parts: uint8 arrays, contiguous, as they were written.
        """
        if number >= self.records:
            return False
        record = self._pixels[number]
        if not self._trusted[number]:
            mark = int(self._marks[number])
            if not mark or mark != _THERE | zlib.crc32(record):
                return False
            self._trusted[number] = True
        start = 0
        for part in parts:
            part.reshape(-1)[:] = record[start : start + part.size]
            start += part.size
        return True

    def write(self, number: int, parts: Sequence[np.ndarray]) -> None:
        """Keeps a decoded sample, where it has a place."""
        if number >= self.records:
            return
        record, start = self._pixels[number], 0
        for part in parts:
            record[start : start + part.size] = part.reshape(-1)
            start += part.size
        self._marks[number] = _THERE | zlib.crc32(record)
        self._trusted[number] = True


def _shared(name: str, size: int) -> mmap.mmap | None:
    """Opens the file of these samples, or makes it; None where there is no room for it."""
    folder = SHARED_MEMORY / f"nakt_dist-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return None  # somebody else's
        with _locked(folder):
            path = folder / name
            _clear(folder, path)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                kept = os.fstat(descriptor).st_size
                if kept > max(size, 1) and _is_unused(descriptor):
                    os.ftruncate(descriptor, kept := 0)
                if not kept:
                    if size > free_bytes(folder) // 2:
                        raise OSError(errno.ENOSPC, "too little shared memory")
                    # Memory that is promised beforehand cannot run out under a writer, by SIGBUS.
                    os.posix_fallocate(descriptor, 0, kept := max(size, 1))
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                memory = mmap.mmap(descriptor, kept)
            except OSError:
                path.unlink(missing_ok=True)
                os.close(descriptor)
                raise
    except (OSError, AttributeError):  # the latter outside Linux
        return None
    weakref.finalize(memory, _leave, folder, path, descriptor)
    return memory


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("wb") as lock:
        end = time.monotonic() + _LONGEST_WAIT
        while not _is_unused(lock.fileno()):
            if time.monotonic() > end:
                raise BlockingIOError(f"{folder} is locked by a process that does not go on")
            time.sleep(0.05)
        yield


def _clear(folder: Path, wanted: Path) -> None:
    """Removes the files that no living process uses, but for the one that is wanted."""
    for path in folder.iterdir():
        if path != wanted and path.name != ".lock":
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            _remove_if_unused(path, descriptor)


def _leave(folder: Path, path: Path, descriptor: int) -> None:
    """Ends the use of a file; its last user removes it."""
    with contextlib.suppress(OSError), _locked(folder):
        _remove_if_unused(path, descriptor)


def _remove_if_unused(path: Path, descriptor: int) -> None:
    try:
        if _is_unused(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _is_unused(descriptor: int) -> bool:
    """Says whether nobody else holds a lock on a file; takes one in that case."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
