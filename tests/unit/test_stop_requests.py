"""Signals that ask to leave, noted by the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nakt_dist.errors import NaktError, StartAgain
from nakt_dist.runtime.distributed import explain_lost_peers
from nakt_dist.runtime.preemption import StopRequests

LEAVING = """
import atexit, os, signal, sys
from nakt_dist import cli
from nakt_dist.errors import StartAgain
def leave(config):
    raise StartAgain("asked to leave")
cli.parse_config = lambda *_: None
cli.load_stage = lambda _: type("Stage", (), {"run": staticmethod(leave)})
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
sys.exit(cli.main(["train"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_the_handlers_come_back(number: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    with StopRequests() as stop:
        assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == before
        stop.listen()
        stop.listen()
        assert (stop.received, stop.name) == (0, "")
        os.kill(os.getpid(), number)
        assert (stop.received, stop.name) == (number, signal.Signals(number).name)

    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_peer_that_left_before_is_no_failure_of_one_that_was_asked_to_leave() -> None:
    with StopRequests() as stop:
        with pytest.raises(NaktError, match="Its own message says why"):
            lose_peer(stop)
        stop.received = signal.SIGTERM
        with pytest.raises(StartAgain, match="asked to leave by SIGTERM"):
            lose_peer(stop)


def lose_peer(stop: StopRequests) -> None:
    with explain_lost_peers(stop):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:29500")


def test_a_process_that_leaves_says_so_although_it_is_signalled_again() -> None:
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, cwd=root)
    assert ended.returncode == 75, ended.stderr
