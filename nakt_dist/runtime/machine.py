"""What this process finds on its machine: device, memory, disk and whether locks work."""

import contextlib
import fcntl
import os
import socket
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from nakt_dist.runtime.devices import choose_device, group_backend

MIB = 2**20
GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Machine:
    """One process's view of its machine.

    Attributes:
        cores: CPU cores this process may use.
        threads: CPU threads of torch.
        device: in words, such as ``cuda:0 NVIDIA H100 (70.2 of 79.1 GiB free)``.
        gpu: what tells the GPU from all others; empty on a CPU.
        backend: of a process group here, ``gloo`` or ``nccl``.
        memory: bytes that can be had, as ``available_memory`` says.
    """

    host: str
    cores: int
    threads: int
    device: str
    gpu: str
    backend: str
    memory: int | None


def look_around(device: str, threads: int | None) -> Machine:
    """Resolves the device setting as the stages do, and measures.

    Raises:
        ConfigurationError: the device does not exist here.
    """
    chosen = choose_device(device, threads)
    words, gpu = "cpu", ""
    if chosen.type == "cuda":
        properties = torch.cuda.get_device_properties(chosen)
        free, total = torch.cuda.mem_get_info(chosen)
        words = f"{chosen} {properties.name} ({free / GIB:.1f} of {total / GIB:.1f} GiB free)"
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        gpu = str(getattr(properties, "uuid", f"{visible}:{chosen.index}"))
    return Machine(
        host=socket.gethostname(),
        cores=len(os.sched_getaffinity(0)),
        threads=torch.get_num_threads(),
        device=words,
        gpu=gpu,
        backend=group_backend(device),
        memory=available_memory(),
    )


def available_memory() -> int | None:
    """Returns the bytes of memory that can still be had; None where it cannot be told.

    That is what the machine has left, or less where a control group (version 2) sets a limit: one
    that this process is in, or one above it, such as that of a SLURM job or a container. Files
    that are in memory only to be read again sooner make room, and so count as left.
    """
    left = []
    with contextlib.suppress(OSError, ValueError, KeyError):  # not Linux
        left.append(_numbers_in(Path("/proc/meminfo"))["MemAvailable:"] * 1024)
    for group in _control_groups():
        with contextlib.suppress(OSError, ValueError, KeyError):  # no limit, or no such file
            limit = int(_text_of(group / "memory.max"))
            used = int(_text_of(group / "memory.current"))
            left.append(limit - used + _numbers_in(group / "memory.stat")["inactive_file"])
    return min(left, default=None)


def _control_groups() -> list[Path]:
    """Returns this process's control group of version 2, and all above it."""
    try:
        lines = _text_of(_OWN_CGROUPS).splitlines()
    except OSError:
        return []
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None:
        return []
    folder = _CGROUP / own
    return [each for each in (folder, *folder.parents) if each.is_relative_to(_CGROUP)]


def _numbers_in(path: Path) -> dict[str, int]:
    """Reads a table of the kernel: a name and a number in each line."""
    return {row[0]: int(row[1]) for row in _rows_of(path)}


def nearest_folder(path: Path) -> Path:
    """Returns the folder itself, or the first one above it that exists."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def free_bytes(folder: Path) -> int:
    """Returns the bytes that a user may still write to the file system of an existing folder."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def locks_work(folder: Path) -> bool:
    """Says whether a lock on a file in a folder keeps a second holder out.

    Raises:
        OSError: no file can be written there.
    """
    with (
        tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-") as first,
        Path(first.name).open("rb") as second,
    ):
        try:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(second, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return isinstance(error, BlockingIOError)
    return False


def is_locked(path: Path) -> bool:
    """Says whether a living process holds the lock file; an absent one is held by nobody.

    It only asks, and so keeps nobody out who wants the lock at this moment. A holder in another
    container of this machine goes unseen.
    """
    try:
        with path.open("rb") as stream:
            return _is_held_here(stream.fileno()) or _is_held_elsewhere(stream.fileno())
    except FileNotFoundError:
        return False


def _is_held_here(descriptor: int) -> bool:
    """Says whether a process of this machine locks an open file, by the kernel's table."""
    try:
        lines = _text_of(Path(f"/proc/self/fdinfo/{descriptor}")).splitlines()
        facts = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
        mounts = {row[0]: row[2] for row in _rows_of(Path("/proc/self/mountinfo"))}
        # Neither is what stat says: btrfs and overlays give their files numbers of their own.
        major, minor = map(int, mounts[facts["mnt_id"]].split(":"))
        inode = facts.get("ino", os.fstat(descriptor).st_ino)  # Linux before 5.14 does not say it
        name = f"{major:02x}:{minor:02x}:{inode}"
        return any(row[1] == "FLOCK" and row[5] == name for row in _rows_of(Path("/proc/locks")))
    except (OSError, ValueError, KeyError):
        return False  # not Linux


def _is_held_elsewhere(descriptor: int) -> bool:
    """Says whether another machine locks an open file, where the file system knows (NFS, Lustre).

    There a lock is a range of bytes to the server, so a question about ranges finds it.
    """
    question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # struct flock
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    except OSError:
        return False  # no locks on this file system
    return struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK


def _rows_of(path: Path) -> list[list[str]]:
    return [line.split() for line in _text_of(path).splitlines()]


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")  # a mount is called anything
