"""Starts stages as processes, kills them as accidents do, and leaves nobody behind.

Two ways. ``program`` starts a command line, as a user does. ``run_ranks`` forks a process, or
a launch of several, from a server that has imported everything once: a rank then costs a
fraction of a second, so that a test can afford dozens of kills.
"""

import contextlib
import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

import psutil
import pytest

from nakt_dist.cli import load_stage
from nakt_dist.errors import NaktError
from nakt_dist.records.run_record import RunRecord

_LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_TOKEN = "NAKT_TEST_PROGRAM"
_POLL_SECONDS = 0.02
NAKT = (sys.executable, "-m", "nakt_dist")


def _restore_interrupt() -> None:
    """A shell that starts the tests in the background leaves Ctrl-C ignored in all children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Program:
    """A command line in a process group of its own.

    Args:
        words: the command line.
        log: file for what it prints.
        environment: variables besides those of the tests.
    """

    def __init__(self, words: tuple[str, ...], log: Path, **environment: str) -> None:
        self._log = log
        self._token = secrets.token_hex(8)
        variables = {k: v for k, v in os.environ.items() if k not in _LAUNCHER_VARIABLES}
        variables |= {"OMP_NUM_THREADS": "1", _TOKEN: self._token, **environment}
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                words,
                stdout=stream,
                stderr=stream,
                env=variables,
                start_new_session=True,
                preexec_fn=_restore_interrupt,
            )

    @property
    def pid(self) -> int:
        """The first process's id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text()

    @property
    def status(self) -> int | None:
        """The first process's exit status, None while it runs."""
        return self._process.poll()

    def processes(self) -> list[psutil.Process]:
        """All living processes that descend from it, orphans included."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get(_TOKEN) == self._token
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def ranks(self) -> dict[int, psutil.Process]:
        """The processes that a launcher gave a rank, by rank."""
        found = {}
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "RANK" in process.environ():
                    found[int(process.environ()["RANK"])] = process
        return found

    def wait(self, timeout: float = 90) -> int:
        """Waits for the end; returns the exit status."""
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {timeout} s:\n{self.output}")

    def succeed(self, timeout: float = 90) -> str:
        """Waits for an end without error; returns what was printed."""
        status = self.wait(timeout)
        assert status == 0, f"exit status {status}:\n{self.output}"
        return self.output

    def wait_until(self, condition: Callable[[], Any], timeout: float = 60) -> None:
        """Waits until something has happened on disk, while the program runs."""
        deadline = time.monotonic() + timeout
        while not condition():
            status = self._process.poll()
            assert status is None, f"ended with {status} before its time:\n{self.output}"
            assert time.monotonic() < deadline, f"not within {timeout} s:\n{self.output}"
            time.sleep(_POLL_SECONDS)

    def kill(self) -> None:
        """Kills with -9 all processes, the first one first so that it cannot react."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        while left := self.processes():
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(left, timeout=5)
        self._process.wait(10)

    def orphans(self, patience: float = 10) -> list[psutil.Process]:
        """What still lives some seconds after the first process has ended."""
        self._process.wait(patience)
        deadline = time.monotonic() + patience
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


@contextlib.contextmanager
def program(*words: str, log: Path, **environment: str) -> Iterator[Program]:
    """Starts a command line; ends it, and all that it started, when the test leaves.

    A test that lets it end by itself and leaves a process behind fails.
    """
    started = Program(words, log, **environment)
    try:
        yield started
        if started._process.poll() is not None:
            assert not started.orphans(), f"left processes behind:\n{started.output}"
    finally:
        started.kill()


def torchrun(count: int) -> tuple[str, ...]:
    """Words that start ``count`` processes under torchrun, at a free port."""
    module = (sys.executable, "-m", "torch.distributed.run")
    return (*module, "--standalone", f"--nproc_per_node={count}", "-m", "nakt_dist")


def accelerate_launch(*options: str) -> tuple[str, ...]:
    """Words that start the program under accelerate launch with the given options."""
    return (sys.executable, "-m", "accelerate.commands.launch", *options, "-m", "nakt_dist")


@dataclass(frozen=True)
class Death:
    """Makes one rank kill itself with -9 just before it renames its n-th file.

    Everything becomes final by a rename, so these are all the moments that matter.
    """

    rename: int
    rank: int = 0

    def arm(self) -> None:
        """Counts the renames of this process from now on."""
        rename, count = os.replace, 0

        def replace(*arguments: Any, **options: Any) -> None:
            nonlocal count
            count += 1
            if count == self.rename:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments, **options)

        os.replace = replace


@dataclass(frozen=True)
class DeathBesideASlowRank:
    """A death that its rank comes to: the other is too slow at first to do all the work itself."""

    death: Death
    rank: None = None

    def arm(self) -> None:
        """Prepares the death in one rank, and slows the first renames of the other."""
        if int(os.environ["RANK"]) == self.death.rank:
            self.death.arm()
            return
        rename, slow = os.replace, iter(range(6))

        def replace(*arguments: Any, **options: Any) -> None:
            if next(slow, None) is not None:
                time.sleep(0.5)
            rename(*arguments, **options)

        os.replace = replace


class Mishap(Protocol):
    """What befalls one rank, or with None each: a ``Death``, or one of ``tests.mishaps``."""

    rank: int | None

    def arm(self) -> None:
        """Prepares it, in the rank's own process."""


@dataclass(frozen=True)
class Outcome:
    """How a rank ended.

    Attributes:
        exitcode: 0, or -9 when it was killed.
        record: what its stage returned.
        error: the error that the user would see.
    """

    exitcode: int | None
    record: RunRecord | None = None
    error: NaktError | None = None


def run_ranks(
    config: Any,
    world_size: int = 1,
    timeout: float = 60,
    death: "Mishap | None" = None,
    only: Sequence[int] | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> list[Outcome]:
    """Runs a stage in one process, or in as many as a launcher would have started.

    Args:
        config: of the stage, which its class names; or a list with one for each rank.
        world_size: number of processes.
        timeout: seconds after which the launch counts as hung.
        death: what befalls one of them.
        only: the ranks that start; None for all.
        environment: variables that the launcher sets besides.
        log: file for what the ranks print.
    """
    environments = [{**each, **(environment or {})} for each in rank_environments(world_size)]
    wanted = range(world_size) if only is None else only
    configs = config if isinstance(config, list) else [config] * world_size
    ranks = [_Rank(configs[rank], rank, environments[rank], death, log) for rank in wanted]
    deadline = time.monotonic() + timeout
    try:
        for rank in ranks:
            rank.process.join(max(deadline - time.monotonic(), 0))
        hung = [number for number, rank in enumerate(ranks) if rank.process.is_alive()]
        assert not hung, f"ranks {hung} still run after {timeout} s"
        return [rank.outcome() for rank in ranks]
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()


def finish(
    config: Any,
    world_size: int = 1,
    timeout: float = 60,
    environment: Mapping[str, str] | None = None,
) -> list[RunRecord]:
    """Runs a stage as ``run_ranks`` does; every rank must succeed. Returns their records."""
    outcomes = run_ranks(config, world_size, timeout, environment=environment)
    assert all(outcome.record for outcome in outcomes), outcomes
    return [outcome.record for outcome in outcomes]


def errors_of(config: Any, world_size: int = 1, timeout: float = 60) -> list[str]:
    """Runs a stage as ``run_ranks`` does; every rank must refuse. Returns their messages."""
    outcomes = run_ranks(config, world_size, timeout)
    assert all(outcome.error for outcome in outcomes), outcomes
    return [str(outcome.error) for outcome in outcomes]


_CONTEXT = multiprocessing.get_context("forkserver")


def rank_environments(world_size: int) -> list[dict[str, str]]:
    """Returns what a launcher tells each rank, with a free port to meet at; nothing to one."""
    if world_size == 1:
        return [{}]
    port = free_port()
    values = [(rank, world_size, rank, "127.0.0.1", port) for rank in range(world_size)]
    return [dict(zip(_LAUNCHER_VARIABLES, map(str, each), strict=True)) for each in values]


def fork(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Starts a function in a process forked from the server that has imported everything."""
    _start_server()
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


class _Rank:
    def __init__(
        self,
        config: Any,
        rank: int,
        environment: dict[str, str],
        death: "Mishap | None",
        log: Path | None,
    ) -> None:
        self._receiver, sender = _CONTEXT.Pipe(duplex=False)
        mine = death if death is not None and death.rank in (rank, None) else None
        self.process = fork(_run_stage, config, environment, mine, log, sender)
        sender.close()

    def outcome(self) -> Outcome:
        record = error = None
        with contextlib.suppress(EOFError):
            record, error = self._receiver.recv()
        return Outcome(self.process.exitcode, record, error)


def _run_stage(
    config: Any,
    environment: dict[str, str],
    death: "Mishap | None",
    log: Path | None,
    sender: Connection,
) -> None:
    """What a forked rank does; any other error than ours prints its traceback."""
    os.environ.update(environment)
    if log is not None:
        with log.open("a") as stream:
            os.dup2(stream.fileno(), 2)
    if death is not None:
        death.arm()
    stage = type(config).__name__.removesuffix("Config").lower()
    try:
        sender.send((load_stage(stage).run(config), None))
    except NaktError as error:
        sender.send((None, error))
    sys.stderr.flush()
    os._exit(0)  # taking so many modules down would take a second


def _start_server() -> None:
    """Starts the server with the environment that a launcher would give."""
    _CONTEXT.set_forkserver_preload(["tests.imported_later"])
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def free_port() -> int:
    """Returns a port that nobody listened at just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
