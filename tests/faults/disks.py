"""Disks that are too small, and folders that nobody can write to."""

import contextlib
import os
import resource
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path

from tests.faults.chaos_launches import Launch

_PAGE_BYTES = 4096
_LEAST_FILE_BYTES = 2048  # for the log, where files are limited one by one


class SmallDisk:
    """A disk of four megabytes that can be filled up.

    Where no disk can be mounted, the files of the launches are limited in size instead, which
    the system refuses in the same way at the same places.

    Args:
        folder: where the disk is.
        is_real: whether it is a disk of its own.
    """

    def __init__(self, folder: Path, is_real: bool) -> None:
        self.folder = folder
        self._is_real = is_real
        self._filler = folder / "filler"
        self._limit = resource.RLIM_INFINITY

    def leave(self, size: int) -> None:
        """Fills the disk up so that so many bytes are left."""
        if not self._is_real:
            self._limit = max(size, _LEAST_FILE_BYTES)
            return
        state = os.statvfs(self.folder)
        pages = state.f_bavail * state.f_frsize // _PAGE_BYTES - size // _PAGE_BYTES
        self._filler.write_bytes(b"\0" * (pages * _PAGE_BYTES))

    def make_room(self) -> None:
        """Empties it again but for what was written meanwhile."""
        self._limit = resource.RLIM_INFINITY
        self._filler.unlink(missing_ok=True)

    def hold(self, launch: Launch) -> None:
        """Makes a launch feel the limit; called right after its start."""
        if self._limit != resource.RLIM_INFINITY:
            for pid in launch.members().values():
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (self._limit, self._limit))


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Mounts a disk at a new folder, where the system allows it."""
    folder.mkdir()
    rights = _mounted("-t", "tmpfs", "-o", "size=4m,mode=0777", "nakt-test", str(folder))
    if rights is None:
        warnings.warn("no tmpfs can be mounted: files are limited in size instead", stacklevel=2)
        yield SmallDisk(folder, is_real=False)
        return
    try:
        yield SmallDisk(folder, is_real=True)
    finally:
        _unmount(rights, folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[bool]:
    """Makes a folder and all below it read-only; yields whether for root, too."""
    rights = _mounted("--bind", str(folder), str(folder))
    if rights is None:
        warnings.warn("nothing can be mounted: permissions are taken away instead", stacklevel=2)
        with _without_permission(folder):
            yield False
        return
    try:
        subprocess.run([*rights, "mount", "-o", "remount,bind,ro", str(folder)], check=True)
        yield True
    finally:
        _unmount(rights, folder)


def _mounted(*words: str) -> tuple[str, ...] | None:
    """Mounts as root or through sudo; returns the words before ``mount``, None if neither works."""
    for rights in ((), ("sudo", "-n")):
        command = [*rights, "mount", *words]
        if shutil.which(command[0]) is None:
            continue
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return rights
    return None


def _unmount(rights: tuple[str, ...], folder: Path) -> None:
    subprocess.run([*rights, "umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def _without_permission(folder: Path) -> Iterator[None]:
    paths = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in paths}
    for path in paths:
        path.chmod(modes[path] & ~0o222)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(modes[path])
