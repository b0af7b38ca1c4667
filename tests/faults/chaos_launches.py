"""Launches of a stage whose processes can be killed one by one, or all at once."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from pathlib import Path

import psutil

from nakt_dist.cli import main
from tests.launching import NAKT, Program, fork, rank_environments, torchrun

_PATIENCE_SECONDS = 10.0
_LOG_TAIL = 3000
_POLL_SECONDS = 0.005


class LaunchError(Exception):
    """A launch hangs, fails though nobody hit it, or leaves processes behind."""


class Launch(ABC):
    """One start of a stage: some processes with names, and a log.

    Leaving its ``with`` block ends what still runs. A process that lives on by itself some
    seconds after the launch has ended is an error.

    Args:
        log: file that all processes print to.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.killed: list[str] = []

    def __enter__(self) -> "Launch":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self.wait(0):
                self._refuse_orphans()
        finally:
            self._kill_all()

    @property
    def printed(self) -> str:
        """What its processes have printed so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @abstractmethod
    def members(self) -> dict[str, int]:
        """Returns the living processes: their ids by name."""

    @abstractmethod
    def statuses(self) -> dict[str, int]:
        """Returns the exit statuses of those that have ended and are known by name."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Waits at most so long; says whether the launch has ended."""

    @abstractmethod
    def _kill_all(self) -> None:
        """Kills every process with -9."""

    @abstractmethod
    def processes(self) -> list[psutil.Process]:
        """Returns every living process that this launch has started, named or not."""

    def _strike(self, name: str, pid: int) -> None:
        """Kills one process with -9."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def kill(self, victim: str | None) -> bool:
        """Kills one process with -9, or the whole job.

        Args:
            victim: a name of ``members``; None for all.

        Returns:
            Whether anybody was still there to be killed.
        """
        alive = self.members()
        wanted = alive if victim is None else alive.keys() & {victim}
        if not wanted:
            return False
        self.killed += wanted
        if victim is None:
            self._kill_all()
        else:
            self._strike(victim, alive[victim])
        return True

    def finish(self, seconds: float) -> None:
        """Waits for the end.

        Raises:
            LaunchError: it does not come.
        """
        if not self.wait(seconds):
            raise LaunchError(f"still running after {seconds:.0f} s:\n{self.printed[-_LOG_TAIL:]}")

    def wait_until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Waits until something has happened, while it runs.

        Raises:
            LaunchError: it ends before, or it does not happen.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.wait(_POLL_SECONDS) or time.monotonic() > deadline:
                raise LaunchError(f"it did not come to that:\n{self.printed[-_LOG_TAIL:]}")

    def check(self) -> None:
        """Checks that whoever was left alone ended well.

        Raises:
            LaunchError: somebody did not.
        """
        failed = {name: status for name, status in self._blameless().items() if status != 0}
        if failed:
            raise LaunchError(f"ended with {failed}:\n{self.printed[-_LOG_TAIL:]}")

    def _blameless(self) -> dict[str, int]:
        """Returns the statuses of those that no kill can have disturbed."""
        return {} if self.killed else self.statuses()

    def _refuse_orphans(self) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while left := self.processes():
            if time.monotonic() > deadline:
                raise LaunchError(f"left processes behind: {left}")
            time.sleep(0.05)


class ForkedLaunch(Launch):
    """Ranks forked from a server that has imported everything; each runs the command line.

    A rank starts in a fraction of a second and is a process like any other.

    Args:
        words: of the command line, after ``nakt``.
        world_size: number of ranks.
        log: file that they print to.
        stop_together: end the others when one was killed, as launchers do; else they go on.
        only: the one rank that starts; None for all.
        environment: variables besides those of a launcher.
    """

    def __init__(
        self,
        words: Sequence[str],
        world_size: int,
        log: Path,
        stop_together: bool,
        only: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(log)
        self._stop_together = stop_together
        self._ranks = {
            f"rank {rank}": fork(_run_command, list(words), {**each, **(environment or {})}, log)
            for rank, each in enumerate(rank_environments(world_size))
            if only in (None, rank)
        }

    def members(self) -> dict[str, int]:
        return {name: rank.pid for name, rank in self._ranks.items() if rank.is_alive()}

    def statuses(self) -> dict[str, int]:
        found = {name: rank.exitcode for name, rank in self._ranks.items()}
        return {name: status for name, status in found.items() if status is not None}

    def wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while alive := [rank.sentinel for rank in self._ranks.values() if rank.is_alive()]:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            connection.wait(alive, left)
        return True

    def _kill_all(self) -> None:
        for rank in self._ranks.values():
            rank.kill()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(rank.pid, signal.SIGKILL)  # the processes that it has started itself
        for rank in self._ranks.values():
            rank.join()

    def _strike(self, name: str, pid: int) -> None:
        super()._strike(name, pid)
        self._ranks[name].join(_PATIENCE_SECONDS)
        if not self._stop_together:
            return
        for rank in self._ranks.values():
            rank.terminate()
        if not self.wait(_PATIENCE_SECONDS):
            self._kill_all()

    def _blameless(self) -> dict[str, int]:
        if self._stop_together and self.killed:
            return {}
        return {name: each for name, each in self.statuses().items() if name not in self.killed}

    def processes(self) -> list[psutil.Process]:
        sessions = {rank.pid for rank in self._ranks.values()}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
                mine = os.getsid(process.pid) in sessions
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


def _run_command(words: list[str], environment: dict[str, str], log: Path) -> None:
    """What a forked rank does: a session of its own, its output in the log, then the command."""
    os.setsid()
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked
    status = main(words)
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # taking so many modules down would take a second


class CommandLaunch(Launch):
    """A command line as a user types it, and the processes that it starts.

    Args:
        words: of the command line, after ``nakt``.
        world_size: number of ranks, under torchrun where there are several; None for one
            process that starts workers of its own.
        log: file that they print to.
    """

    def __init__(self, words: Sequence[str], world_size: int | None, log: Path) -> None:
        super().__init__(log)
        start = torchrun(world_size) if world_size is not None and world_size > 1 else NAKT
        self._program = Program((*start, *words), log)

    def members(self) -> dict[str, int]:
        if self._program.status is not None:
            return {}
        found = {f"rank {rank}": each.pid for rank, each in sorted(self._program.ranks().items())}
        if found:
            return found
        workers = []
        for process in self._program.processes():
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(process.cmdline()):
                    workers.append(process.pid)
        named = {f"worker {number}": pid for number, pid in enumerate(sorted(workers))}
        return {"main": self._program.pid, **named}

    def statuses(self) -> dict[str, int]:
        status = self._program.status
        return {} if status is None else {"main": status}

    def wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._program.status is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True

    def _kill_all(self) -> None:
        self._program.kill()

    def processes(self) -> list[psutil.Process]:
        return self._program.processes()
