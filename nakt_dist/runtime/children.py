"""Processes that this one starts for others' work, each with its own devices and log."""

import contextlib
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nakt_dist.runtime.relaunch import end_with_parent

Item = TypeVar("Item")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Share:
    """The part of a machine that a child may use.

    Attributes:
        gpus: numbers of its GPUs as they count in ``CUDA_VISIBLE_DEVICES``; empty without any.
        cores: its CPU cores; empty for all.
    """

    gpus: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.gpus:
            return f"GPU {','.join(self.gpus)}"
        return f"cores {','.join(map(str, self.cores))}" if self.cores else "all cores"


def machine_shares(jobs: int) -> list[Share]:
    """Divides this machine's GPUs, or without any its cores, among so many jobs.

    Where jobs are more than GPUs, or cores, some share one.
    """
    gpus = _visible_gpus()
    if gpus:
        parts = _divided(gpus, jobs)
        return [Share(gpus=tuple(part)) for part in parts]
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [Share()] * jobs
    cores = sorted(os.sched_getaffinity(0))
    return [Share(cores=tuple(part)) for part in _divided(cores, jobs)]


def _divided(items: Sequence[Item], parts: int) -> list[list[Item]]:
    if parts > len(items):
        return [[items[number % len(items)]] for number in range(parts)]
    cuts = [round(number * len(items) / parts) for number in range(parts + 1)]
    return [list(items[first:last]) for first, last in itertools.pairwise(cuts)]


def _visible_gpus() -> list[str]:
    """Asks for GPUs without waking one: a process that has cannot be forked from."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    import torch

    count = torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return told.split(",")[:count] if told else [str(number) for number in range(count)]


class Child:
    """A forked process with a log, in a process group of its own; it ends with this one.

    Args:
        work: what it does; its exit code.
        log: gets all that it prints, behind what is there.
        environment: variables to set, or with None to take away.
    """

    def __init__(
        self,
        work: Callable[[], int],
        log: Path,
        environment: Mapping[str, str | None],
        share: Share,
    ) -> None:
        for stream in filter(None, (sys.stdout, sys.stderr)):  # none where they were closed
            stream.flush()
        self.exit_code: int | None = None
        with signals_held():  # one that comes before it has handlers of its own is not lost
            self.pid = os.fork()
            if self.pid == 0:
                _become_child(work, log, environment, share)

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def signal(self, number: int) -> None:
        """Signals it and all processes of its group."""
        if self.exit_code is None:
            try:
                os.killpg(self.pid, number)
            except ProcessLookupError:  # it has no group yet
                os.kill(self.pid, number)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Lets Ctrl-C and requests to leave wait for the end of ``with``."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _become_child(
    work: Callable[[], int], log: Path, environment: Mapping[str, str | None], share: Share
) -> None:
    """Does the work in the forked process and ends it; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for each in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(each, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        end_with_parent()
        stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        silence = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((stream, 1), (stream, 2), (silence, 0)):  # the log may be 0 itself
            os.dup2(source, target)
        # A notebook, among others, has put streams of its own in their place.
        sys.stdout, sys.stderr = (
            open(number, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115
            for number in (1, 2)
        )
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _take(share)
        code = work()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _take(share: Share) -> None:
    if share.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(share.gpus)
    if share.cores:
        os.sched_setaffinity(0, share.cores)
        if "OMP_NUM_THREADS" not in os.environ:
            os.environ["OMP_NUM_THREADS"] = str(len(share.cores))
            if "torch" in sys.modules:  # it has read the variable already
                sys.modules["torch"].set_num_threads(len(share.cores))
